"""Folders of images that are compared: all of one square size, in subfolders or not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from modtrain.data.decoding import FORMATS, Notify, decode_square
from modtrain.data.images import SUFFIXES, Files, Paths, Pictures, find, load_sources
from modtrain.errors import InputError

SMALLEST = 16
"""Pixels: SWD and MS-SSIM need as many."""
SIZES_NAMED = 3


def image_files(folder: Path) -> Paths:
    """The images of a folder. Raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; give a folder of images."
        )
    if files := find(folder):
        return files
    raise InputError(f"{folder} holds no image ({' '.join(sorted(suffix[1:] for suffix in SUFFIXES))}).")


def common_size(sets: Iterable[Paths]) -> int:
    """Edge in pixels of square images that are all as large. Raises InputError where they are not."""
    sizes = {size for files in sets for file in files if (size := _size(file))}
    width, height = next(iter(sizes), (0, 0))
    if len(sizes) == 1 and width == height >= SMALLEST:
        return width
    named = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:SIZES_NAMED])
    more = f" and {len(sizes) - SIZES_NAMED} others" * (len(sizes) > SIZES_NAMED)
    edge = max(SMALLEST, min(map(min, sizes), default=64))
    raise InputError(
        f"The images are not squares of one size of at least {SMALLEST} pixels: {named or 'none can be read'}{more}. "
        f"Give --size, as in --size {edge}: of each image the square in its middle is then resized to that edge."
    )


def load_images(files: Paths, size: int, progress: Callable[[int, int], object]) -> Pictures:
    """The square in the middle of each image, resized (bicubic) if it has another size. Raises InputError.

    Those that cannot be read are left out by the rule of `load_sources`.
    """
    done = itertools.count(1)

    def read(file: Path, size: int, grey_range: tuple[float, float] | None, notify: Notify) -> Tensor:
        try:
            return decode_square(file, size, grey_range, notify)
        finally:
            progress(next(done), len(files))

    pictures, _ = load_sources(files, read, size)
    return replace(pictures, read=decode_square) if isinstance(pictures, Files) else pictures


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height as the file says; None where it cannot be read."""
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return picture.size
    except Exception:  # decoders raise all kinds of exceptions on a broken file, which is reported when it is decoded
        return None
