"""Data, Batches and Batch: what a recipe is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


Batch = Mapping[str, "Tensor"]
"""One batch of training data: tensors by name, batch dimension first."""


class Batches(Protocol):
    """Training data, as a pure function of (seed, epoch, position): an epoch can be entered at any position."""

    def __len__(self) -> int:
        """Batches in an epoch, at least 1."""

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """Batches number `start` and later of an epoch, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Training, test and validation data of a recipe."""

    train: Batches
    test: Any = None
    """Passed to the recipe's `evaluate` as it is; None where there is nothing to evaluate on."""
    valid: Any = None
    """Validation data in the form of `test`, or a function without arguments that returns them.

    For early stopping, which calls the function when it needs them; None: it uses `test`.
    """
    train_of: Callable[[Collection[str]], Batches] | None = None
    """`train_of(modules)` returns `train` with only what the losses of these modules use, for the worker that has them.

    Its epochs have as many batches; None: a worker gets all of each batch.
    """
    description: str = ""
    """One line for the log: name, sizes, counts."""
    at: Callable[[Any], Data] | None = None
    """`at(params)` returns the data of another stage's Params, of what was read already; None: `data` reads it anew."""

    @property
    def held_out(self) -> Any:
        """What early stopping measures on: `valid`, loaded where it is a function, else `test`."""
        valid = self.valid() if callable(self.valid) else self.valid
        return self.test if valid is None else valid
