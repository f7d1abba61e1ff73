"""Unpaired data for recipes that translate between two domains: folders of images, or the built-in fruits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from modtrain.data.base import Data
from modtrain.data.crops import CroppedPictures, check_sizes, cropped_batches
from modtrain.data.decoding import Resize
from modtrain.data.fruits.dataset import fruits
from modtrain.data.images import Pictures, TwoDomains, in_memory, load
from modtrain.data.read_ahead import ReadAheadBatches
from modtrain.data.unpaired_folders import unpaired_folders

Loaded = tuple[Pictures, Pictures, "UnpairedTest | None", str]
"""Training pictures of both domains, test images, and the description."""


@dataclass(frozen=True, kw_only=True)
class UnpairedTest(TwoDomains):
    """Test images. With a mask `b[i]` is the true translation of `a[i]`; without one they are unrelated."""

    mask: Tensor | None = None
    """bool (M, 1, size, size): the pixels that a translation has to change. Elsewhere `a` and `b` are equal."""


def unpaired(
    dataroot: Path | None,
    *,
    load_size: int,
    crop_size: int,
    batch_size: int,
    flip: bool = True,
    grey_range: tuple[float, float] | None = None,
    resize: Resize = "bicubic",
) -> Data:
    """Training batches and an `UnpairedTest`, from the folders of `dataroot` or, without one, from the fruits.

    Training images are resized to `load_size` and cropped at random to `crop_size`; test images are resized to
    `crop_size`. Without test images `test` is None. `grey_range` are black and white of grey images with more than 8
    bits, for files that do not declare them; `resize` is the filter. Raises InputError.
    """
    check_sizes(load_size, crop_size, batch_size)
    if dataroot is None:
        a, b, test, description = _fruits(load_size, crop_size)
    else:
        a, b, test, description = _folders(dataroot, load_size, crop_size, grey_range, resize)
    batches = unpaired_batches(a=a, b=b, load_size=load_size, crop_size=crop_size, batch_size=batch_size, flip=flip)
    return Data(train=batches, test=test, description=description)


def unpaired_batches(
    *, a: Pictures, b: Pictures, load_size: int, crop_size: int, batch_size: int, flip: bool = True
) -> ReadAheadBatches:
    """Batches `{"a": ..., "b": ...}` of float32 (batch_size, 3, crop_size, crop_size) in [-1, 1], randomly cropped.

    `load_size` is the side of the pictures in pixels. With `flip` half of the crops are mirrored.
    """
    piles = (
        CroppedPictures(names=(name,), pictures=pictures, load_size=load_size, crop_size=crop_size, flip=flip)
        for name, pictures in (("a", a), ("b", b))
    )
    return cropped_batches(*piles, batch_size=batch_size)


def _fruits(load_size: int, crop_size: int) -> Loaded:
    train, test = fruits(load_size, test=0), fruits(crop_size, train=0)
    test_images = UnpairedTest(pixels_a=test.test_a, pixels_b=test.test_b, mask=test.test_mask.bool())
    count = len(train.train_a)
    counts = f"{count} apples and {count} oranges for training, {len(test.test_a)} pairs for testing"
    return train.train_a, train.train_b, test_images, f"fruits {crop_size}x{crop_size}: {counts}"


def _folders(
    dataroot: Path, load_size: int, crop_size: int, grey_range: tuple[float, float] | None, resize: Resize
) -> Loaded:
    train_a, train_b, *of_test = unpaired_folders(dataroot)
    a, b = (load(paths, load_size, grey_range=grey_range, resize=resize) for paths in (train_a, train_b))
    test = None
    test_counts = "no images for testing (no testA and testB)"
    if of_test:
        pixels_a, pixels_b = (
            in_memory(load(paths, crop_size, grey_range=grey_range, resize=resize)) for paths in of_test
        )
        test = UnpairedTest(pixels_a=pixels_a, pixels_b=pixels_b)
        test_counts = f"{len(test.pixels_a)} A and {len(test.pixels_b)} B for testing"
    return a, b, test, f"{dataroot} {crop_size}x{crop_size}: {len(a)} A and {len(b)} B for training, {test_counts}"
