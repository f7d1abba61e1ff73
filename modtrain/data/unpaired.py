"""Unpaired data for recipes that translate between two domains: folders of images, or the built-in fruits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.base import Data
from modtrain.data.fruits.dataset import fruits
from modtrain.data.images import Paths, Pictures, as_float, load
from modtrain.data.read_ahead import ReadAheadBatches, Sample
from modtrain.data.unpaired_folders import unpaired_folders
from modtrain.errors import InputError

MAX_THREADS = 4

Loaded = tuple[Pictures, Pictures, "UnpairedTest | None", str]
"""Training pictures of both domains, test images, and the description."""


@dataclass(frozen=True, kw_only=True)
class UnpairedTest:
    """Test images. With a mask `b[i]` is the true translation of `a[i]`; without one they are unrelated."""

    pixels_a: Tensor
    """uint8 (M, 3, size, size)."""
    pixels_b: Tensor
    """uint8 (K, 3, size, size); K is M where there is a mask."""
    mask: Tensor | None = None
    """bool (M, 1, size, size): the pixels that a translation has to change. Elsewhere `a` and `b` are equal."""

    @property
    def a(self) -> Tensor:
        """Images of domain A, float32 in [-1, 1]."""
        return as_float(self.pixels_a)

    @property
    def b(self) -> Tensor:
        """Images of domain B, float32 in [-1, 1]."""
        return as_float(self.pixels_b)


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
        top, left, is_mirrored = draw.tolist()
        pixels: NDArray[np.uint8] = self.pictures[index].numpy()
        crop = pixels[:, top : top + self.crop_size, left : left + self.crop_size].astype(np.float32)
        crop /= 127.5
        crop -= 1
        return {self.name: crop[:, :, ::-1] if is_mirrored else crop}


def unpaired(
    dataroot: Path | None,
    *,
    load_size: int,
    crop_size: int,
    batch_size: int,
    flip: bool = True,
    grey_range: tuple[float, float] | None = None,
) -> Data:
    """Training batches and an `UnpairedTest`, from the folders of `dataroot` or, without one, from the fruits.

    Training images are resized to `load_size` and cropped at random to `crop_size`; test images are resized to
    `crop_size`. Without test images `test` is None. `grey_range` are black and white of grey images with more than 8
    bits, for files that do not declare them. Raises InputError.
    """
    if not 1 <= crop_size <= load_size:
        raise InputError(f"crop_size must be from 1 to load_size: got crop_size={crop_size}, load_size={load_size}.")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1: got {batch_size}.")
    if dataroot is None:
        a, b, test, description = _fruits(load_size, crop_size)
    else:
        a, b, test, description = _folders(dataroot, load_size, crop_size, grey_range)
    batches = unpaired_batches(a=a, b=b, load_size=load_size, crop_size=crop_size, batch_size=batch_size, flip=flip)
    return Data(train=batches, test=test, description=description)


def unpaired_batches(
    *, a: Pictures, b: Pictures, load_size: int, crop_size: int, batch_size: int, flip: bool = True
) -> ReadAheadBatches:
    """Batches `{"a": ..., "b": ...}` of float32 (batch_size, 3, crop_size, crop_size) in [-1, 1], randomly cropped.

    `load_size` is the side of the pictures in pixels. With `flip` half of the crops are mirrored.
    """
    piles = tuple(
        CroppedPictures(name=name, pictures=pictures, load_size=load_size, crop_size=crop_size, flip=flip)
        for name, pictures in (("a", a), ("b", b))
    )
    in_memory = isinstance(a, Tensor) and isinstance(b, Tensor)
    threads = 1 if in_memory else min(MAX_THREADS, torch.get_num_threads())
    return ReadAheadBatches(piles=piles, batch_size=batch_size, threads=threads)


def _fruits(load_size: int, crop_size: int) -> Loaded:
    train, test = fruits(load_size, test=0), fruits(crop_size, train=0)
    test_images = UnpairedTest(pixels_a=test.test_a, pixels_b=test.test_b, mask=test.test_mask.bool())
    count = len(train.train_a)
    counts = f"{count} apples and {count} oranges for training, {len(test.test_a)} pairs for testing"
    return train.train_a, train.train_b, test_images, f"fruits {crop_size}x{crop_size}: {counts}"


def _folders(dataroot: Path, load_size: int, crop_size: int, grey_range: tuple[float, float] | None) -> Loaded:
    train_a, train_b, *of_test = unpaired_folders(dataroot)
    a, b = (load(paths, load_size, grey_range=grey_range) for paths in (train_a, train_b))
    test = None
    test_counts = "no images for testing (no testA and testB)"
    if of_test:
        pixels_a, pixels_b = (_stack(paths, crop_size, grey_range) for paths in of_test)
        test = UnpairedTest(pixels_a=pixels_a, pixels_b=pixels_b)
        test_counts = f"{len(test.pixels_a)} A and {len(test.pixels_b)} B for testing"
    return a, b, test, f"{dataroot} {crop_size}x{crop_size}: {len(a)} A and {len(b)} B for training, {test_counts}"


def _stack(paths: Paths, size: int, grey_range: tuple[float, float] | None) -> Tensor:
    pictures = load(paths, size, grey_range=grey_range)
    return torch.stack([pictures[index] for index in range(len(pictures))])
