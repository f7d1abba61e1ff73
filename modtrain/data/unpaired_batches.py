"""Batches from the pictures of two unpaired domains: shuffled, cropped and flipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.images import Pictures
from modtrain.data.read_ahead import ReadAheadBatches, Sample

MAX_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class CroppedPictures:
    """A pile of random crops: float32 (3, crop_size, crop_size) in [-1, 1], under one name."""

    name: str
    pictures: Pictures
    load_size: int
    crop_size: int
    flip: bool

    def __len__(self) -> int:
        return len(self.pictures)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """(count, 3): top and left of the crop in pixels, and 1 where it is mirrored."""
        top, left = rng.integers(self.load_size - self.crop_size + 1, size=(2, count))
        return np.stack([top, left, self.flip & (rng.random(count) < 0.5)], axis=1)

    def sample(self, index: int, draw: Any) -> Sample:
        """One crop."""
        top, left, is_mirrored = draw.tolist()
        pixels: NDArray[np.uint8] = self.pictures[index].numpy()
        crop = pixels[:, top : top + self.crop_size, left : left + self.crop_size].astype(np.float32)
        crop /= 127.5
        crop -= 1
        return {self.name: crop[:, :, ::-1] if is_mirrored else crop}


def unpaired_batches(
    *, a: Pictures, b: Pictures, load_size: int, crop_size: int, batch_size: int, flip: bool = True
) -> ReadAheadBatches:
    """Batches `{"a": ..., "b": ...}` of float32 (batch_size, 3, crop_size, crop_size) in [-1, 1].

    `load_size` is the side of the pictures in pixels, `crop_size` that of the random crop, at most `load_size`. With
    `flip` half of the crops are mirrored.
    """
    piles = tuple(
        CroppedPictures(name=name, pictures=pictures, load_size=load_size, crop_size=crop_size, flip=flip)
        for name, pictures in (("a", a), ("b", b))
    )
    in_memory = isinstance(a, Tensor) and isinstance(b, Tensor)
    threads = 1 if in_memory else min(MAX_THREADS, torch.get_num_threads())
    return ReadAheadBatches(piles=piles, batch_size=batch_size, threads=threads)


def as_float(pixels: Tensor) -> Tensor:
    """uint8 from 0 to 255 as float32 from -1 to 1, exact at both ends."""
    return pixels.float().div_(127.5).sub_(1.0)
