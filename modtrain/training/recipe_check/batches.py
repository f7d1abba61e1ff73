"""The batches with which a recipe is checked: the first and the last one of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from modtrain.data.base import Batch, Batches
from modtrain.errors import InputError
from modtrain.plugins import calling, place_of
from modtrain.recipes.contract import check_batch, describe


def first_and_last(train: Batches, seed: int) -> list[Batch]:
    """The first and the last batch of epoch 0; InputError where an epoch has not as many as its length says."""
    count = len(train)
    first, last = _batches(train, seed, start=0, most=1), _batches(train, seed, start=count - 1, most=2)
    if len(first) != 1 or len(last) != 1:
        got = "no batch" if not (first and last) else "more than one batch"
        raise InputError(
            f"Data.train.epoch ({place_of(train.epoch)}) yielded {got} from start={count - 1 if first else 0} on, but "
            f"its __len__ is {count}; an epoch has as many batches as its __len__, and begins with batch `start`."
        )
    return [*first, *last]


def impurity(train: Batches, seed: int, first: Batch) -> Iterator[str]:
    """A sentence where the same epoch, seed and position give another batch."""
    again = _batches(train, seed, start=0, most=1)
    if not again or not are_equal(first, again[0]):
        yield (
            f"Data.train.epoch ({place_of(train.epoch)}) gives other batches for the same epoch, seed and position: a "
            "resumed run, and each worker, sees other data. Draw from a generator that is seeded with them."
        )


def are_equal(one: Batch, other: Batch) -> bool:
    """Whether two batches have the same names and values; NaN equals NaN."""
    return one.keys() == other.keys() and all(_are_same(value, other[name]) for name, value in one.items())


def _are_same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def copy_of(batch: Batch) -> dict[str, Tensor]:
    """A batch with tensors of its own."""
    return {name: torch.clone(value) for name, value in batch.items()}


def _batches(train: Any, seed: int, *, start: int, most: int) -> list[Batch]:
    with calling("Data.train.epoch", train.epoch):
        epoch = train.epoch(0, seed=seed, start=start)
    if not (hasattr(epoch, "__next__") and hasattr(epoch, "close")):
        raise InputError(
            f"Data.train.epoch ({place_of(train.epoch)}) returned {describe(epoch)}; make it a generator function, "
            "which yields batches."
        )
    with calling("Data.train.epoch", train.epoch), closing(epoch):
        batches = list(islice(epoch, most))
    for batch in batches:
        check_batch(batch, train)
    return batches
