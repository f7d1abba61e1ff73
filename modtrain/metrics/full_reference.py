"""Full-reference metrics, PSNR and SSIM: the distance of an image to the true one, optionally inside a mask.

Images are float tensors (N, 3, H, W) in [-1, 1]; a mask is (N, 1, H, W), true at the pixels that count. A result is the
mean over the images; images with an empty mask are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

DATA_RANGE = 2.0

Image = NDArray[np.float64]


def psnr(images: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB; infinite if two images are equal. Raises ValueError."""
    _check(images, truth, mask)
    squared = (images.double() - truth.double()) ** 2
    errors = squared.mean((1, 2, 3)).tolist() if mask is None else _masked_means(squared, mask)
    return _mean([10 * math.log10(DATA_RANGE**2 / error) if error else math.inf for error in errors])


def ssim(images: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Structural similarity as Wang et al. (2004) define it: Gaussian window, sigma 1.5; 1 for equal images.

    With a mask it is the mean of the SSIM map inside. Images are at least 11 pixels high and wide. Raises ValueError.
    """
    _check(images, truth, mask)
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
