"""Training batches of random crops: of single pictures, or of pairs that are cropped and mirrored alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.images import Pictures
from modtrain.data.read_ahead import ReadAheadBatches, Sample
from modtrain.errors import InputError

MAX_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class CroppedPictures:
    """A pile of random crops: float32 (3, size, size) in [-1, 1], under a name for each three channels."""

    names: tuple[str, ...]
    pictures: Pictures
    labels: NDArray[np.int64] | None = None
    """One for each picture, in the sample as `label`."""
    load_size: int
    crop_size: int
    flip: bool
    shrink: int = 1
    """Pixels whose mean, in both directions, is a pixel of the sample: its edge is crop_size / shrink."""

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
        if (factor := self.shrink) > 1:
            size = self.crop_size // factor
            crop = crop.reshape(len(crop), size, factor, size, factor).mean((2, 4))
        crop /= 127.5
        crop -= 1
        shown = crop[:, :, ::-1] if is_mirrored else crop
        label = {} if self.labels is None else {"label": self.labels[index]}
        return {name: shown[3 * number : 3 * number + 3] for number, name in enumerate(self.names)} | label


def cropped_batches(*piles: CroppedPictures, batch_size: int) -> ReadAheadBatches:
    """Batches of crops from each pile, in several threads where files are decoded."""
    held = all(isinstance(pile.pictures, Tensor) for pile in piles)
    threads = 1 if held else min(MAX_THREADS, torch.get_num_threads())
    return ReadAheadBatches(piles=piles, batch_size=batch_size, threads=threads)


def check_sizes(load_size: int, crop_size: int, batch_size: int) -> None:
    """Raises InputError where crops of such a size cannot be cut, or a batch holds nothing."""
    if not 1 <= crop_size <= load_size:
        raise InputError(f"crop_size must be from 1 to load_size: got crop_size={crop_size}, load_size={load_size}.")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1: got {batch_size}.")
