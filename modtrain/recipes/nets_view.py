"""Nets: the networks of one worker as a loss function gets them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modtrain.errors import InputError, one_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net


class Nets:
    """The networks by name: `nets.translator` is the live torch.nn.Module, or its newest frozen copy.

    A module of the same worker is live, one of another worker a frozen copy; gradients pass through both to the module
    in training. A loss may use its own module and the peers that it declares under `reads`; anything else raises
    InputError. In `apply` and `evaluate` all modules may be used.
    """

    def __init__(
        self,
        versions: Mapping[str, Sequence[Net]],
        lasts: Mapping[str, Mapping[str, int]],
        memories: Mapping[str, object] | None = None,
    ) -> None:
        """`versions`: networks of each module, newest first. `lasts`: by module, its peers and how many versions.

        `memories`: the memory of each module in training, or None where it has none.
        """
        self._versions = versions
        self._lasts = lasts
        self._memories = memories or {}
        self._module: str | None = None
        self._together: Sequence[str] = ()
        self._step_number = 0
        self._time: dict[str, Any] = {}
        self._batch = 0
        self._kept: dict[tuple[int, str], tuple[Tensor, frozenset[str], int]] = {}
        self._touched: list[set[str]] = []
        self._names: Mapping[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._versions_of(self._names.get(name, name))[0]

    def renamed(self, names: Mapping[str, str]) -> Nets:
        """The same networks for the loss of a part of the recipe, which calls some of them by other names.

        `names`: what each of these is called in the recipe. The keys of its `once` are its own.
        """
        view = copy.copy(self)
        view._names = names
        return view

    def average(self, name: str, loss: Callable[[Any], Tensor]) -> Tensor:
        """Mean of `loss(net)`, a tensor, over the versions of a peer that `reads` asks for; one if it is live."""
        versions = self._versions_of(self._names.get(name, name))
        return sum((loss(net) for net in versions[1:]), start=loss(versions[0])) / len(versions)

    def once(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Result of `compute()`, a tensor, computed once a batch for all losses of a worker that use the same `key`.

        The modules in training get it with its graph if one of them is a network used inside `compute`; every other one
        gets it detached. So the fake made for the generator's loss serves the discriminator's loss, and the losses of
        modules that are trained together get the very same tensor. InputError where `compute` has the gradient of a
        network that was taken outside of it, which would be lost.
        """
        key = "/".join([*self._names.values(), key])
        kept = self._kept.get((self._batch, key))
        if kept is None or (kept[2] != self._step_number and not kept[1].isdisjoint(self._together)):
            self._touched.append(set())
            value, inside = compute(), frozenset(self._touched.pop())
            if self._module and getattr(value, "grad_fn", None) and not self._trains_any(inside):
                raise InputError(
                    f"The loss of {self._module!r} uses a network in training outside of the function of "
                    f"nets.once({key!r}, ...), whose result would be without its gradient; take it inside, as in "
                    f"nets.once({key!r}, lambda: nets.{self._module}(x))."
                )
            kept = self._kept[self._batch, key] = value, inside, self._step_number
        value, inside, _ = kept
        for name in inside:  # a shared tensor uses these networks, so `reads` must have them: they may be apart
            self._versions_of(name)
        return value.detach() if inside.isdisjoint(self._together) else value

    def _trains_any(self, names: Iterable[str]) -> bool:
        """Whether a gradient reaches the weights of one of these networks."""
        return any(weight.requires_grad for name in names for weight in self._versions[name][0].parameters())

    @property
    def memory(self) -> Any:
        """The memory of the module whose loss is computed; InputError where it has none, and outside of a loss."""
        if self._module is None:
            raise InputError("nets.memory is used outside of a loss; only the loss of its own module may use it.")
        if self._touched:
            raise InputError(
                f"The loss of {self._module!r} uses nets.memory inside of nets.once, whose result other losses share; "
                "use it outside."
            )
        memory = self._memories.get(self._module)
        if memory is None:
            raise InputError(
                f"The loss of {self._module!r} uses nets.memory, but the module has none; give {self._module!r} a "
                "`memory` in the recipe."
            )
        return memory

    @property
    def step(self) -> int:
        """Steps of the run before this one: the same for all losses and all batches of a step."""
        return int(self._time_in_training("step"))

    @property
    def progress(self) -> float:
        """What the `schedule` of a module gets: the completed share of the run, in [0, 1)."""
        return float(self._time_in_training("progress"))

    @property
    def stage(self) -> str:
        """Name of the stage of the run."""
        return str(self._time_in_training("stage"))

    @property
    def stage_progress(self) -> float:
        """The completed share of the stage, in [0, 1)."""
        return float(self._time_in_training("stage_progress"))

    def start_step(self, *, step: int, progress: float, stage: str, stage_progress: float) -> None:
        """Set where training is, and drop the results of `once`: other batches follow."""
        self._time = {"step": step, "progress": progress, "stage": stage, "stage_progress": stage_progress}
        self.forget()

    def enter(self, module: str | None, together: Sequence[str] = (), *, batch: int = 0) -> None:
        """Select the module whose loss is computed next; None allows every network (evaluation, inference).

        `together`: the modules that are trained in the same step, in the order of their losses; none: it alone.
        `batch`: number of the batch that the loss gets, among those of the step.
        """
        self._batch, self._module, self._together = batch, module, together or ((module,) if module else ())
        if module in self._together[:1]:
            self._step_number += 1  # the graph of what was computed before is used up
        self._touched.clear()  # what an exception may have left

    def forget(self) -> None:
        """Drop the results of `once`: the batches have changed."""
        self._kept.clear()

    def _time_in_training(self, name: str) -> Any:
        if not self._time:
            raise InputError(
                f"nets.{name} is used outside of a loss, where no training is going on: `apply` and `evaluate` have no "
                f"{name}. Give what depends on it a fixed value there."
            )
        return self._time[name]

    def _versions_of(self, name: str) -> Sequence[Net]:
        if name not in self._versions and self._module is None:
            raise AttributeError(f"There is no module {name!r}; use {one_of(self._versions)}.")
        for touched in self._touched:
            touched.add(name)
        if self._module is None or name == self._module:
            return self._versions[name][:1]
        lasts = self._lasts[self._module]
        if name not in lasts:
            raise InputError(
                f"The loss of {self._module!r} uses {name!r}, which it does not declare: it reads "
                f"{', '.join(lasts) or 'nothing'}. Add {name!r} to the `reads` of {self._module!r} in the recipe."
            )
        return self._versions[name][: lasts[name]]
