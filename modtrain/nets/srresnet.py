"""SRResNet and the discriminator of SRGAN (Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a
Generative Adversarial Network", section 2.1 and figure 4), in any width and depth.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "none"]
Skip = Literal["none", "bicubic"]
STRIDES = 4
"""Times that the discriminator halves the edges."""


def shuffle_factors(scale: int) -> list[int]:
    """The factors by which pixel shuffles enlarge, one after the other: twos, or a single 3. Raises ValueError."""
    twos = scale.bit_length() - 1
    if scale != 3 and (scale < 2 or scale != 1 << twos):
        raise ValueError(f"scale = {scale} is not allowed; it is 3, or a power of two from 2 on")
    return [3] if scale == 3 else [2] * twos


def bicubic(images: Tensor, scale: int) -> Tensor:
    """Images (N, C, H, W) enlarged by bicubic interpolation to (N, C, scale x H, scale x W).

    Its kernel is that of Pillow and MATLAB (a = -0.5), which torch has only where it is told to antialias.
    """
    return F.interpolate(images, scale_factor=scale, mode="bicubic", antialias=True)


class ResidualBlock(nn.Module):
    """`x + f(x)` with f = 3x3 convolution, normalisation, PReLU, 3x3 convolution, normalisation."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_convolution(width, norm), nn.PReLU(), *_convolution(width, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class SrResNet(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] to (N, 3, scale x H, scale x W), about in [-1, 1]: nothing clips the result.

    A 9x9 convolution with PReLU; `blocks` residual blocks and a 3x3 convolution, with a skip over all of them; for each
    factor of the scale a 3x3 convolution, a pixel shuffle and PReLU; a 9x9 convolution. The layers see images in
    [0, 1]. With `norm` "none" there is no batch normalisation (as in EDSR, Lim et al. 2017); with `skip` "bicubic" the
    network begins as bicubic interpolation, to which it adds what that lacks.
    """

    def __init__(self, width: int, blocks: int, scale: int, *, norm: Norm = "batch", skip: Skip = "none") -> None:
        super().__init__()
        self.scale, self.skip, self.factors = scale, skip, shuffle_factors(scale)
        self.head = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(ResidualBlock(width, norm) for _ in range(blocks)))
        self.tail = nn.Sequential(*_convolution(width, norm))
        self.upsampling = nn.Sequential(*(_upsampling(width, factor) for factor in self.factors))
        self.out = nn.Conv2d(width, 3, 9, padding=4)
        if skip == "bicubic":
            for weight in self.out.parameters():
                nn.init.zeros_(weight)

    @property
    def reach(self) -> int:
        """How many pixels of the given image around a pixel its enlargement depends on."""
        at, reach = 1, 4 + 2 * len(self.blocks) + 1.0
        for factor in self.factors:
            reach, at = reach + 1 / at, at * factor
        return math.ceil(reach + 4 / at)

    def forward(self, images: Tensor) -> Tensor:
        first = self.head((images + 1) / 2)
        made = self.out(self.upsampling(first + self.tail(self.blocks(first)))) * 2
        return made + bicubic(images, self.scale) if self.skip == "bicubic" else made - 1  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """Images (N, 3, size, size) to logits (N,); `size` is a multiple of 16.

    3x3 convolutions of `width` channels, doubled three times, each again with stride 2; batch normalisation but in the
    first; leaky ReLU; two dense layers.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        inputs = width
        for number in range(1, 2 * STRIDES):
            outputs, stride = width << number // 2, 1 + number % 2
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        cells = (size >> STRIDES) ** 2
        self.classes = nn.Sequential(
            nn.Linear(inputs * cells, 16 * width), nn.LeakyReLU(0.2), nn.Linear(16 * width, 1), nn.Flatten(0)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.convolutions(images))  # type: ignore[no-any-return]


def _convolution(width: int, norm: Norm) -> list[nn.Module]:
    """A 3x3 convolution; before batch normalisation it has no bias."""
    if norm == "none":
        return [nn.Conv2d(width, width, 3, padding=1)]
    return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]


def _upsampling(width: int, factor: int) -> nn.Sequential:
    """Convolution, pixel shuffle, PReLU.

    The pixels that it makes of one begin equal (Aitken et al. 2017, "Checkerboard artifact free sub-pixel
    convolution"): otherwise a pattern of that size is in the images long before it is unlearnt.
    """
    convolution = nn.Conv2d(width, factor**2 * width, 3, padding=1)
    with torch.no_grad():
        for weight in convolution.parameters():
            weight.copy_(weight[:: factor**2].repeat_interleave(factor**2, 0))
    return nn.Sequential(convolution, nn.PixelShuffle(factor), nn.PReLU())
