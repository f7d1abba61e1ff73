"""The networks of BigGAN (Brock et al. 2019, appendix B) at any power of two from 32 pixels on.

A generator of residual blocks, each of which doubles the edge, and a discriminator of residual blocks that halve it;
both with self-attention (Zhang et al. 2019) on maps of one edge. The layouts are those of the authors' PyTorch code
(github.com/ajbrock/BigGAN-PyTorch), which has 32 to 512 pixels; a larger image has more blocks of one `width`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.nets.layers import channels_last, spectrally_normalised
from modtrain.nets.orthogonal import orthogonal_initialised

SMALLEST = 4
"""Edge of the generator's first feature maps."""
SPECTRAL_EPS = 1e-6
MULTIPLES = {32: (4, 4, 4), 64: (16, 8, 4, 2), 128: (16, 8, 4, 2, 1), 256: (16, 8, 8, 4, 2, 1)}
"""Channels of the generator's blocks by the size of the image, as multiples of its width."""
JUDGED = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16)}
"""The same of the discriminator, where they are not those of the generator in the other order and 16 once more."""


class Level(NamedTuple):
    """A residual block: what it is built with."""

    inputs: int
    outputs: int
    edge: int
    """Edge of the maps that it makes."""
    resizes: bool
    """Whether it doubles or halves the edge."""


def generator_levels(width: int, size: int) -> list[Level]:
    """The blocks of a generator, from 4 pixels on. The first one has as many input channels as output channels."""
    multiples = _multiples(size)
    channels = [width * multiple for multiple in (multiples[0], *multiples)]
    return [Level(*pair, SMALLEST << number, True) for number, pair in enumerate(pairwise(channels), 1)]


def discriminator_levels(width: int, size: int) -> list[Level]:
    """The blocks of a discriminator: they halve the edge to 4 pixels, of an image of 32 to 8; the others keep it."""
    multiples = JUDGED.get(size) or (*reversed(_multiples(size)), 16)
    halvings = 2 if size == 32 else len(multiples) - 1
    channels = [3, *(width * multiple for multiple in multiples)]
    edges = [size >> min(number, halvings) for number in range(1, len(channels))]
    return [Level(*pair, edges[number], number < halvings) for number, pair in enumerate(pairwise(channels))]


def _multiples(size: int) -> Sequence[int]:
    largest = max(MULTIPLES)
    return MULTIPLES[size] if size <= largest else (*MULTIPLES[largest], *[1] * (size // largest).bit_length())[:-1]


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a gain 1 + A y and a bias B y for each image, linear in its condition y (N, D)."""

    def __init__(self, channels: int, condition: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.gain = nn.Linear(condition, channels, bias=False)
        self.bias = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return torch.addcmul(bias[..., None, None], self.norm(x), gain[..., None, None])


class SelfAttention(nn.Module):
    """Each position of a map attends to all others: x + gamma * o(g softmax(theta' phi)'), with gamma 0 at first.

    1x1 convolutions without bias: theta and phi of C / 8 channels, g of C / 2; phi and g are max-pooled by 2, so that
    the attention has a quarter of the entries (Zhang et al. 2019, equations 1 to 3, and the authors' code).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (
            nn.Conv2d(channels, max(1, channels // part), 1, bias=False) for part in (8, 8, 2)
        )
        self.o = nn.Conv2d(max(1, channels // 2), channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        theta = self.theta(x).flatten(2)
        phi, g = (F.max_pool2d(layer(x), 2).flatten(2) for layer in (self.phi, self.g))
        weights = torch.softmax(theta.transpose(1, 2) @ phi, -1)
        attended = (g @ weights.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:])
        return x + self.gamma * self.o(attended)  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """BN, ReLU, twice the edge, 3x3, BN, ReLU, 3x3; beside it twice the edge and 1x1 (figure 15 b of the paper)."""

    def __init__(self, level: Level, condition: int, eps: float) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(level.inputs, condition, eps)
        self.conv1 = nn.Conv2d(level.inputs, level.outputs, 3, padding=1)
        self.norm2 = ConditionalBatchNorm(level.outputs, condition, eps)
        self.conv2 = nn.Conv2d(level.outputs, level.outputs, 3, padding=1)
        self.skip = nn.Conv2d(level.inputs, level.outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, 2H, 2W)."""
        h = self.conv1(_doubled(F.relu(self.norm1(x, condition))))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + _doubled(self.skip(x))  # type: ignore[no-any-return]  # 1x1 before doubling: the same, in a quarter


class DownBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, half the edge; beside it 1x1 and half the edge (figure 15 c of the paper).

    The first block of a network begins without ReLU, and one that keeps edge and channels has no 1x1.
    """

    def __init__(self, level: Level, *, first: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(level.inputs, level.outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(level.outputs, level.outputs, 3, padding=1)
        has_skip = level.resizes or level.inputs != level.outputs
        self.skip = nn.Conv2d(level.inputs, level.outputs, 1) if has_skip else nn.Identity()
        self.first, self.halves = first, level.resizes

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / 2, W / 2), or the same edges."""
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.halves:
            return h + self.skip(x)  # type: ignore[no-any-return]
        return F.avg_pool2d(h, 2) + self.skip(F.avg_pool2d(x, 2))  # type: ignore[no-any-return]  # in either order


class Generator(nn.Module):
    """Noise (N, noise_size) and labels (N,) to images (N, 3, size, size) in [-1, 1].

    The noise is cut into equal chunks, one for the first layer and one for each block (hierarchical z). The condition
    of a block is the embedding of the label, which all blocks share, followed by its chunk.
    """

    def __init__(
        self, classes: int, noise_size: int, shared_size: int, width: int, size: int, *, attention: int, eps: float
    ) -> None:
        super().__init__()
        levels = generator_levels(width, size)
        self.chunks = len(levels) + 1
        chunk = noise_size // self.chunks
        self.shared = nn.Embedding(classes, shared_size)
        self.first = nn.Linear(chunk, levels[0].inputs * SMALLEST**2)
        self.blocks = nn.ModuleList(UpBlock(level, shared_size + chunk, eps) for level in levels)
        self.attention = _attention(levels, attention)
        self.norm = nn.BatchNorm2d(levels[-1].outputs, eps=eps)
        self.last = nn.Conv2d(levels[-1].outputs, 3, 3, padding=1)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        first, *others = noise.chunk(self.chunks, 1)
        shared = self.shared(labels)
        h = self.first(first).unflatten(1, (-1, SMALLEST, SMALLEST))
        for number, (block, chunk) in enumerate(zip(self.blocks, others, strict=True)):
            h = block(h, torch.cat([shared, chunk], 1))
            h = self.attention[str(number)](h) if str(number) in self.attention else h
        return torch.tanh(self.last(F.relu(self.norm(h))))


class Discriminator(nn.Module):
    """Images (N, 3, size, size) and labels (N,) to logits (N,).

    ReLU and the sum over all positions give features h; a logit is a linear function of h plus the inner product of h
    and the embedding of the label (the projection of Miyato and Koyama 2018, equation 5).
    """

    def __init__(self, classes: int, width: int, size: int, *, attention: int) -> None:
        super().__init__()
        levels = discriminator_levels(width, size)
        self.blocks = nn.ModuleList(DownBlock(level, first=not number) for number, level in enumerate(levels))
        self.attention = _attention(levels, attention)
        self.logit = nn.Linear(levels[-1].outputs, 1)
        self.embedding = nn.Embedding(classes, levels[-1].outputs)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        h = images
        for number, block in enumerate(self.blocks):
            h = block(h)
            h = self.attention[str(number)](h) if str(number) in self.attention else h
        features = F.relu(h).sum((2, 3))
        logits: Tensor = self.logit(features).squeeze(1) + (self.embedding(labels) * features).sum(1)
        return logits


def _attention(levels: Sequence[Level], edge: int) -> nn.ModuleDict:
    """Self-attention behind the first block that makes maps of this edge, by the number of the block."""
    found = [(number, level) for number, level in enumerate(levels) if level.edge == edge]
    return nn.ModuleDict({str(number): SelfAttention(level.outputs) for number, level in found[:1]})


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


def initialised(net: Generator | Discriminator) -> nn.Module:
    """`net` with orthogonal initial weights, then with spectral normalisation of every layer that has any.

    As in the authors' code all convolutions, linear layers and embeddings are normalised but the embedding that the
    blocks of a generator share, with which it would learn nothing.
    """
    orthogonal_initialised(net)
    layers = (nn.Conv2d, nn.Linear, nn.Embedding)
    return channels_last(spectrally_normalised(net, layers, excepting=[getattr(net, "shared", None)], eps=SPECTRAL_EPS))
