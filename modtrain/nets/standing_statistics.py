"""Buffers of a trained generator, computed for the weights that it is used with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

POWER_ITERATIONS = 15


def standing_statistics(net: nn.Module, draw: Callable[[], tuple[Tensor, ...]], batches: int = 16) -> None:
    """Set the statistics of batch normalisation to their means over some batches of inputs (Brock et al. 2019, B).

    Those that were gathered in training are of other weights, and for a moving average of weights of none. So are the
    vectors of spectral normalisation, which are brought to the weights before, by power iterations.
    """
    net.train()
    for layer in net.modules():
        for _ in range(POWER_ITERATIONS if is_parametrized(layer, "weight") else 0):
            _ = layer.weight  # computed anew, with an iteration, at each access
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(batches if layers else 0):
            net(*draw())
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
