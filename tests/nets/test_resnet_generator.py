"""The generator and the discriminator of CycleGAN against its published layout, written out here by hand."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from modtrain.nets.layers import patchgan
from modtrain.nets.resnet_generator import ResnetGenerator, normal_initialised


class Block(nn.Module):
    """`model.10` to `model.18` of the authors' generator: weights at `conv_block.1` and `conv_block.5`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels))
        again = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels))
        self.conv_block = nn.Sequential(*half, nn.ReLU(), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)  # type: ignore[no-any-return]


def published_generator(width: int, blocks: int) -> nn.Module:
    """The layers of `latest_net_G_A.pth`: `model.{1,4,7}`, `model.10` and on, then `u`, `u`, `c7s1-3`."""
    widths = [width, 2 * width, 4 * width]
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.InstanceNorm2d(outputs), nn.ReLU()]
    layers += [Block(4 * width) for _ in range(blocks)]
    for inputs, outputs in pairwise(reversed(widths)):
        layers += [nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1), nn.InstanceNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())
    return nn.ModuleDict({"model": model})


def published_discriminator(width: int) -> nn.Module:
    """The layers of `latest_net_D_A.pth`: weights at `model.{0,2,5,8,11}`."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for inputs, outputs, stride in ((width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride, 1), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.ModuleDict({"model": nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))})


def with_equal_weights(published: nn.Module, ours: nn.Module) -> nn.Module:
    """`published["model"]` with the weights of ours, in the order of the layers."""
    names = published.state_dict().keys()
    published.load_state_dict(dict(zip(names, ours.state_dict().values(), strict=True)))
    return published["model"]  # type: ignore[index, no-any-return]


def layers_of(published: nn.Module) -> set[str]:
    """Where the weights are, without the parts of a residual block."""
    return {name.rpartition(".")[0] for name in published.state_dict()}


def test_the_generator_is_the_published_one() -> None:
    published = published_generator(4, 9)
    blocks = {f"model.{index}.conv_block.{place}" for index in range(10, 19) for place in (1, 5)}
    assert layers_of(published) == {f"model.{index}" for index in (1, 4, 7, 19, 22, 26)} | blocks
    ours = normal_initialised(ResnetGenerator(4, 9))
    images = torch.rand(2, 3, 24, 32) * 2 - 1
    torch.testing.assert_close(ours(images), with_equal_weights(published, ours)(images))


def test_the_discriminator_is_the_published_one() -> None:
    published = published_discriminator(4)
    assert layers_of(published) == {f"model.{index}" for index in (0, 2, 5, 8, 11)}
    ours = patchgan(3, ((4, 2), (8, 2), (16, 2), (32, 1)), affine=False)
    images = torch.rand(2, 3, 48, 48) * 2 - 1
    torch.testing.assert_close(ours(images), with_equal_weights(published, ours)(images))


def test_a_logit_of_the_discriminator_sees_70_pixels() -> None:
    image = torch.zeros(1, 3, 128, 128, requires_grad=True)
    net = patchgan(3, ((4, 2), (8, 2), (16, 2), (32, 1)), norm="none")
    net(image)[0, 0, 7, 7].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_every_convolution_starts_with_normal_weights_and_without_bias() -> None:
    torch.manual_seed(0)
    net = normal_initialised(ResnetGenerator(16, 1))
    for name, weight in net.named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        else:
            assert 0.018 < float(weight.detach().std()) < 0.022, name
