"""The networks of "Progressive Growing of GANs" (Karras et al., ICLR 2018), with every level from the start.

Level 0 has images of 4 pixels, and each further one twice as many. What is used of a network says its `Growth`, so that
names and shapes of the weights never change, as in the published code. Feature maps are (N, C, H, W).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.nets.layers import Conv

SMALLEST = 4
"""Edge of the images of level 0."""
EPSILON = 1e-8
SLOPE = 0.2
GROUP = 4
"""Images over which a deviation of the minibatch is taken, at most."""


class Growth(NamedTuple):
    """How far a network has grown."""

    level: int
    alpha: float = 1.0
    """The share of this level in the image, beside the level below: from 0 to 1 while it is faded in."""

    @property
    def size(self) -> int:
        """Edge of the images in pixels."""
        return SMALLEST << self.level


def level_of(size: int) -> int:
    """The level with images of this edge, a power of two."""
    return (size // SMALLEST).bit_length() - 1


def widths(base: int, most: int, size: int) -> list[int]:
    """Channels by level: `base` / 2 at 4 pixels, at each further level half as many, and at most `most` (table 2).

    The published networks have base 8192 and most 512.
    """
    return [max(1, min(base >> (level + 1), most)) for level in range(level_of(size) + 1)]


class Equalised(nn.Module):
    """A convolution with an equalised learning rate (section 4.1).

    Its weight is drawn from N(0, 1), and divided by the standard deviation that He's initialisation would give it at
    each use: `gain` / sqrt(inputs of an output). So an optimizer whose steps do not depend on the scale of a gradient
    changes all layers at the same relative rate.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 1,
        *,
        padding: int = 0,
        gain: float = math.sqrt(2),
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs // groups, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(self.weight[0].numel())
        self.padding, self.groups = padding, groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H', W')."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding, groups=self.groups)


class FromNoise(nn.Module):
    """The first layer of the generator: (N, C, 1, 1) to (N, C', 4, 4), with the published gain of a quarter."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, SMALLEST, SMALLEST))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2) / 4 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight * self.scale, self.bias)


def conv3x3(inputs: int, outputs: int, conv: Conv) -> nn.Module:
    """A zero-padded 3x3 convolution with an equalised rate.

    `separable` is a depthwise one and a pointwise one, each with a rate of its own: 9M + MN multiply-accumulates a
    position instead of 9MN for M inputs and N outputs (Karwande et al., equations 1 to 3).
    """
    if conv == "dense":
        return Equalised(inputs, outputs, 3, padding=1)
    depthwise = Equalised(inputs, inputs, 3, padding=1, gain=1.0, groups=inputs, bias=False)
    return nn.Sequential(depthwise, Equalised(inputs, outputs))


def pixel_norm(x: Tensor) -> Tensor:
    """Each position divided by the root mean square over its channels (section 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


def with_minibatch_deviation(x: Tensor) -> Tensor:
    """`x` with one more map: the standard deviation over the images of a group, averaged over the rest (section 3).

    Image i is in the group of the images i, i + N/4, i + N/2 and so on. A batch that 4 does not divide has smaller
    groups, of the largest size that does.
    """
    count = len(x)
    size = next(size for size in range(min(GROUP, count), 0, -1) if count % size == 0)
    groups = x.view(size, count // size, *x.shape[1:])
    variance = (groups - groups.mean(0)).square().mean(0)
    deviation = (variance + EPSILON).sqrt().mean((1, 2, 3)).repeat(size)
    return torch.cat([x, deviation.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])], 1)


def enlarged(x: Tensor) -> Tensor:
    """Twice the edges; each pixel becomes four."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def shrunk(x: Tensor) -> Tensor:
    """Half the edges; each pixel is the mean of four."""
    return F.avg_pool2d(x, 2)


def faded(images: Tensor, growth: Growth) -> Tensor:
    """Real images as a discriminator should see them while a level is faded in: blended with those of half the size."""
    return images if growth.alpha == 1 else torch.lerp(enlarged(shrunk(images)), images, growth.alpha)


class Generator(nn.Module):
    """Noise (N, noise_size) to images (N, 3, size, size), without a bound on their values: there is no tanh.

    From 4 pixels on, each level doubles the edges and has two 3x3 convolutions with leaky ReLU and `pixel_norm`; level
    0 has one. Each has its own 1x1 convolution to RGB.
    """

    grown: Tensor

    def __init__(self, noise_size: int, channels: Sequence[int], conv: Conv = "dense") -> None:
        """`channels` by level, from 4 pixels on."""
        super().__init__()
        self.first = FromNoise(noise_size, channels[0])
        levels = [nn.ModuleList([conv3x3(channels[0], channels[0], conv)])]
        for inputs, outputs in itertools.pairwise(channels):
            levels.append(nn.ModuleList([conv3x3(inputs, outputs, conv), conv3x3(outputs, outputs, conv)]))
        self.levels = nn.ModuleList(levels)
        self.to_rgb = nn.ModuleList(Equalised(width, 3, gain=1.0) for width in channels)
        self.register_buffer("grown", torch.tensor([len(channels) - 1.0, 1.0]))

    @property
    def growth(self) -> Growth:
        """How far the weights have grown, which is published with them."""
        level, alpha = self.grown.tolist()
        return Growth(int(level), alpha)

    def grow(self, growth: Growth) -> None:
        """Note how far the weights have grown."""
        self.grown.copy_(torch.tensor(growth))

    def forward(self, noise: Tensor, growth: Growth | None = None) -> Tensor:
        """The images at a growth; without one, at that of the weights."""
        level, alpha = growth or self.growth
        x = _activated(self.first(pixel_norm(noise[..., None, None])))
        below = x
        for number in range(level + 1):
            below, x = x, enlarged(x) if number else x
            for conv in self.levels[number]:  # type: ignore[attr-defined]
                x = _activated(conv(x))
        images: Tensor = self.to_rgb[level](x)
        return images if alpha == 1 else torch.lerp(enlarged(self.to_rgb[level - 1](below)), images, alpha)


def _activated(x: Tensor) -> Tensor:
    return pixel_norm(F.leaky_relu(x, SLOPE))


class Discriminator(nn.Module):
    """Images (N, 3, size, size) to a score (N,): the generator mirrored, with means over 2x2 pixels between levels.

    At 4 pixels it has the deviation of the minibatch as a map, a 3x3 convolution and two dense layers.
    """

    def __init__(self, channels: Sequence[int], conv: Conv = "dense") -> None:
        """`channels` by level, from 4 pixels on."""
        super().__init__()
        self.from_rgb = nn.ModuleList(Equalised(3, width) for width in channels)
        levels = [nn.ModuleList([conv3x3(channels[0] + 1, channels[0], conv)])]
        for outputs, inputs in itertools.pairwise(channels):
            levels.append(nn.ModuleList([conv3x3(inputs, inputs, conv), conv3x3(inputs, outputs, conv)]))
        self.levels = nn.ModuleList(levels)
        self.dense = Equalised(channels[0], channels[0], SMALLEST)
        self.score = Equalised(channels[0], 1, gain=1.0)

    def forward(self, images: Tensor, growth: Growth) -> Tensor:
        """The scores of images of this growth."""
        level, alpha = growth
        x = F.leaky_relu(self.from_rgb[level](images), SLOPE)
        for number in range(level, -1, -1):
            x = x if number else with_minibatch_deviation(x)
            for conv in self.levels[number]:  # type: ignore[attr-defined]
                x = F.leaky_relu(conv(x), SLOPE)
            x = shrunk(x) if number else x
            if number == level and alpha < 1:
                below = F.leaky_relu(self.from_rgb[level - 1](shrunk(images)), SLOPE)
                x = torch.lerp(below, x, alpha)
        return self.score(F.leaky_relu(self.dense(x), SLOPE)).flatten()  # type: ignore[no-any-return]
