"""Data for super-resolution: random crops of large images with their small versions, and whole images to evaluate on.

The small version is Pillow's bicubic one, with antialiasing and 8 bits, which is that of MATLAB but at the border.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from modtrain.data.base import Data
from modtrain.data.crops import MAX_THREADS
from modtrain.data.decoding import Notify, read_rgb
from modtrain.data.fruits.backgrounds import colour_photographs
from modtrain.data.fruits.orchard import orchard
from modtrain.data.hr_folders import hr_folders
from modtrain.data.images import MEMORY_BYTES, Paths, decoded
from modtrain.data.read_ahead import ReadAheadBatches, Sample
from modtrain.errors import InputError, counted

BuiltIn = Literal["orchard", "photographs"]
Pixels = NDArray[np.uint8]
"""An image (H, W, 3)."""
ORCHARD_SIZE, ORCHARD_TESTED = 64, 32
"""Edge of the pictures of `orchard`, and how many of each class there are to evaluate on."""


@dataclass(frozen=True)
class LargeFiles:
    """A sequence of images, which are decoded at every access."""

    files: Sequence[Path]
    grey_range: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pixels:
        return np.asarray(read_rgb(self.files[index], self.grey_range, lambda remark: None))


class Large(Protocol):
    """Large images, held in memory or decoded at every access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pixels: ...


@dataclass(frozen=True, kw_only=True)
class SuperResolutionTest:
    """Whole images, each cropped at its right and lower edge to a multiple of the scale, and never resized."""

    pixels: tuple[Tensor, ...]
    """uint8 (1, 3, H, W) for each image."""
    small: tuple[Tensor, ...]
    """uint8 (1, 3, H / scale, W / scale): what is to be enlarged."""


@dataclass(frozen=True, kw_only=True)
class LargeCrops:
    """A pile of random crops `hr`, float32 (3, crop_size, crop_size) in [-1, 1], with their small versions `lr`."""

    images: Large
    count: int
    """Crops in an epoch; the images take turns."""
    crop_size: int
    scale: int
    flip: bool

    def __len__(self) -> int:
        return self.count

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """(count, 3): top and left as shares of what is possible, and whether the crop is mirrored."""
        return rng.random((count, 3))

    def sample(self, index: int, draw: Any) -> Sample:
        pixels, size = self.images[index % len(self.images)], self.crop_size
        top, left = (int(share * (edge - size + 1)) for share, edge in zip(draw[:2], pixels.shape, strict=False))
        crop = pixels[top : top + size, left : left + size]
        if self.flip and draw[2] < 0.5:
            crop = crop[:, ::-1]
        return {"lr": _as_float(downsampled(crop, self.scale)), "hr": _as_float(crop)}


def super_resolution(
    dataroot: Path | None,
    *,
    scale: int,
    crop_size: int,
    crops: int,
    batch_size: int,
    flip: bool = True,
    built_in: BuiltIn = "orchard",
    grey_range: tuple[float, float] | None = None,
) -> Data:
    """Training batches and a `SuperResolutionTest`, of the folders `hr_folders` finds or, without `dataroot`, built in.

    Batches are `{"lr": ..., "hr": ...}`, float32 (batch_size, 3, edge, edge) in [-1, 1], where the edge of `hr` is
    `crop_size`, a multiple of `scale`; an epoch has `crops` of them. The built-in images are the pictures of `orchard`
    in 64 pixels, or the colour photographs of scikit-image: their left parts for training, the right ones for testing.
    Without test images `test` is None. `grey_range` as of `read_rgb`. Raises InputError.
    """
    train, test, valid = (
        _built_in(built_in, scale) if dataroot is None else _folders(dataroot, scale, crop_size, grey_range)
    )
    threads = min(MAX_THREADS, torch.get_num_threads()) if isinstance(train, LargeFiles) else 1
    pile = LargeCrops(images=train, count=crops, crop_size=crop_size, scale=scale, flip=flip)
    tested = f"{len(test.pixels)} for testing" if test else "none for testing (no test and val)"
    counts = f"{counted(len(train), 'image')} for training, {tested}"
    return Data(
        train=ReadAheadBatches(piles=(pile,), batch_size=batch_size, threads=threads),
        test=test,
        valid=valid,
        description=f"{built_in if dataroot is None else dataroot} x{scale}, crops of {crop_size}: {counts}",
    )


def downsampled(pixels: Pixels, scale: int) -> Pixels:
    """An image whose edges are multiples of `scale`, smaller by that factor: bicubic, with antialiasing."""
    height, width = pixels.shape[:2]
    size = (width // scale, height // scale)
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC))


Loaded = tuple[Large, "SuperResolutionTest | None", Any]
"""Training images, test images, and how to load those for validation."""


def _built_in(name: BuiltIn, scale: int) -> Loaded:
    if name == "photographs":
        train, test = ([np.asarray(image) for image in colour_photographs(testing=part)] for part in (False, True))
    else:
        pictures = orchard(ORCHARD_SIZE, "train"), orchard(ORCHARD_SIZE, "test", each=ORCHARD_TESTED)
        train, test = (list(each.images.permute(0, 2, 3, 1).numpy()) for each in pictures)
    return train, _test([(image, None) for image in test], scale), None


def _folders(dataroot: Path, scale: int, crop_size: int, grey_range: tuple[float, float] | None) -> Loaded:
    splits = hr_folders(dataroot, scale)

    def test(name: str) -> SuperResolutionTest:
        sources = list(zip(splits[name].images, splits[name].small or (None,) * len(splits[name].images), strict=True))
        return _test([pair for _, pair in decoded(sources, _read_pair, scale, grey_range=grey_range)], scale)

    held_out = next((name for name in ("test", "val") if name in splits), None)
    valid = functools.partial(test, "val") if {"test", "val"} <= splits.keys() else None
    train = _load_large(splits["train"].images, crop_size, grey_range)
    return train, test(held_out) if held_out else None, valid


def _load_large(
    paths: Paths, crop_size: int, grey_range: tuple[float, float] | None, memory_bytes: int = MEMORY_BYTES
) -> Large:
    """All images that can be decoded and hold a crop, in memory if they fit."""
    good, images, size = list[Path](), list[Pixels](), 0
    for number, pixels in decoded(paths, _read_source, crop_size, grey_range=grey_range):
        good.append(paths[number])
        size += pixels.nbytes
        images.append(pixels)
        if size > memory_bytes:
            images.clear()
    return images if size <= memory_bytes else LargeFiles(good, grey_range)


def _read_source(path: Path, crop_size: int, grey_range: tuple[float, float] | None, notify: Notify) -> Pixels:
    """An image in its own size. Raises InputError where it holds no crop of that edge."""
    pixels = _read(path, grey_range, notify)
    height, width = pixels.shape[:2]
    if min(height, width) < crop_size:
        raise InputError(
            f"{path} has {width} x {height} pixels, and holds no crop of {crop_size} x {crop_size}: take larger "
            "images, or a smaller crop_size."
        )
    return pixels


def _read(path: Path, grey_range: tuple[float, float] | None, notify: Notify) -> Pixels:
    pixels: Pixels = np.asarray(read_rgb(path, grey_range, notify))
    return pixels


def _read_pair(
    paths: tuple[Path, Path | None], scale: int, grey_range: tuple[float, float] | None, notify: Notify
) -> tuple[Pixels, Pixels | None]:
    """An image and the small one of it, where there is one. Raises InputError where these are not of the same scene."""
    large = _read(paths[0], grey_range, notify)
    (height, width), expected = large.shape[:2], tuple(edge // scale for edge in large.shape[:2])
    if not min(expected):
        raise InputError(f"{paths[0]} has {width} x {height} pixels, too few to be made small by the scale {scale}.")
    if paths[1] is None:
        return large, None
    small = _read(paths[1], grey_range, notify)
    if small.shape[:2] != expected:
        raise InputError(
            f"{paths[1]} has {small.shape[1]} x {small.shape[0]} pixels, but must have {expected[1]} x {expected[0]}: "
            f"{paths[0]} has {width} x {height}, and the scale is {scale}."
        )
    return large, small


def _test(pairs: Sequence[tuple[Pixels, Pixels | None]], scale: int) -> SuperResolutionTest:
    large = [pixels[: len(pixels) // scale * scale, : pixels.shape[1] // scale * scale] for pixels, _ in pairs]
    small = [downsampled(whole, scale) if own is None else own for whole, (_, own) in zip(large, pairs, strict=True)]
    pixels, given = (
        tuple(torch.from_numpy(each.transpose(2, 0, 1)[None].copy()) for each in part) for part in (large, small)
    )
    return SuperResolutionTest(pixels=pixels, small=given)


def _as_float(pixels: Pixels) -> NDArray[np.float32]:
    """(H, W, 3) to (3, H, W) in [-1, 1]."""
    values: NDArray[np.float32] = pixels.transpose(2, 0, 1).astype(np.float32)
    values /= 127.5
    values -= 1
    return values
