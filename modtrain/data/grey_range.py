"""Grey images with more than 8 bits: which of their values is black, and which is white.

A TIFF may declare it, in MinSampleValue and MaxSampleValue, SMinSampleValue and SMaxSampleValue, or by fewer than 16
bits (TIFF 6.0, sections 8 and 19). Otherwise integers are taken to be from 0 to 65535, and floats from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, BeforeValidator

BITS, WHITE_IS_ZERO = 258, 262
SMALLEST_AND_LARGEST = ((340, 341), (280, 281))
"""Pairs of tags of a TIFF; the first ones also hold floats."""
DARKEST = 4
"""A range in which an image uses less than this part is probably not the range of the image."""


def _numbers(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("give black and white, the smaller one first, such as 0,4095")
    return value


GreyRange = Annotated[tuple[float, float], BeforeValidator(_numbers), AfterValidator(_rising)]
"""The values of black and white, as the type of a recipe's parameter; in text `0,4095`."""


def is_deep(picture: Image.Image) -> bool:
    """Whether the picture is grey with more than 8 bits."""
    return picture.mode[0] in "IF"


def declared_range(picture: Image.Image) -> tuple[float, float] | None:
    """Black and white as the file declares them; None where it does not."""
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    for low, high in SMALLEST_AND_LARGEST:
        if high in tags and (found := (_first(tags.get(low, 0)), _first(tags[high])))[0] < found[1]:
            return found
    bits = int(_first(tags.get(BITS, 16)))
    return (0.0, 2.0**bits - 1) if bits < 16 else None


def to_8_bits(
    picture: Image.Image, declared: tuple[float, float] | None, *, white_is_zero: bool
) -> tuple[Image.Image, str]:
    """The picture in mode L, and a remark where nothing declares its range and the usual one does not fit.

    Values beyond the range are clipped. ValueError where no value is finite.
    """
    values = np.asarray(picture).astype(np.float64)
    if not (finite := values[np.isfinite(values)]).size:
        raise ValueError("it has no finite value")
    usual = (0.0, 1.0) if picture.mode == "F" else (0.0, 65535.0)
    black, white = declared or usual
    remark = "" if declared else _remark(finite, usual)
    share = (np.nan_to_num(values, nan=black) - black) / (white - black)
    grey = (1 - share if white_is_zero else share) * 255
    return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)), remark


def _remark(values: NDArray[np.float64], usual: tuple[float, float]) -> str:
    low, high = float(values.min()), float(values.max())
    is_dark = usual[1] > 1 and 0 < high <= usual[1] / DARKEST
    if low >= usual[0] and high <= usual[1] and not is_dark:
        return ""
    return (
        f"has grey values from {low:g} to {high:g} and declares no range; {usual[0]:g} is taken for black and "
        f"{usual[1]:g} for white. If that is wrong, say it, such as --grey-range {min(0, low):g},{high:g}."
    )


def _first(value: Any) -> float:
    """A tag's value, or the first of several."""
    return float(value[0] if isinstance(value, tuple) else value)
