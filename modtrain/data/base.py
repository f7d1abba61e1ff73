"""Data, Batches and Batch: what a recipe trains and is evaluated on."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


Batch = Mapping[str, "Tensor"]
"""One batch of training data: tensors by name, batch dimension first."""


class Batches(Protocol):
    """Training data that can be entered anywhere: the batches are a pure function of (seed, epoch, position)."""

    def __len__(self) -> int:
        """Batches in an epoch, at least 1."""

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches number `start` and later of an epoch, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a recipe trains and is judged on."""

    train: Batches
    test: Any = None
    """Whatever the recipe's `evaluate` understands."""
    description: str = ""
    """One line for a person: name, sizes, counts."""
