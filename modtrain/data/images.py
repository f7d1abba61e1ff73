"""Image files: find them, decode them to RGB, and sort out the broken ones.

Grey, palette, RGBA, CMYK and 16-bit files become RGB with 8 bits, turned as their EXIF orientation says; an alpha
channel is dropped, as the CycleGAN project does. Deliberately not here: which folders a data set has (`folders.py`) and
augmentation (`loader.py`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from modtrain.errors import InputError

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF")
"""What a file may really be, whatever its name: Pillow's other formats run programs or are not images."""

MOST_PIXELS = 89_478_485
"""A larger image is taken for a decompression bomb; it is Pillow's own limit."""

MOST_BROKEN = 0.01
NAMED = 10

MEMORY_BYTES = 2**30
"""A folder's decoded images stay in memory when they take at most this much, else they are decoded for every batch."""


class Pictures(Protocol):
    """Images of one size: uint8 of shape (3, size, size) each. A tensor (N, 3, size, size) is one."""

    def __len__(self) -> int:
        """Their number."""

    def __getitem__(self, index: int, /) -> Tensor:
        """One of them."""


@dataclass(frozen=True)
class Files:
    """Pictures that are decoded whenever they are asked for."""

    paths: tuple[Path, ...]
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> Tensor:
        return decode(self.paths[index], self.size)


def find(folder: Path) -> tuple[Path, ...]:
    """The image files in a folder and the folders below it, sorted; links are followed, hidden files are not images."""
    return tuple(sorted(path for path in _walk(folder) if path.suffix.lower() in SUFFIXES and path.name[0] != "."))


def decode(path: Path, size: int) -> Tensor:
    """One image as RGB, resized to size x size (bicubic): uint8 of shape (3, size, size). Raises InputError."""
    picture = read_rgb(path).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def read_rgb(path: Path) -> Image.Image:
    """One image in its own size, in RGB and upright. Raises InputError, which names the file."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"it has {picture.width} x {picture.height} pixels, allowed are {MOST_PIXELS}")
            return _rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # decoders raise whatever they like on a broken file
        raise InputError(f"{path} cannot be read as an image: {str(error) or type(error).__name__}.") from error


def load(paths: tuple[Path, ...], size: int, *, memory_bytes: int = MEMORY_BYTES) -> Pictures:
    """All images that can be decoded, in memory where they fit. All are decoded once to find the broken ones.

    A broken image is named in a warning and left out. Raises InputError where more than 1 % are broken.
    """
    keep = len(paths) * 3 * size**2 <= memory_bytes
    good, broken = list[Path](), list[str]()
    pictures = torch.empty((len(paths) * keep, 3, size, size), dtype=torch.uint8)
    for path, result in zip(paths, _decode_all(paths, size), strict=True):
        if isinstance(result, InputError):
            log.warning("Left out: %s", result)
            broken.append(str(result))
            continue
        if keep:
            pictures[len(good)] = result
        good.append(path)
    if len(broken) > MOST_BROKEN * len(paths):
        raise InputError(_too_many_broken(broken, len(paths)))
    return pictures[: len(good)] if keep else Files(tuple(good), size)


def _decode_all(paths: tuple[Path, ...], size: int) -> Iterator[Tensor | InputError]:
    def one(path: Path) -> Tensor | InputError:
        try:
            return decode(path, size)
        except InputError as error:
            return error

    step = 256  # results that nobody keeps must not pile up
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for first in range(0, len(paths), step):
            yield from pool.map(one, paths[first : first + step])


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits; Pillow would clip them
        return Image.fromarray((np.asarray(picture) / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        return Image.fromarray((np.asarray(picture) * 255).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("P", "PA"):
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")


def _walk(folder: Path) -> Iterator[Path]:
    seen = set[str]()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent, name) for name in files)


def _too_many_broken(broken: list[str], count: int) -> str:
    named = "\n  ".join(broken[:NAMED] + [f"and {len(broken) - NAMED} more"] * (len(broken) > NAMED))
    return f"{len(broken)} of {count} images are broken, allowed is {MOST_BROKEN:.0%}; mend or remove them:\n  {named}"
