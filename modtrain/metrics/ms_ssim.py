"""MS-SSIM, multi-scale structural similarity, of pairs of images; and as the diversity of one set of images.

Wang, Simoncelli and Bovik 2003: the contrast and structure of five scales, and the luminance of the coarsest one, each
to the power of its weight. An image of less than 161 pixels is smaller than the 11 x 11 window at its coarsest scale:
there the window shrinks to the image, as in TensorFlow's first implementation, with its deviation in proportion.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from modtrain.errors import InputError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, DEVIATION = 11, 1.5
"""Pixels."""
SMALLEST = 16
"""Pixels: below it nothing is left at the fifth scale."""
LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PAIRS_AT_ONCE = 128


def ms_ssim(images: Tensor, others: Tensor) -> Tensor:
    """MS-SSIM of each pair, float64 (N,), a mean over the channels; 1 for equal images.

    Both are uint8 (N, C, H, W), of at least 16 pixels. A scale whose similarity is negative counts as 0.
    """
    if images.shape != others.shape or images.dtype != torch.uint8 or min(images.shape[-2:]) < SMALLEST:
        raise InputError(
            f"MS-SSIM takes pairs of uint8 images of one size of at least {SMALLEST} pixels; it got "
            f"{tuple(images.shape)} and {tuple(others.shape)}."
        )
    parts = zip(*(torch.split(each, PAIRS_AT_ONCE) for each in (images, others)), strict=True)
    return torch.cat([_of_part(first.double(), second.double()) for first, second in parts])


def ms_ssim_of_pairs(images: Tensor, *, seed: int = 0) -> float:
    """Mean MS-SSIM of random pairs of one set, each image in one pair: low where the images are diverse.

    Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs", section 4.2. It says nothing about
    quality: noise is diverse. Compare it with that of real images of the same size only. Raises InputError below two.
    """
    if len(images) < 2:
        raise InputError(f"MS-SSIM of pairs needs at least 2 images; there is {len(images)}.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    half = len(images) // 2
    return float(ms_ssim(images[order[:half]], images[order[half : 2 * half]]).mean())


def _of_part(first: Tensor, second: Tensor) -> Tensor:
    factors = []
    for number, weight in enumerate(WEIGHTS, 1):
        similarity, contrast = _similarities(first, second)
        is_last = number == len(WEIGHTS)
        factors.append((similarity if is_last else contrast).relu() ** weight)
        if not is_last:
            odd = [edge % 2 for edge in first.shape[-2:]]
            first, second = (F.avg_pool2d(each, 2, padding=odd) for each in (first, second))
    return torch.stack(factors).prod(0).mean(1)


def _similarities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM, and its factor without luminance, of each image and channel: (N, C)."""
    rows, columns = (_window(edge).to(first) for edge in first.shape[-2:])

    def blurred(images: Tensor) -> Tensor:
        flat = images.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(flat, rows.view(1, 1, -1, 1)), columns.view(1, 1, 1, -1)).view(*images.shape[:2], -1)

    means = blurred(first), blurred(second)
    product, squares = means[0] * means[1], means[0] ** 2 + means[1] ** 2
    variances = blurred(first**2) + blurred(second**2) - squares
    contrast = (2 * (blurred(first * second) - product) + CONTRAST) / (variances + CONTRAST)
    luminance = (2 * product + LUMINANCE) / (squares + LUMINANCE)
    return (luminance * contrast).mean(-1), contrast.mean(-1)


def _window(edge: int) -> Tensor:
    """A Gaussian along one axis, of 11 pixels, or as long as the image."""
    size = min(WINDOW, edge)
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(places**2) / (2 * (DEVIATION * size / WINDOW) ** 2))
    return weights / weights.sum()
