"""Image files: find them, decode them all (`decoding.py`), leave out the broken ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modtrain.data.decoding import Notify, decode
from modtrain.errors import InputError, counted
from modtrain.storage.filesystem import fault_of
from modtrain.storage.folder_listing import data_files

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
MAX_BROKEN, FEW_BROKEN = 0.01, 3
"""Share of the images of a folder that may be broken, and their number where that share is less: in a small folder."""
NAMED = 10
"""Number of broken images that the error names, and of kinds that are passed over."""

MEMORY_BYTES = 2**30
"""Decoded images of a folder stay in memory up to this size; above it they are decoded again for every batch."""


Paths = tuple[Path, ...]


@dataclass(frozen=True)
class Files:
    """A sequence of images that are decoded at every access, uint8 (3, size, size)."""

    paths: Paths
    size: int
    grey_range: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode(self.paths[index], self.size, self.grey_range)


Pictures = Tensor | Files
"""Images uint8 (3, size, size): as one tensor (N, 3, size, size), or as files."""


def find(folder: Path) -> Paths:
    """Image files in a folder and its subfolders, sorted; links are followed. What is passed over is counted.

    A link that leads nowhere is an image by its suffix, which cannot be read.
    """
    files = sorted(data_files(folder))
    others = Counter(_kind(file) for file in files if file.suffix.lower() not in SUFFIXES)
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(NAMED))
        log.warning(
            "%s: passed over %s of kinds that are not read: %s.", folder, counted(others.total(), "file"), kinds
        )
    return tuple(file for file in files if file.suffix.lower() in SUFFIXES)


def _kind(file: Path) -> str:
    return (file.suffix.lower() or "no suffix") if file.exists() else "broken link"


def as_float(pixels: Tensor) -> Tensor:
    """uint8 from 0 to 255 as float32 from -1 to 1, exact at both ends."""
    return pixels.float().div_(127.5).sub_(1.0)


def load(
    paths: Paths, size: int, *, grey_range: tuple[float, float] | None = None, memory_bytes: int = MEMORY_BYTES
) -> Pictures:
    """All images that can be decoded, in memory if they fit. Each is decoded once to find the broken ones.

    A broken image is named in a warning and left out. Raises InputError if none is left, or if more than three and more
    than 1 % are broken. `grey_range` as of `read_rgb`.
    """
    keep = len(paths) * 3 * size**2 <= memory_bytes
    good, broken, remarks = list[Path](), list[str](), list[str]()
    pictures = torch.empty((len(paths) * keep, 3, size, size), dtype=torch.uint8)
    for path, result in zip(paths, _decode_all(paths, size, grey_range, remarks.append), strict=True):
        if isinstance(result, InputError):
            log.warning("Skipped an image: %s", result)
            broken.append(str(result))
            continue
        if keep:
            pictures[len(good)] = result
        good.append(path)
    if remarks:
        others = f" The same holds for {counted(len(remarks) - 1, 'other file')}." if len(remarks) > 1 else ""
        log.warning("%s%s", min(remarks), others)
    allowed = min(max(FEW_BROKEN, int(MAX_BROKEN * len(paths))), len(paths) - 1)
    if len(broken) > allowed:
        named = "\n  ".join(broken[:NAMED] + [f"and {len(broken) - NAMED} more"] * (len(broken) > NAMED))
        raise InputError(
            f"{len(broken)} of {len(paths)} images cannot be read, more than the {allowed} that are left out; "
            f"repair or remove them:\n  {named}"
        )
    return pictures[: len(good)] if keep else Files(tuple(good), size, grey_range)


def _decode_all(
    paths: Paths, size: int, grey_range: tuple[float, float] | None, notify: Notify
) -> Iterator[Tensor | InputError]:
    def one(path: Path) -> Tensor | InputError:
        try:
            return decode(path, size, grey_range, notify)
        except InputError as error:
            if fault_of(error):  # storage that does not answer makes no image a broken one
                raise
            return error

    step = 256  # bounds the decoded images in memory that are not kept
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for first in range(0, len(paths), step):
            yield from pool.map(one, paths[first : first + step])
