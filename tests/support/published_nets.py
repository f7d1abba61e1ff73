"""The networks of other projects, written out by hand from their published layers and key names.

They are those of the CycleGAN and pix2pix project and, at the end, of SRGAN-PyTorch.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


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


def published_discriminator(width: int, inputs: int = 3, *, is_normalised_by_batch: bool = False) -> nn.Module:
    """The layers of `latest_net_D_A.pth`: weights at `model.{0,2,5,8,11}`; pix2pix normalises over the batch."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    norm = nn.BatchNorm2d if is_normalised_by_batch else nn.InstanceNorm2d
    for before, after, stride in ((width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)):
        convolution = nn.Conv2d(before, after, 4, stride, 1, bias=not is_normalised_by_batch)
        layers += [convolution, norm(after), nn.LeakyReLU(0.2)]
    return nn.ModuleDict({"model": nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))})


class PublishedLevel(nn.Module):
    """A level of the authors' generator, with its layers at the places that the keys of its file name."""

    def __init__(self, outside: int, width: int, inside: nn.Module | None = None, *, outermost: bool = False) -> None:
        super().__init__()
        self.outermost = outermost
        down = nn.Conv2d(3 if outermost else outside, width, 4, 2, 1, bias=False)
        above = nn.ConvTranspose2d(2 * width if inside else width, 3 if outermost else outside, 4, 2, 1, bias=outermost)
        if outermost:
            assert inside is not None
            layers = [down, inside, nn.ReLU(True), above, nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), above, nn.BatchNorm2d(outside)]
        else:
            layers = [nn.LeakyReLU(0.2, True), down, nn.BatchNorm2d(width), inside]
            layers += [nn.ReLU(True), above, nn.BatchNorm2d(outside)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(x)
        return made if self.outermost else torch.cat([x, made], 1)


def published_unet(width: int, levels: int) -> nn.Module:
    """The layers of `latest_net_G.pth` of pix2pix: `model.model`, with a level in each level."""
    level = PublishedLevel(8 * width, 8 * width)
    for _ in range(levels - 5):
        level = PublishedLevel(8 * width, 8 * width, level)
    for outside in (4 * width, 2 * width, width):
        level = PublishedLevel(outside, 2 * outside, level)
    return nn.ModuleDict({"model": PublishedLevel(3, width, level, outermost=True)})


class PublishedSrResNet(nn.Module):
    """The layers of `g_last.pth.tar` of SRGAN-PyTorch: `conv1`, `trunk`, `conv2`, `upsampling`, `conv3`; in [0, 1]."""

    def __init__(self, width: int, blocks: int, shuffles: int) -> None:
        super().__init__()

        def convolution() -> list[nn.Module]:
            return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]

        def within(name: str, *layers: nn.Module) -> nn.Module:
            return nn.ModuleDict({name: nn.Sequential(*layers)})

        self.conv1 = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.trunk = nn.Sequential(
            *(within("rcb", *convolution(), nn.PReLU(), *convolution()) for _ in range(blocks)),
        )
        self.conv2 = nn.Sequential(*convolution())
        up = [
            within("upsample_block", nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
            for _ in range(shuffles)
        ]
        self.upsampling = nn.Sequential(*up)
        self.conv3 = nn.Conv2d(width, 3, 9, padding=4)

    def forward(self, images: Tensor) -> Tensor:
        first = maps = self.conv1(images)
        for block in self.trunk:
            maps = maps + block["rcb"](maps)
        maps = first + self.conv2(maps)
        for block in self.upsampling:
            maps = block["upsample_block"](maps)
        return self.conv3(maps).clamp(0, 1)  # type: ignore[no-any-return]
