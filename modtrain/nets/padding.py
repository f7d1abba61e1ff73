"""Padding images to what a network's strides need, so that it can be applied to any size.

Not here: the padding inside of a convolution (`conv.py`).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Images (N, C, H, W) continued right and below, by reflection, to multiples of `multiple`, at least two.

    Crop the result to [..., :H, :W] to undo it.
    """
    height, width = images.shape[-2:]
    right, below = (max(2 * multiple, -(-edge // multiple) * multiple) - edge for edge in (width, height))
    # Reflection needs more pixels than it adds; an image of a few pixels is continued by its edge.
    mode = "reflect" if right < width and below < height else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)
