"""The sliced Wasserstein distance of two sets of images over Laplacian pyramids, a metric without a feature network.

Karras et al. 2018, "Progressive Growing of GANs", section 5: each level of a Laplacian pyramid (Burt and Adelson 1983)
has the details of one scale. Of each, 128 patches of 7 x 7 pixels an image are compared by their projections onto 512
random directions. The loss of `nets/sliced_wasserstein.py` is another one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
DIRECTIONS, DIRECTIONS_DRAWN, DIRECTIONS_AT_ONCE = 512, 16, 32
SCALE = 1000
"""As it is published."""
IMAGES_AT_ONCE, ROWS_AT_ONCE = 256, 8192

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
        first, second = (_patches(each[:count], level, generator) for each in (images, reference))
        distances[images.shape[-1] >> level] = SCALE * _distance(first, second, generator)
    return distances


def sliced_wasserstein_scores(images: Tensor, reference: Tensor) -> dict[str, float]:
    """As metrics: `swd`, the mean over the levels, and each of them, such as `swd_32`."""
    levels = sliced_wasserstein_distances(images, reference)
    return {"swd": sum(levels.values()) / len(levels)} | {f"swd_{edge}": value for edge, value in levels.items()}


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
        images = _blurred(images, stride=2)
    return images if level == levels - 1 else images - _enlarged(_blurred(images, stride=2))


def _blurred(images: Tensor, gain: float = 1.0, *, stride: int = 1) -> Tensor:
    """Filtered with the binomial 5 x 5 kernel, mirrored at the edge pixels."""
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device)
    kernel = (torch.outer(row, row) * (gain / 256)).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, stride=stride, groups=images.shape[1])


def _enlarged(images: Tensor) -> Tensor:
    """Twice as large: zeros between the pixels, filtered."""
    count, channels, height, width = images.shape
    spread = images.new_zeros((count, channels, 2 * height, 2 * width))
    spread[..., ::2, ::2] = images
    return _blurred(spread, 4.0)


@dataclass(frozen=True)
class _Patches:
    """Patches of a level of a set of images, not yet normalised: that happens to their projections, which are fewer."""

    values: Tensor
    """(N x 128, 147), by row, column and channel."""
    mean: Tensor
    deviation: Tensor
    """Of each channel of the set, (3,)."""

    def projected(self, directions: Tensor) -> Tensor:
        """The patches, each channel with mean 0 and deviation 1, onto unit vectors (147, D): (D, N x 128)."""
        weights = directions.to(self.values).view(-1, 3, directions.shape[1]) / self.deviation[:, None]
        offsets = (weights * self.mean[:, None]).sum((0, 1))
        return torch.addmm(offsets[:, None], weights.flatten(0, 1).T, self.values.T, beta=-1)


def _patches(images: Tensor, level: int, generator: torch.Generator) -> _Patches:
    """Patches of a level at random places."""
    levels = level_count(images)
    parts = (laplacian_level(part.float(), level, levels) for part in torch.split(images, IMAGES_AT_ONCE))
    values = torch.cat([_cut(part, generator) for part in parts])
    mean = values.mean(0).view(-1, 3).mean(0)
    offsets = mean.repeat(PATCH_SIZE**2)
    squares = [(part - offsets).square_().sum(0).double() for part in torch.split(values, ROWS_AT_ONCE)]
    variance = torch.stack(squares).sum(0).view(-1, 3).mean(0) / len(values)
    return _Patches(values, mean, variance.sqrt().float().clamp_min(1e-12))


def _cut(images: Tensor, generator: torch.Generator) -> Tensor:
    """128 patches of each image, (N x 128, 147), at independent places that are wholly inside."""
    count, channels, height, width = images.shape
    shape = (count, PATCHES, 1)
    top, left = (torch.randint(0, edge - PATCH_SIZE + 1, shape, generator=generator) for edge in (height, width))
    # Each row of a patch is 21 numbers one after the other, copied at once.
    rows = images.permute(0, 2, 3, 1).flatten(2).unfold(2, channels * PATCH_SIZE, channels)
    return rows[torch.arange(count).view(-1, 1, 1), top + torch.arange(PATCH_SIZE), left].view(count * PATCHES, -1)


def _distance(first: _Patches, second: _Patches, generator: torch.Generator) -> float:
    """Mean difference of the sorted projections onto random unit vectors."""
    shape = (first.values.shape[1], DIRECTIONS_DRAWN)
    drawn = torch.cat([torch.randn(shape, generator=generator) for _ in range(DIRECTIONS // DIRECTIONS_DRAWN)], 1)
    directions = (drawn / drawn.norm(dim=0)).view(3, -1, DIRECTIONS).transpose(0, 1).flatten(0, 1)
    total = 0.0
    with ThreadPoolExecutor(2) as pool:  # NumPy sorts without the interpreter's lock, and faster than PyTorch
        for some in torch.split(directions, DIRECTIONS_AT_ONCE, 1):
            total += _difference(*pool.map(_sorted, [patches.projected(some) for patches in (first, second)]))
    return total / (DIRECTIONS * len(first.values))


def _sorted(projections: Tensor) -> Array:
    values: Array = projections.cpu().numpy()
    values.sort(axis=1)
    return values


def _difference(first: Array, second: Array) -> float:
    """The sum of the absolute differences; `first` is overwritten."""
    first -= second
    return float(np.abs(first, out=first).sum(dtype=np.float64))


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
