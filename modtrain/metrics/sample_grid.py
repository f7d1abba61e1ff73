"""Sample grids: rows of images in one picture, each with its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

MIN_SIDE = 96
"""Pixels: smaller images are enlarged by a whole factor, so that no pixel is blurred."""
GAP = 2
"""White pixels between images."""
MARGIN = 6
"""White pixels on both sides of a row's name."""


def sample_grid(rows: Mapping[str, Tensor], columns: int = 12) -> Tensor:
    """One picture of the first images of each row, (N, 3, H, W) in [-1, 1]: uint8 (height, width, 3) on the CPU.

    The name of each row is written to the left of it.
    """
    count = min(columns, *map(len, rows.values()))
    tiles = _rows([images[:count] for images in rows.values()])
    picture = torch.cat([_names(list(rows), [row.shape[1] for row in tiles]), torch.cat(tiles, 1)], 2)
    return picture[:, :-GAP, :-GAP].permute(1, 2, 0)


def sample_sheet(images: Tensor, columns: int | None = None) -> Tensor:
    """One picture of all images (N, 3, H, W) in [-1, 1], row by row: uint8 (height, width, 3) on the CPU.

    Without `columns` it is about square; what is left of the last row is white.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    missing = images.new_ones(-len(images) % columns, *images.shape[1:])
    picture = torch.cat(_rows(torch.split(torch.cat([images, missing]), columns)), 1)
    return picture[:, :-GAP, :-GAP].permute(1, 2, 0)


def _rows(rows: Sequence[Tensor]) -> list[Tensor]:
    """Each row of images (N, 3, H, W) as one picture (3, height, width), enlarged where they are small."""
    factor = max(1, -(-MIN_SIDE // min(min(images.shape[-2:]) for images in rows)))

    def tile(image: Tensor) -> Tensor:
        large = to_uint8(image.cpu()).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return F.pad(large, (0, GAP, 0, GAP), value=255)

    return [torch.cat([tile(image) for image in images], 2) for images in rows]


def _names(names: list[str], heights: list[int]) -> Tensor:
    """The names of rows below each other, each in the middle of its row: uint8 (3, height, width)."""
    font = ImageFont.load_default(max(14, min(heights) // 10))
    width = 2 * MARGIN + max(round(font.getlength(name)) for name in names)
    picture = Image.new("L", (width, sum(heights)), 255)
    draw, top = ImageDraw.Draw(picture), 0
    for name, height in zip(names, heights, strict=True):
        draw.text((MARGIN, top + (height - GAP) / 2), name, fill=0, font=font, anchor="lm")
        top += height
    return torch.from_numpy(np.array(picture)).expand(3, -1, -1)


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] to 0..255; values outside are clipped."""
    return image.float().nan_to_num().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
