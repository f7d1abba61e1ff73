"""Folders of images that are compared: all of one square size, in subfolders or not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from modtrain.data.decoding import FORMATS, Notify, decode_square
from modtrain.data.images import KINDS, Files, Paths, Pictures, find, load_sources
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
    raise InputError(f"{folder} holds no image ({KINDS} are read).")


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


def common_classes(folders: Sequence[Path], sets: Sequence[Paths]) -> tuple[str, ...]:
    """The names of the subfolders where all folders have the same, at least two, with all images in them; else none."""
    first, *others = ({_subfolder(folder, file) for file in files} for folder, files in zip(folders, sets, strict=True))
    is_labelled = len(first) > 1 and "" not in first and all(each == first for each in others)
    return tuple(sorted(first)) if is_labelled else ()


def _subfolder(folder: Path, file: Path) -> str:
    *above, _ = file.relative_to(folder).parts
    return above[0] if above else ""


def load_images(
    folder: Path, files: Paths, size: int, progress: Callable[[int, int], object], *, classes: Sequence[str] = ()
) -> tuple[Pictures, Tensor]:
    """The square in the middle of each image, resized (bicubic) if it has another size, and the numbers of its class.

    The class, int64 (N,), is that of `classes` which names the subfolder, else -1. Images that cannot be read are left
    out by the rule of `load_sources`. Raises InputError.
    """
    done = itertools.count(1)

    def read(file: Path, size: int, grey_range: tuple[float, float] | None, notify: Notify) -> Tensor:
        try:
            return decode_square(file, size, grey_range, notify)
        finally:
            progress(next(done), len(files))

    pictures, kept = load_sources(files, read, size)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers.get(_subfolder(folder, files[each]), -1) for each in kept])
    return replace(pictures, read=decode_square) if isinstance(pictures, Files) else pictures, labels


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height as the file says; None where it cannot be read."""
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return picture.size
    except Exception:  # decoders raise all kinds of exceptions on a broken file, which is reported when it is decoded
        return None
