"""Square crops of the photographs in scikit-image, the backgrounds of the built-in pictures.

The files are read from the installed package, never downloaded. A vertical line divides each photograph: crops for
training come from the left part, crops for testing from the right one, so that no pixel is in both.
"""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modtrain.errors import InputError

TINTS = {"grass.png": (0.78, 1.0, 0.42), "gravel.png": (1.0, 0.93, 0.80), "brick.png": (1.0, 0.74, 0.60)}
"""Colours of the grey photographs: factors on red, green and blue."""
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", *TINTS)

TRAIN_SHARE = 0.6
MIN_CROP = 120


class Crop(NamedTuple):
    """A square of a photograph, in pixels of the photograph."""

    photograph: int
    left: int
    top: int
    side: int
    mirrored: bool


@functools.cache
def photographs() -> tuple[Image.Image, ...]:
    """All photographs in RGB, always in the same order. Raises InputError if one is missing."""
    folder = _folder()
    missing = [name for name in PHOTOGRAPHS if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"scikit-image's folder {folder} lacks {', '.join(missing)}, backgrounds of the built-in data set; "
            "install scikit-image with pip, or give --dataroot."
        )
    return tuple(_read(folder / name) for name in PHOTOGRAPHS)


def colour_photographs(*, testing: bool) -> list[Image.Image]:
    """The training or the testing part of each photograph that is in colour, in its own size."""
    pictures = [picture for name, picture in zip(PHOTOGRAPHS, photographs(), strict=True) if name not in TINTS]
    spans = (_part(picture.width, testing) for picture in pictures)
    return [
        picture.crop((first, 0, last, picture.height)) for picture, (first, last) in zip(pictures, spans, strict=True)
    ]


def draw_crops(count: int, *, rng: np.random.Generator, testing: bool) -> list[Crop]:
    """Random crops from the photographs' training or testing part."""
    which = rng.integers(len(PHOTOGRAPHS), size=count)
    return [_crop(int(index), place, testing) for index, place in zip(which, rng.random((count, 4)), strict=True)]


def cut(crops: list[Crop], size: int) -> NDArray[np.float32]:
    """The crops as an array (N, 3, size, size) in [0, 1]."""
    sources = photographs()
    pixels = np.empty((len(crops), 3, size, size), np.float32)
    for target, crop in zip(pixels, crops, strict=True):
        box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
        picture = np.asarray(sources[crop.photograph].resize((size, size), Image.Resampling.BICUBIC, box=box))
        target[:] = (picture[:, ::-1] if crop.mirrored else picture).transpose(2, 0, 1)
    return pixels / np.float32(255)


def _folder() -> Path:
    return Path(str(importlib.resources.files("skimage"))) / "data"


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    if path.name not in TINTS:
        return rgb
    tinted = np.asarray(rgb) * np.array(TINTS[path.name], np.float32)
    return Image.fromarray(tinted.astype(np.uint8))


def _crop(index: int, place: NDArray[np.float64], testing: bool) -> Crop:
    """`place` holds four uniform numbers: side, left, top, mirrored."""
    width, height = photographs()[index].size
    first, last = _part(width, testing)
    side = round(MIN_CROP + (min(last - first, height) - MIN_CROP) * place[0])
    left = first + round((last - first - side) * place[1])
    return Crop(index, left, round((height - side) * place[2]), side, bool(place[3] < 0.5))


def _part(width: int, testing: bool) -> tuple[int, int]:
    """The first column of a part of a photograph, and the one after its last."""
    line = round(width * TRAIN_SHARE)
    return (line, width) if testing else (0, line)
