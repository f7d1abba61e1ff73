"""Image files: find them, decode them to RGB, leave out the broken ones.

Grey, palette, RGBA, CMYK and 16-bit files become RGB with 8 bits, rotated as their EXIF orientation says. An alpha
channel is dropped, as the CycleGAN project does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from modtrain.errors import InputError
from modtrain.storage.filesystem import fault_of

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF")
"""Formats that are decoded, whatever the suffix: some of Pillow's other formats run programs."""

MAX_PIXELS = 89_478_485
"""A larger image is refused as a decompression bomb; Pillow's own limit."""

MAX_BROKEN = 0.01
NAMED = 10
"""Number of broken images that the error names."""

MEMORY_BYTES = 2**30
"""Decoded images of a folder stay in memory up to this size; above it they are decoded again for every batch."""


Paths = tuple[Path, ...]


@dataclass(frozen=True)
class Files:
    """A sequence of images that are decoded at every access, uint8 (3, size, size)."""

    paths: Paths
    size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.paths[index], self.size)


Pictures = Tensor | Files
"""Images uint8 (3, size, size): as one tensor (N, 3, size, size), or as files."""


def find(folder: Path) -> Paths:
    """Image files in a folder and its subfolders, sorted. Links are followed, hidden files are skipped."""
    paths, seen = list[Path](), set[str]()
    for parent, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        paths += [Path(parent, name) for name in files if not name.startswith(".")]
    return tuple(sorted(path for path in paths if path.suffix.lower() in SUFFIXES))


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    if fault_of(error):
        raise error


def decode(path: Path, size: int) -> Tensor:
    """Read one image as RGB, resized to size x size (bicubic): uint8 of shape (3, size, size). Raises InputError."""
    picture = read_rgb(path).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def read_rgb(path: Path) -> Image.Image:
    """Read one image in its own size, in RGB and upright. Raises InputError, which names the file."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"it has {picture.width} x {picture.height} pixels, more than the limit of {MAX_PIXELS}"
                )
            upright = ImageOps.exif_transpose(picture)
            if upright.mode[0] in "IF":  # 16 bits, or floats from 0 to 1, which Pillow would clip
                grey = np.asarray(upright) * 255 if upright.mode == "F" else np.asarray(upright) / 257
                upright = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
            if upright.mode in ("P", "PA"):
                upright = upright.convert("RGBA")
            return upright.convert("RGB")
    except Exception as error:  # decoders raise all kinds of exceptions on a broken file
        raise InputError(f"{path} cannot be read as an image: {str(error) or type(error).__name__}.") from error


def as_float(pixels: Tensor) -> Tensor:
    """uint8 from 0 to 255 as float32 from -1 to 1, exact at both ends."""
    return pixels.float().div_(127.5).sub_(1.0)


def load(paths: Paths, size: int, *, memory_bytes: int = MEMORY_BYTES) -> Pictures:
    """All images that can be decoded, in memory if they fit. Each is decoded once to find the broken ones.

    A broken image is named in a warning and left out. Raises InputError if more than 1 % are broken.
    """
    keep = len(paths) * 3 * size**2 <= memory_bytes
    good, broken = list[Path](), list[str]()
    pictures = torch.empty((len(paths) * keep, 3, size, size), dtype=torch.uint8)
    for path, result in zip(paths, _decode_all(paths, size), strict=True):
        if isinstance(result, InputError):
            log.warning("Skipped an image: %s", result)
            broken.append(str(result))
            continue
        if keep:
            pictures[len(good)] = result
        good.append(path)
    if len(broken) > MAX_BROKEN * len(paths):
        named = "\n  ".join(broken[:NAMED] + [f"and {len(broken) - NAMED} more"] * (len(broken) > NAMED))
        raise InputError(
            f"{len(broken)} of {len(paths)} images are broken, allowed is {MAX_BROKEN:.0%}; repair or remove them:"
            f"\n  {named}"
        )
    return pictures[: len(good)] if keep else Files(tuple(good), size)


def _decode_all(paths: Paths, size: int) -> Iterator[Tensor | InputError]:
    def one(path: Path) -> Tensor | InputError:
        try:
            return decode(path, size)
        except InputError as error:
            if fault_of(error):  # storage that does not answer makes no image a broken one
                raise
            return error

    step = 256  # bounds the decoded images in memory that are not kept
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for first in range(0, len(paths), step):
            yield from pool.map(one, paths[first : first + step])
