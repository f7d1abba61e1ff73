"""The ResNet generator of CycleGAN (Zhu et al. 2017, section 7.2; Johnson et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from modtrain.nets.layers import c7s1, conv3x3, normalisation, up


class ResnetGenerator(nn.Sequential):
    """`c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-3`, tanh: images (N, 3, H, W) in [-1, 1] to the same shape.

    H and W are multiples of 4. Reflection padding in `c7s1` and `R`, zero padding in `d`, as in the authors' code;
    instance normalisation without scale and shift. The paper has a width of 64, 6 blocks up to 128 pixels, 9 from 256.
    """

    def __init__(self, width: int, blocks: int) -> None:
        first = (c7s1(3, width), normalisation("instance", width, affine=False), nn.ReLU())
        stem = (*first, *_down(2 * width), *_down(4 * width))
        body = (ResidualBlock(4 * width) for _ in range(blocks))
        head = (up(2 * width, "instance", affine=False), up(width, "instance", affine=False), c7s1(width, 3))
        super().__init__(*stem, *body, *head, nn.Tanh())


class ResidualBlock(nn.Module):
    """`Rk`: `x + f(x)` with f = conv, norm, ReLU, conv, norm; (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv, norm = conv3x3(channels, "dense"), normalisation("instance", channels, affine=False)
        again, normed = conv3x3(channels, "dense"), normalisation("instance", channels, affine=False)
        self.branch = nn.Sequential(conv, norm, nn.ReLU(), again, normed)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)  # type: ignore[no-any-return]


def _down(outputs: int) -> tuple[nn.Module, ...]:
    """`dk` with zero padding: convolution, normalisation, ReLU."""
    conv = nn.Conv2d(outputs // 2, outputs, 3, stride=2, padding=1)
    return conv, normalisation("instance", outputs, affine=False), nn.ReLU()
