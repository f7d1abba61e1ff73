"""The networks of DCGAN (Radford et al. 2016) for images of any power of two, as PyTorch's examples lay them out.

Between noise and image the edge doubles from 4 pixels on, and the channels halve to `width` at half the edge: 512, 256,
128, 64 for 64 pixels at width 64. Without dropout and spectral normalisation, names and shapes of the weights are those
of `netG` and `netD` in the examples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from modtrain.nets.layers import channels_last, normal_initialised, spectrally_normalised

Norm = Literal["batch", "none"]
SMALLEST = 4
"""Edge of the smallest feature maps."""


class Generator(nn.Sequential):
    """4x4 transposed convolutions with batch normalisation and ReLU, then tanh: (N, noise_size) to (N, 3, size, size).

    `main.0` is the one from noise to 4 pixels, every other one has stride 2.
    """

    def __init__(self, noise_size: int, width: int, size: int, *, norm: Norm = "batch") -> None:
        inputs, layers = noise_size, list[nn.Module]()
        for level, outputs in enumerate(reversed(channels(width, size))):
            stride, padding = (2, 1) if level else (1, 0)
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=norm == "none"))
            layers += [nn.BatchNorm2d(outputs)] if norm == "batch" else []
            layers.append(nn.ReLU())
            inputs = outputs
        super().__init__(*layers, nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (N, noise_size) to images (N, 3, size, size) in [-1, 1]."""
        return super().forward(noise[..., None, None])  # type: ignore[no-any-return,no-untyped-call]


class Discriminator(nn.Sequential):
    """4x4 convolutions of stride 2 with leaky ReLU, from `width` channels on doubling: (N, 3, size, size) to (N,).

    Batch normalisation and dropout follow each but the first and the last one. The result is a logit.
    """

    def __init__(self, width: int, size: int, *, norm: Norm = "batch", dropout: float = 0.0) -> None:
        inputs, layers = 3, list[nn.Module]()
        for level, outputs in enumerate(channels(width, size)):
            is_plain = level == 0 or norm == "none"
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=norm == "none"))
            layers += [] if is_plain else [nn.BatchNorm2d(outputs)]
            layers.append(nn.LeakyReLU(0.2))
            layers += [nn.Dropout(dropout)] if dropout and level else []
            inputs = outputs
        super().__init__(*layers, nn.Conv2d(inputs, 1, 4, 1, 0, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, size, size) to logits (N,)."""
        return super().forward(images).flatten()  # type: ignore[no-any-return,no-untyped-call]


def channels(width: int, size: int) -> list[int]:
    """Channels of the feature maps by level, from the largest maps, of half the edge of the image, to 4x4 pixels."""
    return [width * 2**level for level in range(int(math.log2(size / SMALLEST)))]


def initialised(net: nn.Module, *, spectral_norm: bool) -> nn.Module:
    """`net` with the published initial weights, and then with each convolution spectrally normalised where asked for.

    In this order: the weight of a normalised layer is computed anew at each access, so that drawing into it does
    nothing.
    """
    normal_initialised(net)
    return channels_last(spectrally_normalised(net) if spectral_norm else net)


def example_names(net: nn.Module) -> dict[str, str]:
    """Names in the files of PyTorch's examples by those of our networks: `main.0.weight`."""
    return {name: f"main.{name}" for name in net.state_dict()}


def generator_params(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Parameters of the recipe that follow from the tensors of a `netG` file, nothing where it is another network."""
    shapes = _shapes(tensors)
    if not shapes:
        return {}
    return {"noise_size": shapes[0][0], **_sizes(shapes), "generator": {"width": shapes[-1][0]}}


def discriminator_params(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same of a `netD` file."""
    shapes = _shapes(tensors)
    if not shapes:
        return {}
    is_plain = "main.3.running_mean" in tensors and "main.5.weight" in tensors  # dropout would be main.5
    return {**_sizes(shapes), "discriminator": {"width": shapes[0][0]} | ({"dropout": 0.0} if is_plain else {})}


def _shapes(tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    """Shapes of the weights of the convolutions, in their order."""
    found = ((re.fullmatch(r"main\.(\d+)\.weight", name), value) for name, value in tensors.items())
    numbered = {int(match[1]): tuple(value.shape) for match, value in found if match and value.dim() == 4}
    return [numbered[number] for number in sorted(numbered)]


def _sizes(shapes: list[tuple[int, ...]]) -> dict[str, int]:
    size = SMALLEST * 2 ** (len(shapes) - 1)
    return {"load_size": size, "crop_size": size}
