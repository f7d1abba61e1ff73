"""The PatchGAN discriminator (pix2pix, Isola et al. 2017, section 3.2.2): one logit for each patch of its input.

The input is an image or an encoding, (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalised

from modtrain.nets.conv import Norm, normalisation


def patchgan(
    inputs: int, layers: Sequence[tuple[int, int]], *, norm: Norm = "instance", spectral_norm: bool = False
) -> nn.Sequential:
    """4x4 convolutions of `layers` (channels, stride) with leaky ReLU, then one 4x4 convolution to a map of logits.

    As in pix2pix the first layer is not normalised. `spectral_norm` bounds every layer's Lipschitz constant (Miyato et
    al. 2018). The result is (N, 1, H', W'): with strides 2, 1 an H of 64 gives an H' of 30.
    """

    def conv(channels: int, outputs: int, stride: int) -> nn.Module:
        layer = nn.Conv2d(channels, outputs, 4, stride=stride, padding=1)
        return spectrally_normalised(layer) if spectral_norm else layer

    stack: list[nn.Module] = []
    for index, (channels, stride) in enumerate(layers):
        stack.append(conv(inputs, channels, stride))
        if index > 0:
            stack.append(normalisation(norm, channels))
        stack.append(nn.LeakyReLU(0.2))
        inputs = channels
    return nn.Sequential(*stack, conv(inputs, 1, 1))
