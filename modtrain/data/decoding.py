"""Decoding: one image file becomes RGB with 8 bits, rotated as its EXIF orientation says.

Grey, palette, RGBA, CMYK and 16-bit files are converted. An alpha channel is dropped, as the CycleGAN project does.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from modtrain.data.grey_range import WHITE_IS_ZERO, declared_range, is_deep, to_8_bits
from modtrain.errors import InputError, message_of

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF")
"""Formats that are decoded, whatever the suffix: some of Pillow's other formats run programs."""
MAX_PIXELS = 89_478_485
"""A larger image is refused as a decompression bomb; Pillow's own limit."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED_CHUNKS = (b"tRNS", b"eXIf")
"""Chunks of a PNG that matter, beside the critical ones."""

Resize = Literal["bicubic", "bilinear", "lanczos", "hamming", "nearest", "box"]
"""Pillow's filters; all but `nearest` average what becomes one pixel."""
Notify = Callable[[str], None]
"""Takes a remark on a file that was decoded."""


def decode(
    path: Path,
    size: int,
    grey_range: tuple[float, float] | None = None,
    notify: Notify = lambda remark: None,
    *,
    resize: Resize = "bicubic",
) -> Tensor:
    """Read one image as RGB, resized to size x size: uint8 of shape (3, size, size). Raises InputError."""
    return resized(read_rgb(path, grey_range, notify), size, resize)


def decode_square(
    path: Path,
    size: int,
    grey_range: tuple[float, float] | None = None,
    notify: Notify = lambda remark: None,
    *,
    resize: Resize = "bicubic",
) -> Tensor:
    """As `decode`, of the largest square in the middle of the image: its proportions stay. Raises InputError."""
    picture = read_rgb(path, grey_range, notify)
    side = min(picture.size)
    left, top = ((length - side) / 2 for length in picture.size)
    return resized(picture, size, resize, (left, top, left + side, top + side))


def decode_pair(
    paths: tuple[Path, ...],
    size: int,
    grey_range: tuple[float, float] | None = None,
    notify: Notify = lambda remark: None,
    *,
    resize: Resize = "bicubic",
) -> Tensor:
    """A pair as uint8 (6, size, size), A in the first three channels: of two files, or of the two halves of one.

    A is the left half; each image is resized by itself. Raises InputError.
    """
    pictures = [read_rgb(path, grey_range, notify) for path in paths]
    if len(pictures) == 1:
        width, height = pictures[0].size
        if width < 2:
            raise InputError(
                f"{paths[0]} is {width} pixel wide and has no halves; A must be its left half, B its right."
            )
        boxes = ((0, 0, width // 2, height), (width // 2, 0, width, height))
        pictures = [pictures[0].crop(box) for box in boxes]
    return torch.cat([resized(picture, size, resize) for picture in pictures])


def resized(
    picture: Image.Image,
    size: int,
    resize: Resize = "bicubic",
    box: tuple[float, float, float, float] | None = None,
) -> Tensor:
    """A picture in RGB, or the part of it in `box`, as uint8 (3, size, size), by one of Pillow's filters."""
    pixels = np.array(picture.resize((size, size), Image.Resampling[resize.upper()], box=box))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_rgb(path: Path, grey_range: tuple[float, float] | None = None, notify: Notify = log.warning) -> Image.Image:
    """Read one image in its own size, in RGB and upright. Raises InputError, which names the file.

    `grey_range` are black and white of grey images with more than 8 bits, else as the file declares them; `notify`
    takes a remark where it does not, and the usual range does not fit.
    """
    try:
        try:
            picture, remark = _read(path, grey_range)
        except ValueError:  # as of a text longer than Pillow's limit, in a file that is sound
            if (essential := _essential(path)) is None:
                raise
            picture, remark = _read(essential, grey_range)
    except Exception as error:  # decoders raise all kinds of exceptions on a broken file
        raise InputError(f"{path} cannot be read as an image: {_why(error)}.") from error
    if remark:
        notify(f"{path} {remark}")
    return picture


def _read(file: Path | io.BytesIO, grey_range: tuple[float, float] | None) -> tuple[Image.Image, str]:
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"it has {picture.width} x {picture.height} pixels, more than the limit of {MAX_PIXELS}")
        declared = grey_range or declared_range(picture)
        white_is_zero = getattr(picture, "tag_v2", {}).get(WHITE_IS_ZERO) == 0
        upright, remark = ImageOps.exif_transpose(picture), ""
        if is_deep(upright):
            upright, remark = to_8_bits(upright, declared, white_is_zero=white_is_zero)
        if upright.mode in ("P", "PA"):
            upright = upright.convert("RGBA")
        return upright.convert("RGB"), remark


def _why(error: Exception) -> str:
    """The path is named already."""
    return error.strerror if isinstance(error, OSError) and error.strerror else message_of(error)


def _essential(path: Path) -> io.BytesIO | None:
    """A PNG file without its texts, profiles and so on; None for any other file."""
    with path.open("rb") as file:
        if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
            return None
        kept = [PNG_SIGNATURE]
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind[:1].isupper() or kind in NEEDED_CHUNKS:
                kept += [head, file.read(length + 4)]
            else:
                file.seek(length + 4, io.SEEK_CUR)
    return io.BytesIO(b"".join(kept))
