"""Sample grids: images side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_SIDE = 96
"""Pixels: smaller images are enlarged by a whole factor, so that no pixel is blurred."""
GAP = 2
"""White pixels between images."""


def sample_grid(rows: Sequence[Tensor], columns: int = 12) -> Tensor:
    """One picture of the first images of each row, (N, 3, H, W) in [-1, 1]: uint8 (height, width, 3) on the CPU."""
    factor = max(1, -(-MIN_SIDE // min(rows[0].shape[-2:])))
    count = min(columns, *(len(row) for row in rows))

    def tile(image: Tensor) -> Tensor:
        large = to_uint8(image.cpu()).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return F.pad(large, (0, GAP, 0, GAP), value=255)

    picture = torch.cat([torch.cat([tile(image) for image in row[:count]], 2) for row in rows], 1)
    return picture[:, :-GAP, :-GAP].permute(1, 2, 0)


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] to 0..255; values outside are clipped."""
    return image.float().nan_to_num().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
