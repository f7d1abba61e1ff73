"""The residual block of CycleGAN's generator (Zhu et al. 2017, section 7.2, `Rk`), dense or depthwise-separable."""

from __future__ import annotations

from torch import Tensor, nn

from modtrain.nets.conv import Conv, Norm, conv3x3, normalisation


class ResnetBlock(nn.Module):
    """`x + f(x)` with f = conv, norm, ReLU, conv, norm; (N, C, H, W) to the same shape.

    f starts at zero (Goyal et al. 2017, section 5.1: the last scale of every block), so that a stack of blocks starts
    as the identity.
    """

    def __init__(self, channels: int, *, conv: Conv = "dense", norm: Norm = "instance") -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(channels, conv),
            normalisation(norm, channels),
            nn.ReLU(),
            conv3x3(channels, conv),
            normalisation(norm, channels),
        )
        start_at_zero(self.branch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.branch(x)  # type: ignore[no-any-return]


def start_at_zero(branch: nn.Sequential) -> None:
    """Set the last layer that has weights to zero, so that `branch` returns 0."""
    last = [layer for layer in branch.modules() if isinstance(layer, nn.Conv2d | nn.InstanceNorm2d)][-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
