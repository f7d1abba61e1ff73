"""Full-reference metrics, PSNR and SSIM: the distance of an image to the true one, optionally inside a mask.

Images are float tensors (N, 3, H, W) in [-1, 1]; a mask is (N, 1, H, W), true at the pixels that count. A result is the
mean over the images; images with an empty mask are left out.

Super-resolution is measured on images rounded to 8 bits (`channel="rgb"`), often on their luma alone (`channel="y"`),
and without a border of as many pixels as the scale. The two differ by some 2 dB of PSNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from modtrain.metrics.sample_grid import to_uint8

DATA_RANGE = 2.0
LUMA = (65.481, 128.553, 24.966)
"""Weights of red, green and blue in the luma of ITU-R BT.601, which begins at 16."""

Channel = Literal["rgb", "y"] | None

Image = NDArray[np.float64]


def psnr(
    images: Tensor, truth: Tensor, mask: Tensor | None = None, *, channel: Channel = None, border: int = 0
) -> float:
    """Peak signal-to-noise ratio in dB; infinite if two images are equal. Raises ValueError.

    `channel` measures images rounded to 8 bits: "rgb", or "y", the luma of ITU-R BT.601. `border` pixels at each edge
    are left out.
    """
    images, truth, mask = _compared(images, truth, mask, channel, border)
    squared = (images.double() - truth.double()) ** 2
    errors = squared.mean((1, 2, 3)).tolist() if mask is None else _masked_means(squared, mask)
    return _mean([10 * math.log10(DATA_RANGE**2 / error) if error else math.inf for error in errors])


def ssim(
    images: Tensor, truth: Tensor, mask: Tensor | None = None, *, channel: Channel = None, border: int = 0
) -> float:
    """Structural similarity as Wang et al. (2004) define it: Gaussian window, sigma 1.5; 1 for equal images.

    With a mask it is the mean of the SSIM map inside. Images are at least 11 pixels high and wide, without the border.
    `channel` and `border` as for `psnr`. Raises ValueError.
    """
    images, truth, mask = _compared(images, truth, mask, channel, border)
    pairs = zip(images.double().cpu().numpy(), truth.double().cpu().numpy(), strict=True)
    scores = [_similarity(image, true) for image, true in pairs]
    if mask is None:
        return _mean([score for score, _ in scores])
    return _mean(_masked_means(torch.from_numpy(np.stack([local for _, local in scores])), mask.cpu()))


def _similarity(image: Image, truth: Image) -> tuple[float, Image]:
    """SSIM of an image, and its map."""
    compare: Callable[..., tuple[float, Image]] = structural_similarity
    window: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    score, local = compare(image, truth, data_range=DATA_RANGE, channel_axis=0, full=True, **window)
    return float(score), local


def _compared(
    images: Tensor, truth: Tensor, mask: Tensor | None, channel: Channel, border: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What is measured of images, truth and mask, in values whose range is 2."""
    _check(images, truth, mask)
    height, width = images.shape[-2:]
    if channel not in (None, "rgb", "y") or not 0 <= 2 * border < min(height, width):
        raise ValueError(
            f"channel = {channel!r} and border = {border} are not allowed for images of {height} x {width}; channel is "
            "None, 'rgb' or 'y', and the border leaves at least a pixel."
        )
    inner = (..., slice(border, height - border), slice(border, width - border))
    images, truth = (each[inner] if channel is None else _rounded(each[inner], channel) for each in (images, truth))
    return images, truth, None if mask is None else mask[inner]


def _rounded(images: Tensor, channel: str) -> Tensor:
    """Rounded to 8 bits, with 255 as 2; "y" is one channel."""
    values = to_uint8(images).double()
    if channel == "y":
        values = (values * values.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True) / 255 + 16
    return values / 127.5


def _check(images: Tensor, truth: Tensor, mask: Tensor | None) -> None:
    expected = (images.shape[0], 1, *images.shape[2:])
    if images.shape != truth.shape or (mask is not None and mask.shape != expected):
        shapes = [tuple(tensor.shape) for tensor in (images, truth, mask) if tensor is not None]
        raise ValueError(f"images, truth and mask do not fit together: {shapes}")


def _masked_means(values: Tensor, mask: Tensor) -> list[float]:
    """Mean of each image's values inside its mask, without images whose mask is empty."""
    inside = mask.bool()
    return [float(value[:, keep[0]].mean()) for value, keep in zip(values, inside, strict=True) if keep.any()]


def _mean(scores: Sequence[float]) -> float:
    if not scores:
        raise ValueError("no image to measure, or every mask is empty")
    return sum(scores) / len(scores)
