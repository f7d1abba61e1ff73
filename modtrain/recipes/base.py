"""Recipe, Module, Reads and Evaluation: what is trained, as one file that reads like its paper.

`modtrain.data.base` has Data, Batches and Batch, `modtrain.recipes.nets_view` Nets; the README has the whole reference.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from modtrain.data.base import Batch, Data
from modtrain.errors import InputError, did_you_mean
from modtrain.plugins import calling
from modtrain.recipes.formats import Format, check_formats
from modtrain.recipes.groups import check_placement, check_together
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.params import check_params_class
from modtrain.recipes.part import Part, check_parts
from modtrain.recipes.sampling import Sampling
from modtrain.recipes.stages import Stage
from modtrain.storage.early_stop import EarlyStop
from modtrain.storage.layout import EVALUATION

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net
    from torch.nn import Parameter
    from torch.optim import Optimizer

T = TypeVar("T")

Params = Any
"""An object of a recipe's own Params class: a frozen dataclass, plain or of pydantic."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a recipe's `evaluate` returns."""

    metrics: dict[str, float]
    """Named values in the order in which they are shown. Infinity is allowed."""
    grid: Tensor | None = None
    """Sample images as one picture: uint8 of shape (height, width, 3), on any device."""


class Memory(Protocol):
    """What a loss keeps from one step to the next, such as a pool of earlier images."""

    def state_dict(self) -> Mapping[str, Any]:
        """All of it, as tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> object:
        """Take over a state; its tensors are on the CPU."""
        ...


@dataclass(frozen=True)
class Reads:
    """An edge of the graph of modules: the loss of a module uses a peer."""

    peer: str
    """Name of the module that is read."""
    last: int | Callable[[Params], int] = 1
    """How many of its newest versions are read (`Nets.average` takes the mean over them), at least 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.peer, str):
            raise InputError(f"Reads({self.peer!r}) is not allowed; give the name of a module, as in Reads('judge').")
        _check_option("last", self.last)


@dataclass(frozen=True, kw_only=True)
class Module:
    """One separately trained part of a model, or with `weights` a fixed one, such as a pre-trained feature network.

    Where a field may be a function, it is called with the parameters.
    """

    build: Callable[[Params], Net]
    """`build(params)` returns the network, on the CPU; called for the module itself and for every frozen copy.

    Its initial weights depend only on the run's seed and the module's name: the generators of torch, NumPy and Python
    are seeded before. Weights with requires_grad=False stay fixed.
    """
    loss: Callable[[Nets, Batch, Params], Mapping[str, Any]] | None = None
    """`loss(nets, batch, params)` returns scalar tensors of shape () by name: "loss", which is minimised, and others.

    "loss" may be a tuple of terms, whose sum is minimised. The others are logged; none may be called step, epoch, lr,
    at, seconds, clipped or skipped. `batch` is on the worker's device.
    """
    optimizer: Callable[[Iterable[Parameter], Params], Optimizer] | None = None
    """`optimizer(parameters, params)`: an optimizer over the module's own trainable parameters."""
    reads: Sequence[str | Reads] = ()
    """The peers that the loss uses: names, or `Reads(name, last=n)` for an ensemble of the newest n versions."""
    schedule: Callable[[float, Params], float] | None = None
    """`schedule(progress, params)`: factor on every learning rate at `progress` in [0, 1) of the run's steps.

    While it is 0 the module rests: its loss is not computed. None stands for 1 throughout.
    """
    updates: int | Callable[[Params], int] = 1
    """Optimisation steps of the module in a step of the run, at least 1; each is on batches of its own."""
    accumulate: int | Callable[[Params], int] = 1
    """Batches over which the gradient of an optimisation step is averaged, at least 1, as if they were one batch.

    A step of the run draws as many consecutive batches as its module with the most updates times accumulate needs.
    """
    ema: float | Callable[[Params], float] | None = None
    """Decay in [0, 1) of a moving average of the weights, for evaluation and inference; 0 or None: none."""
    ema_from: int | Callable[[Params], int] = 0
    """Updates of the module after which it begins to average, at once with the whole decay; before, it is the weights.

    With 0 it averages from the first one on, at first with a lower decay.
    """
    clip_norm: float | Callable[[Params], float | None] | None = None
    """Largest 2-norm of the module's whole gradient, which is scaled down to it before a step; None: no bound."""
    clip_value: float | Callable[[Params], float | None] | None = None
    """Largest absolute value of an entry of the gradient, which is clamped to it instead; None: no bound."""
    frozen_mode: str = "eval"
    """Mode of a frozen copy on another worker, "eval" or "train"; with batch normalisation it makes a difference."""
    infer_mode: str | Callable[[Params], str] = "eval"
    """Mode of the trained network in `evaluate`, `apply` and what `load` returns, "eval" or "train"."""
    settle: Callable[[Net, Params], object] | None = None
    """`settle(net, params)` makes the buffers of a trained network fit its weights, once, when it is loaded for these.

    Such as the statistics of batch normalisation, from some forward passes. Seeded by the run, without gradients.
    """
    memory: Callable[[Params], Memory] | None = None
    """`memory(params)` makes the Memory of the loss, its `nets.memory`: saved, and restored when a run resumes."""

    weights: Callable[[Params], str | Path | None] | None = None
    """`weights(params)` makes this a fixed module, which is never trained: it has neither loss nor optimizer.

    Each worker whose losses read it builds it, frozen in its `frozen_mode`, with the weights that this refers to: a
    file (.safetensors, or a state dict in .pth), or RUN#MODULE@VERSION. None: as `build` makes it.
    """

    def __post_init__(self) -> None:
        if self.is_fixed and (self.loss is not None or self.optimizer is not None or self.reads):
            raise InputError("A module with `weights` is never trained; give it no loss, optimizer and reads.")
        for name in ("build", "loss", "optimizer"):
            is_optional = name != "build" and self.is_fixed
            _check_callable(name, getattr(self, name), "a module", optional=is_optional)
        for name in ("schedule", "settle", "memory", "weights"):
            _check_callable(name, getattr(self, name), "a module", optional=True)
        for name in ("updates", "accumulate", "ema", "ema_from", "clip_norm", "clip_value"):
            _check_option(name, getattr(self, name))
        if self.clip_norm is not None and self.clip_value is not None:
            raise InputError("A module has both clip_norm and clip_value; give one of them.")

    @property
    def is_fixed(self) -> bool:
        """Whether it is never trained."""
        return self.weights is not None

    def edges(self) -> tuple[Reads, ...]:
        """`reads` with every name as a Reads."""
        return tuple(Reads(edge) if isinstance(edge, str) else edge for edge in self.reads)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained: named modules, the data, and how the result is applied and evaluated."""

    params: type[Any]
    """A frozen dataclass, plain or of pydantic, nested for groups: what a config, `--set` and a sweep may change."""
    data: Callable[[Path | None, Params], Data]
    """`data(dataroot, params)` returns the Data to train on; `dataroot` is the folder of --dataroot or None."""
    modules: Mapping[str, Module]
    """The modules by name (a Python name), in the order in which a worker trains them on each batch."""
    together: tuple[tuple[str, ...], ...] = ()
    """Groups of modules that one worker trains in one step: all their terms are minimised, each by all of them.

    A term that reaches several of them is made by `Nets.once` and returned by each of these, so that it counts once.
    """
    stages: Callable[[Params], Sequence[Stage]] | None = None
    """`stages(params)` returns the stretches of epochs that a run passes; None trains all modules in all epochs."""
    placement: tuple[tuple[str, ...], ...] = ()
    """The modules of each worker where neither `--place` nor another number of `--nodes` is given.

    Empty: a worker for each module.
    """
    check_dataroot: Callable[[Path], object] | None = None
    """`check_dataroot(dataroot)`, called before a run is created: raises InputError for a wrong layout, quickly."""
    apply: Callable[[Nets, Tensor, Params], Tensor] | None = None
    """`apply(nets, images, params)`: images (N, 3, H, W), float32 in [-1, 1], to images (N, 3, H', W') in [-1, 1].

    All modules are in `nets`, as moving averages where there are any, in their `infer_mode` and without gradients. It
    should take any H and W.
    """
    sample: Sampling | None = None
    """How images are made from noise, for `modtrain sample`; None in a recipe that needs an input image."""
    evaluate: Callable[[Nets, Any, Params], Evaluation] | None = None
    """`evaluate(nets, test, params)` returns an Evaluation; `test` is `Data.test` on the device, `nets` as above."""
    formats: Mapping[str, Format] = field(default_factory=dict)
    """Files of other projects by the name of their format, for `modtrain export` and `modtrain import`."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """Recipes by their names whose runs are put together to a run of this one by `modtrain import RUN RUN`."""
    lower_is_better: tuple[str, ...] = ()
    """The metrics of `evaluate` of which a lower value is better; of all others a higher one is."""
    primary_metric: str | None = None
    """The metric of `evaluate` by which versions and runs are compared; None takes the first one."""
    early_stop: EarlyStop | None = None
    """When a run ends before its last epoch, by a metric of `evaluate` on `Data.valid`; None: never."""
    epochs: int = 10
    """Default number of epochs of a run."""
    exchange_every: int | None = None
    """Default number of steps between exchanges inside an epoch; None exchanges at the ends of epochs only."""
    max_staleness: int | Literal["exchange"] | None = 0
    """Default bound, in epochs, on how far a peer may be behind; 0 is lockstep by epochs, None never waits.

    "exchange" is lockstep by exchange points, those inside an epoch as well.
    """

    def __post_init__(self) -> None:
        check_graph(self.modules)
        check_together(self.together, self.trained)
        check_placement(self.placement, self.trained)
        check_params_class(self.params)
        check_formats(self.formats, self.trained)
        check_parts(self.parts, self.modules)
        for name in ("data", "stages", "check_dataroot", "apply", "evaluate"):
            _check_callable(name, getattr(self, name), "a recipe", optional=name != "data")
        for name in ("epochs", "exchange_every", "max_staleness"):
            _check_option(name, getattr(self, name))
        if self.sample is not None:
            if not isinstance(self.sample, Sampling):
                raise InputError(
                    f"sample = {self.sample!r} is not allowed; give Sampling(generate=..., noise_size=...)."
                )
            _check_option("noise_size", self.sample.noise_size)
        names: Any = self.lower_is_better
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) and name for name in names):
            raise InputError(
                f"lower_is_better = {names!r} is not allowed; name metrics of `evaluate`, as in "
                "lower_is_better=('fid',)."
            )
        if self.early_stop is not None and not isinstance(self.early_stop, EarlyStop):
            raise InputError(f"early_stop = {self.early_stop!r} is not allowed; give EarlyStop('psnr'), or None.")
        if self.early_stop is not None and self.evaluate is None:
            raise InputError(f"early_stop names {self.early_stop.metric}, but the recipe has no `evaluate`.")
        if names and self.evaluate is None:
            raise InputError(f"lower_is_better names {', '.join(names)}, but the recipe has no `evaluate`.")
        if self.primary_metric is not None and self.evaluate is None:
            raise InputError(f"primary_metric names {self.primary_metric}, but the recipe has no `evaluate`.")

    @property
    def trained(self) -> list[str]:
        """The modules that workers train: all but the fixed ones."""
        return [name for name, module in self.modules.items() if not module.is_fixed]

    @property
    def fixed(self) -> list[str]:
        """The modules that are never trained."""
        return [name for name, module in self.modules.items() if module.is_fixed]

    def reads(self, modules: Iterable[str], params: Params) -> dict[str, int]:
        """Peers outside `modules` that their losses read, each with the largest number of versions of an edge."""
        inside, peers = tuple(modules), dict[str, int]()
        for module in inside:
            for edge in self.modules[module].edges():
                if edge.peer not in inside:
                    last = resolve(edge.last, params, "last", f"{edge.peer} in the reads of {module}")
                    peers[edge.peer] = max(peers.get(edge.peer, 1), last)
        return peers

    def steps_of(self, modules: Iterable[str]) -> list[tuple[str, ...]]:
        """Those of `modules` that are trained in one step: a group that is complete, else each alone; in order."""
        inside = tuple(modules)
        groups = {name: group for group in self.together if set(group) <= set(inside) for name in group}
        steps = dict.fromkeys(groups.get(name, (name,)) for name in inside)
        return [tuple(name for name in inside if name in step) for step in steps]

    def connected(self, modules: Iterable[str]) -> set[str]:
        """These modules, and the trained ones that read them or are read by them, directly or through others."""
        trained, found = set(self.trained), set(modules)
        links = [{name, *(edge.peer for edge in self.modules[name].edges())} & trained for name in trained]
        while more := [link for link in links if link & found and not link <= found]:
            found = found.union(*more)
        return found

    def read_by_others(self, modules: Iterable[str]) -> set[str]:
        """Those of `modules` that the loss of a module outside of them reads."""
        inside = set(modules)
        outside = [module for name, module in self.modules.items() if name not in inside]
        return inside & {edge.peer for module in outside for edge in module.edges()}


def resolve(value: T | Callable[[Params], T], params: Params, name: str, module: str) -> T:
    """Value of the option `name` of a module or of `sample`, which is either a value or a function of the parameters.

    What a function returns is known only here; InputError where it is not allowed.
    """
    with calling(f"`{name}` of {module}", value):
        result: T = value(params) if callable(value) else value
    _check_option(name, result, f" of {module}")
    return result


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_bound(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and 0 < value < math.inf)


_MODES = ("eval", "train")
_BOUND = "a number above 0, None, or a function of the parameters"
_OPTIONS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": (_is_count, "a whole number, at least 1"),
    "exchange_every": (lambda value: value is None or _is_count(value), "a number of steps, at least 1, or None"),
    "max_staleness": (
        lambda value: value is None or value == "exchange" or _is_count(value, 0),
        "a number of epochs, at least 0, 'exchange', or None",
    ),
    **dict.fromkeys(
        ("updates", "accumulate", "noise_size"),
        (_is_count, "a whole number, at least 1, or a function of the parameters"),
    ),
    "last": (_is_count, "a whole number, at least 1, or a function of the parameters"),
    "ema": (
        lambda value: value is None or (isinstance(value, int | float) and 0 <= value < 1),
        "a decay in [0, 1), None, or a function of the parameters",
    ),
    "ema_from": (lambda value: _is_count(value, 0), "a number of updates, at least 0, or a function of the parameters"),
    "clip_norm": (_is_bound, _BOUND),
    "clip_value": (_is_bound, _BOUND),
    "infer_mode": (lambda value: value in _MODES, "'eval', 'train', or a function of the parameters"),
}
"""What is allowed for an option of a recipe or a module."""
_MAY_BE_FUNCTIONS = (
    *("updates", "accumulate", "last", "ema", "ema_from"),
    *("clip_norm", "clip_value", "infer_mode", "noise_size"),
)
"""Options that may be functions of the parameters."""


def _check_option(name: str, value: Any, of_module: str = "") -> None:
    is_allowed, allowed = _OPTIONS[name]
    is_function = name in _MAY_BE_FUNCTIONS and callable(value)
    if not is_function and not is_allowed(value):
        raise InputError(f"{name}{of_module} = {value!r} is not allowed; it is {allowed}.")


def _check_callable(name: str, value: Any, owner: str, *, optional: bool) -> None:
    if not (callable(value) or (optional and value is None)):
        raise InputError(f"`{name}` of {owner} is {value!r}, but must be a function.")


def check_graph(modules: Mapping[str, Module]) -> None:
    """InputError where the modules are not a graph that can be trained."""
    if not isinstance(modules, Mapping) or not all(isinstance(module, Module) for module in modules.values()):
        raise InputError(f"modules = {modules!r} is not allowed; give modules={{'name': Module(...)}}.")
    if all(module.is_fixed for module in modules.values()):
        has_no = "trains none of its" if modules else "has no"
        raise InputError(f"The recipe {has_no} modules; give it at least one, as in modules={{'name': Module(...)}}.")
    for name, module in modules.items():
        if not _is_module_name(name):
            raise InputError(f"Module name {name!r} cannot be used; use a Python name such as 'discriminator'.")
        for option in ("frozen_mode", "infer_mode"):
            mode = getattr(module, option)
            if mode not in _MODES and not (option in _MAY_BE_FUNCTIONS and callable(mode)):
                raise InputError(f"{option} of {name!r} is {mode!r}; allowed are 'eval' and 'train'.")
        reads: Any = module.reads
        if isinstance(reads, str | Reads) or not all(isinstance(edge, str | Reads) for edge in reads):
            raise InputError(f"reads of {name!r} is {reads!r}; give a tuple of peers, as in reads=('discriminator',).")
        peers = [edge.peer for edge in module.edges()]
        if name in peers:
            raise InputError(f"{name!r} reads itself; a loss can always use its own module: remove it from `reads`.")
        known = [other for other in modules if other != name]
        for peer in [peer for peer in peers if peer not in known]:
            raise InputError(
                f"{name!r} reads {peer!r}, which is not a module of the recipe; it has "
                f"{', '.join(known) or 'no others'}.{did_you_mean(peer, known)}"
            )
        if ensembles := [edge.peer for edge in module.edges() if edge.last != 1 and modules[edge.peer].is_fixed]:
            raise InputError(
                f"{name!r} reads several versions of {ensembles[0]!r}, which is never trained; use last=1."
            )
        if len(set(peers)) < len(peers):
            raise InputError(f"{name!r} reads a peer twice: {', '.join(peers)}. Name each once.")


def _is_module_name(name: Any) -> bool:
    """Whether a name can be an attribute of `nets` and the folder of a module."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        return False
    return not hasattr(Nets, name) and name != EVALUATION
