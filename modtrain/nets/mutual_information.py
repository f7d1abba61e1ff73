"""Mutual information by a statistics network, MINE (Belghazi et al. 2018): the estimate, its training, and its use.

A network T(x, z) is trained to tell pairs of the joint distribution from pairs of independent draws. Then the
Donsker-Varadhan bound E[T(x, z)] - log E[exp T(x, z')] approaches I(X; Z), in nats.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.nets.dcgan import channels


class StatisticsNetwork(nn.Module):
    """T(x, z) of images and their noise, (N, 3, size, size) and (N, noise_size) to (N,).

    At each scale a 4x4 convolution of stride 2 on the image, plus a linear map of the noise, and ELU; without
    normalisation over the batch, which would make the statistic of a pair depend on other pairs.
    """

    def __init__(self, noise_size: int, width: int, size: int) -> None:
        super().__init__()
        widths = [3, *channels(width, size)]
        self.images = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.noises = nn.ModuleList(nn.Linear(noise_size, outputs) for outputs in widths[1:])
        self.last = nn.Conv2d(widths[-1], 1, 4)
        self.register_buffer("log_mean", torch.zeros(()))  # of the moving average of exp T, where T begins about 0

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """The statistic of each pair."""
        for of_image, of_noise in zip(self.images, self.noises, strict=True):
            images = F.elu(of_image(images) + of_noise(noise)[..., None, None])
        result: Tensor = self.last(images)
        return result.flatten()


def information(joint: Tensor, independent: Tensor) -> Tensor:
    """The Donsker-Varadhan bound from the statistics of joint and of independent pairs (N,); a scalar, in nats."""
    return joint.mean() - log_mean_exp(independent)


def log_mean_exp(statistics: Tensor) -> Tensor:
    """log E[exp T], a scalar."""
    result: Tensor = statistics.logsumexp(0) - math.log(len(statistics))
    return result


def statistics_loss(joint: Tensor, independent: Tensor, log_mean: Tensor, *, rate: float = 0.01) -> Tensor:
    """A loss with the bias-corrected gradient of the bound (equation 12); a scalar.

    The gradient of log E[exp T] over a batch is biased, since the expectation is in a denominator. It is replaced by
    its moving average, whose logarithm `log_mean` is updated in place with `rate`.
    """
    with torch.no_grad():
        log_mean.copy_(torch.logaddexp(log_mean + math.log1p(-rate), log_mean_exp(independent) + math.log(rate)))
    loss: Tensor = (independent - log_mean).exp().mean() - joint.mean()
    return loss


def with_clipped(gradient: Tensor, other: Tensor) -> Tensor:
    """`gradient` plus `other`, which is scaled down to the norm of the first where it is longer (appendix 8.1.1)."""
    longest, length = gradient.norm(), other.norm()
    share: Tensor = torch.minimum(longest, length) / length.clamp_min(1e-12)
    return gradient + share * other
