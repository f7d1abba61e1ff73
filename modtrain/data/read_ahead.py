"""Training batches from any number of piles of samples, made in threads ahead of the training loop.

A batch is a pure function of (seed, epoch, position): neither the number of threads nor the position at which an epoch
is entered changes it, so that a resumed run sees the same data as one that was never interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from modtrain.data.base import Batch

T = TypeVar("T")

Sample = Mapping[str, ArrayLike]
"""One training sample: arrays or numbers by name, without a batch dimension."""


class Pile(Protocol):
    """Samples of one kind. All have the same names, and under a name the same shape and type."""

    def __len__(self) -> int:
        """Number of samples, at least 1."""

    def draw(self, rng: np.random.Generator, count: int) -> Sequence[Any] | NDArray[Any]:
        """Random choices for `count` samples, one entry each: crop and flip, or a seed for a generator of its own."""

    def sample(self, index: int, draw: Any) -> Sample:
        """Sample number `index`, varied as its entry of `draw` says. Called in several threads at once."""


Order = tuple[Pile, NDArray[np.int64], Sequence[Any] | NDArray[Any]]
"""One epoch of a pile: which sample is shown at each row, and the random choices for it."""


@dataclass(frozen=True, kw_only=True)
class ReadAheadBatches:
    """`Batches` that hold the samples of all `piles` side by side; each pile gives its own names.

    An epoch is one pass over the largest pile; a smaller one is shuffled again each time it is used up. Samples that do
    not fill a batch are left out, but an epoch has at least one batch.
    """

    piles: tuple[Pile, ...]
    batch_size: int
    threads: int = 1
    ahead: int = 4
    """Number of batches that are made ahead of the one in use."""

    def __len__(self) -> int:
        return max(1, max(len(pile) for pile in self.piles) // self.batch_size)

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """Batches number `start` and later of an epoch. Closing the generator ends its threads."""
        orders = [self._order(pile, [seed, epoch, number]) for number, pile in enumerate(self.piles)]
        positions = range(start, len(self))
        return read_ahead(partial(self._batch, orders), positions, threads=self.threads, ahead=self.ahead)

    def _order(self, pile: Pile, key: list[int]) -> Order:
        rows = len(self) * self.batch_size
        rng = np.random.default_rng(key)
        passes = [rng.permutation(len(pile)) for _ in range(-(-rows // len(pile)))]
        return pile, np.concatenate(passes)[:rows], pile.draw(rng, rows)

    def _batch(self, orders: Sequence[Order], position: int) -> Batch:
        """Only numpy computes here: torch would start a team of threads beside those of the training loop."""
        rows = range(position * self.batch_size, (position + 1) * self.batch_size)
        batch = dict[str, Tensor]()
        for pile, indices, draws in orders:
            samples = [pile.sample(int(indices[row]), draws[row]) for row in rows]
            if twice := batch.keys() & samples[0].keys():
                raise ValueError(f"Two piles give {', '.join(sorted(twice))}; each pile needs names of its own.")
            for name in samples[0]:
                batch[name] = torch.from_numpy(np.stack([sample[name] for sample in samples]))
        return batch


def read_ahead(
    make: Callable[[int], T], positions: Iterable[int], *, threads: int, ahead: int
) -> Generator[T, None, None]:
    """`make(position)` for each position in order, up to `ahead` of them computed before they are needed.

    An exception in `make` is raised to the consumer at that position. Closing the generator waits for what is being
    made and ends the threads.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    pending = deque[Future[T]]()
    try:
        for position in positions:
            pending.append(pool.submit(make, position))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
