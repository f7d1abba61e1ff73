"""Layers of CycleGAN and pix2pix: convolutions, normalisation, residual block, PatchGAN discriminator, padding.

Feature maps are (N, C, H, W). The letters are those of Johnson et al. 2016 and CycleGAN (Zhu et al. 2017, section 7.2):
`c7s1-k`, `dk`, `uk` and `Rk`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized

Conv = Literal["dense", "separable"]
Norm = Literal["instance", "none"]
PatchNorm = Literal["instance", "batch", "none"]


def normalisation(norm: PatchNorm, channels: int, *, affine: bool = True) -> nn.Module:
    """Instance (Ulyanov et al. 2016) or batch normalisation, `affine` with a learnt scale and shift, or nothing."""
    if norm == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    return nn.InstanceNorm2d(channels, affine=affine) if norm == "instance" else nn.Identity()


def conv3x3(channels: int, conv: Conv) -> nn.Module:
    """A reflection-padded 3x3 convolution that keeps the shape.

    `separable` is a depthwise 3x3 followed by a pointwise 1x1 (MobileNet, Howard et al. 2017, section 3.1): 9C + C*C
    multiply-accumulates a position instead of 9C*C, which is 8.7 times fewer at 256 channels.
    """
    if conv == "dense":
        return nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1),
    )


def c7s1(inputs: int, outputs: int) -> nn.Conv2d:
    """`c7s1-k`: a reflection-padded 7x7 convolution with stride 1, without normalisation and activation."""
    return nn.Conv2d(inputs, outputs, 7, padding=3, padding_mode="reflect")


def down(outputs: int, norm: Norm) -> nn.Sequential:
    """`dk`: 3x3 convolution with stride 2, from k/2 to k channels, normalisation, ReLU. Halves height and width."""
    conv = nn.Conv2d(outputs // 2, outputs, 3, stride=2, padding=1, padding_mode="reflect")
    return nn.Sequential(conv, normalisation(norm, outputs), nn.ReLU())


def up(outputs: int, norm: Norm, *, affine: bool = True) -> nn.Sequential:
    """`uk`: 3x3 convolution with stride 1/2, from 2k to k channels, normalisation, ReLU. Doubles height and width."""
    conv = nn.ConvTranspose2d(outputs * 2, outputs, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(conv, normalisation(norm, outputs, affine=affine), nn.ReLU())


class ResnetBlock(nn.Module):
    """`Rk`: `x + f(x)` with f = conv, norm, ReLU, conv, norm; (N, C, H, W) to the same shape.

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
        last = [layer for layer in self.branch.modules() if isinstance(layer, nn.Conv2d | nn.InstanceNorm2d)][-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.branch(x)  # type: ignore[no-any-return]


def patchgan(
    inputs: int,
    layers: Sequence[tuple[int, int]],
    *,
    norm: PatchNorm = "instance",
    affine: bool = True,
    spectral_norm: bool = False,
) -> nn.Sequential:
    """PatchGAN (pix2pix, Isola et al. 2017, section 3.2.2): one logit for each patch of an image or an encoding.

    4x4 convolutions of `layers` (channels, stride) with leaky ReLU, then one 4x4 convolution to a map of logits. As in
    pix2pix the first layer is not normalised, and one before batch normalisation has no bias. `spectral_norm` bounds
    every layer's Lipschitz constant (Miyato et al. 2018). The result is (N, 1, H', W'): with strides 2, 1 an H of 64
    gives an H' of 30.
    """

    stack: list[nn.Module] = []
    for index, (channels, stride) in enumerate(layers):
        has_bias = index == 0 or norm != "batch"
        stack.append(nn.Conv2d(inputs, channels, 4, stride=stride, padding=1, bias=has_bias))
        if index > 0:
            stack.append(normalisation(norm, channels, affine=affine))
        stack.append(nn.LeakyReLU(0.2))
        inputs = channels
    net = nn.Sequential(*stack, nn.Conv2d(inputs, 1, 4, padding=1))
    if spectral_norm:
        spectrally_normalised(net)
    return net


def spectrally_normalised(
    net: nn.Module,
    layers: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d),
    *,
    excepting: Collection[nn.Module | None] = (),
    eps: float = 1e-12,
) -> nn.Module:
    """`net` with the weight of these layers divided by its largest singular value; in place (Miyato et al. 2018).

    Initial weights have to be drawn before: the weight is computed anew at each access, so drawing into it is lost.
    """
    for layer in list(net.modules()):
        if isinstance(layer, layers) and layer not in excepting:
            parametrizations.spectral_norm(layer, eps=eps)
    return net


def channels_last(net: nn.Module) -> nn.Module:
    """`net` with weights in the memory format that has the channels of a pixel side by side; in place.

    Layers give their results the format of their weights. Values stay the same to rounding, names and files altogether.
    Networks of few channels are faster so on a CPU: that of `dcgan` takes 0.7 of the time, that of `biggan` 0.6.
    """
    return net.to(memory_format=torch.channels_last)


def normal_initialised(net: nn.Module, std: float = 0.02) -> nn.Module:
    """`net` with the weights of its convolutions drawn from N(0, std), biases 0 (CycleGAN, section 7.1); in place.

    Scales of batch normalisation are drawn from N(1, std), as in the code of CycleGAN and pix2pix.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert not is_parametrized(layer), "drawn into a computed weight, the initial weights are lost"
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=std)
    return net


def pad_to_multiple(images: Tensor, multiple: int, *, least: int = 2) -> Tensor:
    """Pad images (N, C, H, W) on the right and below, by reflection, to multiples of `multiple`, at least `least`.

    A network can then be applied to any size. Crop the result to [..., :H, :W] to undo it.
    """
    height, width = images.shape[-2:]
    right, below = (max(least * multiple, -(-edge // multiple) * multiple) - edge for edge in (width, height))
    # Reflection needs more pixels than it adds; an image of a few pixels is padded with its edge.
    mode = "reflect" if right < width and below < height else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)


def in_batches(net: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """`net` without gradients on images (N, 3, H, W), `size` at a time."""
    with torch.no_grad():
        return torch.cat([net(part) for part in torch.split(images, size)])
