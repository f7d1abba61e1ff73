"""Batches from two unpaired piles of pictures: shuffled, cropped, flipped, made ahead of time in threads.

Every batch is a pure function of (seed, epoch, position): how many threads there are, and where an epoch is entered,
changes nothing. Deliberately not here: where pictures come from (`images.py`, `fruits.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.base import Batch
from modtrain.data.images import Pictures

MOST_THREADS = 4


@dataclass(frozen=True)
class Draws:
    """What one domain shows in one epoch: four arrays with an entry an image."""

    index: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    flip: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class UnpairedBatches:
    """Batches `{"a": ..., "b": ...}` of float32 (N, 3, crop_size, crop_size) in [-1, 1].

    An epoch is one pass over the larger domain; the smaller one is shuffled anew whenever it is through. What does not
    fill a batch is left out, but an epoch has at least one.
    """

    a: Pictures
    b: Pictures
    load_size: int
    """The side of the pictures in pixels."""
    crop_size: int
    """The side of the random crop that is shown, at most `load_size`."""
    batch_size: int
    flip: bool = True
    """Mirror every second image, by chance."""
    ahead: int = 4
    """How many batches are made ahead of time."""

    def __len__(self) -> int:
        return max(1, max(len(self.a), len(self.b)) // self.batch_size)

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches number `start` and later of an epoch. Closing the iterator stops its threads."""
        draws = [self._draws(len(pile), [seed, epoch, domain]) for domain, pile in enumerate((self.a, self.b))]
        pool = ThreadPoolExecutor(self._threads(), thread_name_prefix="batches")
        waiting = deque[Future[Batch]]()
        try:
            for position in range(start, len(self)):
                waiting.append(pool.submit(self._batch, position, *draws))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _threads(self) -> int:
        in_memory = isinstance(self.a, Tensor) and isinstance(self.b, Tensor)
        return 1 if in_memory else min(MOST_THREADS, torch.get_num_threads())

    def _draws(self, count: int, key: list[int]) -> Draws:
        shown = len(self) * self.batch_size
        rng = np.random.default_rng(key)
        passes = [rng.permutation(count) for _ in range(-(-shown // count))]
        top, left = rng.integers(self.load_size - self.crop_size + 1, size=(2, shown))
        return Draws(np.concatenate(passes)[:shown], top, left, self.flip & (rng.random(shown) < 0.5))

    def _batch(self, position: int, a: Draws, b: Draws) -> Batch:
        rows = range(position * self.batch_size, (position + 1) * self.batch_size)
        return {"a": self._images(self.a, a, rows), "b": self._images(self.b, b, rows)}

    def _images(self, pile: Pictures, draws: Draws, rows: range) -> Tensor:
        """In numpy, which stays in its one thread: torch would start a team of threads beside the training's."""
        shown = np.empty((len(rows), 3, self.crop_size, self.crop_size), np.float32)
        for target, row in zip(shown, rows, strict=True):
            target[:] = self._image(pile, draws, row)
        return torch.from_numpy(shown / np.float32(127.5) - np.float32(1))

    def _image(self, pile: Pictures, draws: Draws, row: int) -> NDArray[np.uint8]:
        top, left = draws.top[row], draws.left[row]
        whole: NDArray[np.uint8] = pile[int(draws.index[row])].numpy()
        crop = whole[:, top : top + self.crop_size, left : left + self.crop_size]
        return crop[:, :, ::-1] if draws.flip[row] else crop


def as_float(pixels: Tensor) -> Tensor:
    """uint8 from 0 to 255 as float32 from -1 to 1, exactly at both ends."""
    return pixels.float().div_(127.5).sub_(1.0)
