"""Padding of images to a multiple of a network's strides, so that it can be applied to any size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad images (N, C, H, W) on the right and below, by reflection, to multiples of `multiple`, at least two.

    Crop the result to [..., :H, :W] to undo it.
    """
    height, width = images.shape[-2:]
    right, below = (max(2 * multiple, -(-edge // multiple) * multiple) - edge for edge in (width, height))
    # Reflection needs more pixels than it adds; an image of a few pixels is padded with its edge.
    mode = "reflect" if right < width and below < height else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)
