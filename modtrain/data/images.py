"""Image files: find them, decode them all (`decoding.py`), leave out the broken ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from modtrain.data.decoding import Notify, Resize, decode
from modtrain.errors import InputError, counted
from modtrain.storage.filesystem import fault_of
from modtrain.storage.folder_listing import data_files

log = logging.getLogger(__name__)

T = TypeVar("T")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
KINDS = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
"""The same in a sentence."""
MAX_BROKEN, FEW_BROKEN = 0.01, 3
"""Share of the images of a folder that may be broken, and their number where that share is less: in a small folder."""
NAMED = 10
"""Number of broken images that the error names, and of kinds that are passed over."""

MEMORY_BYTES = 2**30
"""Decoded images of a folder stay in memory up to this size; above it they are decoded again for every batch."""


Paths = tuple[Path, ...]
Decode = Callable[[Any, int, tuple[float, float] | None, Notify], Tensor]
"""Makes an image of one source, as `decode` does of a path."""


@dataclass(frozen=True)
class Files:
    """A sequence of images that are decoded at every access, uint8 (channels, size, size)."""

    sources: Sequence[Any]
    """What `read` takes: paths of images, or of pairs."""
    size: int
    grey_range: tuple[float, float] | None = None
    read: Decode = decode

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(self.sources[index], self.size, self.grey_range, lambda remark: None)


Pictures = Tensor | Files
"""Images uint8 (channels, size, size): as one tensor (N, channels, size, size), or as files. Pairs have 6 channels."""


@dataclass(frozen=True, kw_only=True)
class TwoDomains:
    """Test images of the domains A and B."""

    pixels_a: Tensor
    """uint8 (M, 3, size, size)."""
    pixels_b: Tensor
    """uint8 (K, 3, size, size)."""

    @property
    def a(self) -> Tensor:
        """Images of domain A, float32 in [-1, 1]."""
        return as_float(self.pixels_a)

    @property
    def b(self) -> Tensor:
        """Images of domain B, float32 in [-1, 1]."""
        return as_float(self.pixels_b)


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
    paths: Paths,
    size: int,
    *,
    grey_range: tuple[float, float] | None = None,
    resize: Resize = "bicubic",
    memory_bytes: int = MEMORY_BYTES,
) -> Pictures:
    """All images that can be decoded, in memory if they fit, by the rule of `load_sources`."""
    return load_sources(paths, partial(decode, resize=resize), size, grey_range=grey_range, memory_bytes=memory_bytes)[
        0
    ]


def load_sources(
    sources: Sequence[Any],
    read: Decode,
    size: int,
    *,
    channels: int = 3,
    grey_range: tuple[float, float] | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[Pictures, list[int]]:
    """What `read` makes of all sources that can be decoded, in memory if it fits, and the numbers of these sources.

    Each is decoded once to find the broken ones: such a one is named in a warning and left out. Raises InputError if
    none is left, or if more than three and more than 1 % are broken. `grey_range` as of `read_rgb`.
    """
    keep = len(sources) * channels * size**2 <= memory_bytes
    good = list[int]()
    pictures = torch.empty((len(sources) * keep, channels, size, size), dtype=torch.uint8)
    for number, picture in decoded(sources, read, size, grey_range=grey_range):
        if keep:
            pictures[len(good)] = picture
        good.append(number)
    if keep:
        return pictures[: len(good)], good
    return Files([sources[number] for number in good], size, grey_range, read), good


def decoded(
    sources: Sequence[Any],
    read: Callable[[Any, int, tuple[float, float] | None, Notify], T],
    size: int,
    *,
    grey_range: tuple[float, float] | None = None,
) -> Iterator[tuple[int, T]]:
    """The number of each source that can be decoded, and what `read` makes of it, one after the other.

    The others are left out by the rule of `load_sources`, which raises InputError at the end.
    """
    broken, remarks = list[str](), list[str]()
    for number, result in enumerate(_read_all(sources, read, size, grey_range, remarks.append)):
        if isinstance(result, InputError):
            log.warning("Skipped an image: %s", result)
            broken.append(str(result))
        else:
            yield number, result
    if remarks:
        others = f" The same holds for {counted(len(remarks) - 1, 'other file')}." if len(remarks) > 1 else ""
        log.warning("%s%s", min(remarks), others)
    _refuse_many(broken, len(sources))


def in_memory(pictures: Pictures) -> Tensor:
    """The pictures as one tensor."""
    return (
        pictures if isinstance(pictures, Tensor) else torch.stack([pictures[index] for index in range(len(pictures))])
    )


def _refuse_many(broken: list[str], count: int) -> None:
    allowed = min(max(FEW_BROKEN, int(MAX_BROKEN * count)), count - 1)
    if len(broken) > allowed:
        named = "\n  ".join(broken[:NAMED] + [f"and {len(broken) - NAMED} more"] * (len(broken) > NAMED))
        raise InputError(
            f"{len(broken)} of {count} images cannot be read, more than the {allowed} that are left out; "
            f"repair or remove them:\n  {named}"
        )


def _read_all(
    sources: Sequence[Any],
    read: Callable[[Any, int, tuple[float, float] | None, Notify], T],
    size: int,
    grey_range: tuple[float, float] | None,
    notify: Notify,
) -> Iterator[T | InputError]:
    def one(source: Any) -> T | InputError:
        try:
            return read(source, size, grey_range, notify)
        except InputError as error:
            if fault_of(error):  # storage that does not answer makes no image a broken one
                raise
            return error

    step = 256  # bounds the decoded images in memory that are not kept
    with ThreadPoolExecutor(min(8, torch.get_num_threads())) as pool:
        for first in range(0, len(sources), step):
            yield from pool.map(one, sources[first : first + step])
