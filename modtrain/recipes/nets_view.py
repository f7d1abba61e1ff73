"""Nets: the networks of one worker as a loss sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modtrain.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net


class Nets:
    """The networks of one worker as a loss sees them: `nets.translator` is the live module, or its newest frozen copy.

    A loss may touch its own module and the peers that it declares under `reads`; anything else is an error. Between two
    batches `once` forgets what it kept.
    """

    def __init__(self, versions: Mapping[str, Sequence[Net]], lasts: Mapping[str, Mapping[str, int]]) -> None:
        """`versions`: each module's networks, newest first; `lasts`: how many of each peer a module's loss reads."""
        self._versions = versions
        self._lasts = lasts
        self._module: str | None = None
        self._kept: dict[str, tuple[Tensor, frozenset[str]]] = {}
        self._touched: list[set[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._every(name)[0]

    def average(self, name: str, loss: Callable[[Any], Tensor]) -> Tensor:
        """The mean of `loss(net)` over the versions of a peer that the edge reads (one if it is live here)."""
        versions = self._every(name)
        return sum((loss(net) for net in versions[1:]), start=loss(versions[0])) / len(versions)

    def once(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """`compute()`, shared by the losses of one batch: a tensor that several modules of a worker need.

        The module in training gets the graph where it is itself one of the networks inside `compute`; every other loss
        gets the values alone. So on one worker the fake of the generator's loss serves the discriminator's.
        """
        kept = self._kept.get(key)
        if kept is None or self._module in kept[1]:
            self._touched.append(set())
            kept = self._kept[key] = (compute(), frozenset(self._touched.pop()))
        value, inside = kept
        for name in inside:  # what is shared was read, too: the same must hold where the modules are apart
            self._every(name)
        return value if self._module in inside else value.detach()

    def enter(self, module: str | None) -> None:
        """From here on the loss of `module` is computed; None allows every network (evaluation, inference)."""
        self._module = module

    def forget(self) -> None:
        """Drop what `once` kept: the batch or a network has changed."""
        self._kept.clear()

    def _every(self, name: str) -> Sequence[Net]:
        if name not in self._versions and self._module is None:
            raise AttributeError(f"no module {name!r} here; there are {', '.join(self._versions)}")
        for touched in self._touched:
            touched.add(name)
        if self._module is None or name == self._module:
            return self._versions[name][:1]
        lasts = self._lasts[self._module]
        if name not in lasts:
            raise InputError(
                f"The loss of {self._module!r} touches {name!r}, which it does not declare: it reads "
                f"{', '.join(lasts) or 'nothing'}. Add {name!r} to the `reads` of {self._module!r} in the recipe."
            )
        return self._versions[name][: lasts[name]]
