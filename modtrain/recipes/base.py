"""What a recipe is: named modules, each with how it is built, its loss, and the peers that it reads.

A recipe is one file that reads like its paper. This file says what it holds, what a loss may
touch (`Nets`), and checks that the graph of reads makes sense. Deliberately not here: values from a config
(`params.py`), the loop (`worker.py`), the frozen copies themselves (`peers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modtrain.data.base import Batch, Data
from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.nets_view import Nets

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net
    from torch.nn import Parameter
    from torch.optim import Optimizer

T = TypeVar("T")

Params = Any
"""A recipe's own frozen dataclass (plain or pydantic)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a recipe's `evaluate` returns."""

    metrics: dict[str, float]
    grid: Tensor | None = None
    """A picture for a person, uint8 of shape (height, width, 3)."""


@dataclass(frozen=True)
class Reads:
    """An edge of the graph: a module's loss uses the newest version of a peer, or its `last` n versions."""

    peer: str
    last: int | Callable[[Params], int] = 1


@dataclass(frozen=True, kw_only=True)
class Module:
    """One separately trained part of a model.

    `loss(nets, batch, params)` returns `{"loss": scalar, ...}`; other scalars are logged. `schedule(progress, params)`
    is the factor on every learning rate of the optimizer at `progress` in [0, 1); while it is 0 the module is not
    computed at all (a head start, a finished module). `updates` is the number of steps a batch. `ema` is the decay of
    an exponential moving average of the weights for evaluation and inference. A frozen copy runs in `eval()` unless
    `frozen_mode="train"`: a recipe with batch normalisation must choose.
    """

    build: Callable[[Params], Net]
    loss: Callable[[Nets, Batch, Params], Mapping[str, Tensor]]
    optimizer: Callable[[Iterable[Parameter], Params], Optimizer]
    reads: Sequence[str | Reads] = ()
    schedule: Callable[[float, Params], float] | None = None
    updates: int | Callable[[Params], int] = 1
    ema: float | Callable[[Params], float] | None = None
    frozen_mode: str = "eval"

    def edges(self) -> tuple[Reads, ...]:
        """The peers that the loss reads."""
        return tuple(Reads(edge) if isinstance(edge, str) else edge for edge in self.reads)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained. A run uses `epochs`, `exchange_every` (steps), `max_staleness` (epochs) unless it is told.

    Of the metrics of `evaluate` more is better, but for those that are named in `lower_is_better`.
    """

    params: type[Any]
    data: Callable[[Path | None, Params], Data]
    modules: Mapping[str, Module]
    check_dataroot: Callable[[Path], object] | None = None
    """Raises InputError where a --dataroot has not the layout that `data` needs; quick, asked before a run is made."""
    apply: Callable[[Nets, Tensor, Params], Tensor] | None = None
    evaluate: Callable[[Nets, Any, Params], Evaluation] | None = None
    lower_is_better: tuple[str, ...] = ()
    epochs: int = 10
    exchange_every: int | None = None
    max_staleness: int | None = None

    def __post_init__(self) -> None:
        check_graph(self.modules)
        check_directions(self.lower_is_better, measured=self.evaluate is not None)

    def last(self, module: str, peer: str, params: Params) -> int:
        """How many of the newest versions of `peer` the loss of `module` reads."""
        edge = next(edge for edge in self.modules[module].edges() if edge.peer == peer)
        return int(resolve(edge.last, params))

    def reads(self, modules: Iterable[str], params: Params) -> dict[str, int]:
        """The peers outside of `modules` that their losses read, each with the most versions that an edge asks for."""
        inside, wanted = tuple(modules), dict[str, int]()
        for module in inside:
            for edge in self.modules[module].edges():
                if edge.peer not in inside:
                    wanted[edge.peer] = max(wanted.get(edge.peer, 1), self.last(module, edge.peer, params))
        return wanted


def resolve(value: T | Callable[[Params], T], params: Params) -> T:
    """A field of a recipe that is either a value or a function of the parameters."""
    return value(params) if callable(value) else value


def check_graph(modules: Mapping[str, Module]) -> None:
    """Raise InputError where the modules are not a graph that can be trained."""
    if not modules:
        raise InputError("The recipe has no modules; give it at least one, as modules={'name': Module(...)}.")
    for name, module in modules.items():
        if not name.isidentifier() or name.startswith("_") or hasattr(Nets, name):
            raise InputError(f"Module name {name!r} cannot be used; take a Python name such as 'discriminator'.")
        if module.frozen_mode not in ("eval", "train"):
            raise InputError(f"frozen_mode of {name!r} is {module.frozen_mode!r}; allowed are 'eval' and 'train'.")
        peers = [edge.peer for edge in module.edges()]
        for peer in peers:
            if peer not in modules:
                known = [other for other in modules if other != name]
                raise InputError(
                    f"{name!r} reads {peer!r}, which is no module of the recipe; there are "
                    f"{', '.join(known) or 'no others'}.{did_you_mean(peer, known)}"
                )
            if peer == name:
                raise InputError(f"{name!r} reads itself; a loss always has its own module, remove it from `reads`.")
        if len(set(peers)) < len(peers):
            raise InputError(f"{name!r} reads a peer twice: {', '.join(peers)}. Name each once.")


def check_directions(lower_is_better: object, *, measured: bool) -> None:
    """Raise InputError where these are no names of metrics, or nothing is `measured`."""
    names = lower_is_better if isinstance(lower_is_better, tuple | list) else [None]
    if not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"lower_is_better = {lower_is_better!r} is not allowed; name metrics of `evaluate`, as lower_is_better="
            "('fid',)."
        )
    if names and not measured:
        raise InputError(f"lower_is_better names {', '.join(map(str, names))}, but no `evaluate` measures anything.")
