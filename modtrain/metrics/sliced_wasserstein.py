"""The sliced Wasserstein distance of two sets of images over Laplacian pyramids, a metric without a feature network.

Karras et al. 2018, "Progressive Growing of GANs", section 5: each level of a Laplacian pyramid (Burt and Adelson 1983)
has the details of one scale. Of each, 128 patches of 7 x 7 pixels an image are compared by their projections onto 512
random directions. The loss of `nets/sliced_wasserstein.py` is another one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from modtrain.errors import InputError

MOST_IMAGES = 16_384
PATCHES, PATCH_SIZE = 128, 7
SMALLEST_LEVEL = 16
"""Pixels: the pyramid ends at the last level whose edges are at least as long."""
DIRECTIONS, DIRECTIONS_AT_ONCE = 512, 16
SCALE = 1000
"""As it is published."""
IMAGES_AT_ONCE = 256

Array = NDArray[np.float32]


def sliced_wasserstein_distances(images: Tensor, reference: Tensor) -> dict[int, float]:
    """The distance, times 1000, by the edge of the pyramid's level in pixels: that of the images first, then its half.

    Both sets are uint8 (N, 3, H, W) of the same size; as many images count as the smaller set has, at most 16,384,
    since the distance depends on their number. Raises InputError for other shapes, and below 16 pixels.
    """
    _check(images, reference)
    count = min(len(images), len(reference), MOST_IMAGES)
    generator = torch.Generator().manual_seed(0)
    distances: dict[int, float] = {}
    for level in range(level_count(images)):
        first, second = (_normalised_patches(each[:count], level, generator) for each in (images, reference))
        distances[images.shape[-1] >> level] = SCALE * _distance(first, second, generator)
    return distances


def level_count(images: Tensor) -> int:
    """Levels of the pyramid: edges are halved while they are even, to 16 pixels or more."""
    edges, levels = images.shape[-2:], 1
    while all(edge % 2 == 0 and edge // 2 >= SMALLEST_LEVEL for edge in edges):
        edges, levels = torch.Size(edge // 2 for edge in edges), levels + 1
    return levels


def laplacian_level(images: Tensor, level: int, levels: int) -> Tensor:
    """Level number `level` of a Laplacian pyramid of `levels` levels, of float images (N, 3, H, W).

    It is what a Gaussian pyramid loses between two levels; the last level is that of the Gaussian pyramid itself.
    """
    for _ in range(level):
        images = _blurred(images)[..., ::2, ::2]
    return images if level == levels - 1 else images - _enlarged(_blurred(images)[..., ::2, ::2])


def _blurred(images: Tensor, gain: float = 1.0) -> Tensor:
    """Filtered with the binomial 5 x 5 kernel, mirrored at the edge pixels."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device)
    kernel = (torch.outer(row, row) * (gain / 256)).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def _enlarged(images: Tensor) -> Tensor:
    """Twice as large: zeros between the pixels, filtered."""
    count, channels, height, width = images.shape
    spread = images.new_zeros((count, channels, 2 * height, 2 * width))
    spread[..., ::2, ::2] = images
    return _blurred(spread, 4.0)


def _normalised_patches(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Patches of a level at random places, (N x 128, 147); each channel of the set with mean 0 and deviation 1."""
    levels = level_count(images)
    parts = (laplacian_level(part.float(), level, levels) for part in torch.split(images, IMAGES_AT_ONCE))
    patches = torch.cat([_patches(part, generator) for part in parts])
    patches -= patches.mean((0, 2, 3), keepdim=True)
    patches /= patches.std((0, 2, 3), correction=0, keepdim=True).clamp_min(1e-12)
    return patches.flatten(1)


def _patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """128 patches (3, 7, 7) of each image, at independent places that are wholly inside."""
    count, _, height, width = images.shape
    shape = (count, PATCHES, 1, 1)
    top, left = (torch.randint(0, edge - PATCH_SIZE + 1, shape, generator=generator) for edge in (height, width))
    reach = torch.arange(PATCH_SIZE)
    rows, columns = top + reach[:, None], left + reach
    chosen = images.permute(0, 2, 3, 1)[torch.arange(count).view(-1, 1, 1, 1), rows, columns]
    return chosen.flatten(0, 1).permute(0, 3, 1, 2)


def _distance(first: Tensor, second: Tensor, generator: torch.Generator) -> float:
    """Mean difference of the sorted projections onto random unit vectors."""
    total = 0.0
    for _ in range(DIRECTIONS // DIRECTIONS_AT_ONCE):
        directions = torch.randn(first.shape[1], DIRECTIONS_AT_ONCE, generator=generator)
        directions = (directions / directions.norm(dim=0)).to(first)
        projections = (np.sort(projected.cpu().numpy(), axis=1) for projected in _projected(first, second, directions))
        total += _mean_difference(*projections) * DIRECTIONS_AT_ONCE
    return total / DIRECTIONS


def _projected(first: Tensor, second: Tensor, directions: Tensor) -> Iterator[Tensor]:
    for patches in (first, second):
        yield directions.T @ patches.T


def _mean_difference(first: Array, second: Array) -> float:
    return float(np.abs(first - second).mean(dtype=np.float64))


def _check(images: Tensor, reference: Tensor) -> None:
    shapes = [tuple(each.shape) for each in (images, reference)]
    if shapes[0][1:] != shapes[1][1:] or images.dtype != torch.uint8 or not len(images) or not len(reference):
        raise InputError(
            f"SWD compares two sets of uint8 images of the same size; they are {shapes[0]} and {shapes[1]}."
        )
    if min(images.shape[-2:]) < SMALLEST_LEVEL:
        raise InputError(
            f"SWD needs images of at least {SMALLEST_LEVEL} pixels; these have {shapes[0][-2]} x {shapes[0][-1]}."
        )
