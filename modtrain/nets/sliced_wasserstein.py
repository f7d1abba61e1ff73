"""Sliced Wasserstein distance of the patches of two sets of feature maps, as a loss.

Rabin et al. 2011, "Wasserstein Barycenter and its Application to Texture Mixing": the distance of two distributions is
a mean over random directions, along each of which it is a difference of sorted values. Elnekave and Weiss 2022,
"Generating Natural Images with Direct Patch Distributions Matching": a direction in the space of patches is a filter,
so one convolution projects all patches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sliced_wasserstein(features: Tensor, target: Tensor, *, projections: int, patch_size: int) -> Tensor:
    """The distance of the patches of `features` (N, C, H, W) from those of `target` (M, C, H', W'): a scalar.

    It is the Wasserstein-1 distance, averaged over random unit filters, in units of the standard deviation of `target`,
    so that it does not depend on their common scale. Positions do not count, only which patches there are. Gradients
    reach both. Patches are `patch_size` wide and high, or as large as the maps if these are smaller. New filters are
    drawn in each call, from torch's default generator on the CPU: they are the same on every device, and resuming is
    exact.
    """
    channels = features.shape[1]
    height, width = (min(patch_size, *edges) for edges in zip(features.shape[2:], target.shape[2:], strict=True))
    filters = torch.randn(projections, channels, height, width)
    filters = (filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).to(features)
    projected, wanted = (F.conv2d(maps, filters).transpose(0, 1).flatten(1) for maps in (features, target))
    return wasserstein(projected, wanted) / target.detach().std().clamp_min(1e-8)


def wasserstein(samples: Tensor, target: Tensor) -> Tensor:
    """The Wasserstein-1 distance of two sets of numbers (D, n) and (D, m), a mean over the D rows: a scalar.

    It is the area between their quantile functions. That of n numbers is constant on n equal intervals of [0, 1], so
    with different counts the area is a sum over the pieces of both partitions.
    """
    samples, target = samples.sort(dim=1).values, target.sort(dim=1).values
    n, m = samples.shape[1], target.shape[1]
    if n == m:
        return (samples - target).abs().mean()
    starts = torch.cat((torch.arange(n) * m, torch.arange(m) * n)).sort().values.to(samples.device)  # in 1 / (n m)
    lengths = starts.diff(append=starts.new_tensor([n * m])) / (n * m)
    pieces = (samples[:, starts // m] - target[:, starts // n]).abs() * lengths
    return pieces.sum(dim=1).mean()
