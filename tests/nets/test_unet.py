"""The generator and the discriminator of pix2pix against their published layout, written out here by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modtrain.nets.layers import normal_initialised, patchgan
from modtrain.nets.unet import UnetGenerator

DISCRIMINATOR = ((64, 2), (128, 2), (256, 2), (512, 1))


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


def published(width: int, levels: int) -> nn.Module:
    level = PublishedLevel(8 * width, 8 * width)
    for _ in range(levels - 5):
        level = PublishedLevel(8 * width, 8 * width, level)
    for outside in (4 * width, 2 * width, width):
        level = PublishedLevel(outside, 2 * outside, level)
    return nn.ModuleDict({"model": PublishedLevel(3, width, level, outermost=True)})


def test_the_generator_is_the_published_one_with_the_published_keys() -> None:
    ours, theirs = normal_initialised(UnetGenerator(2, 6)), published(2, 6)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    ours.eval()  # without dropout
    torch.testing.assert_close(ours(images), theirs.eval()["model"](images))  # type: ignore[index]


def test_at_the_papers_sizes_the_networks_have_the_published_numbers_of_weights_and_30x30_logits() -> None:
    sizes = [sum(weight.numel() for weight in net.parameters()) for net in (unet(64), discriminator())]
    assert sizes == [54_413_955, 2_768_705]
    with torch.device("meta"):
        assert discriminator()(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 30, 30)


def unet(width: int) -> UnetGenerator:
    with torch.device("meta"):
        return UnetGenerator(width, 8)


def discriminator() -> nn.Module:
    with torch.device("meta"):
        return patchgan(6, DISCRIMINATOR, norm="batch")


def test_the_discriminator_has_the_published_layers_without_a_bias_before_batch_normalisation() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in discriminator().named_parameters()}
    convolutions = [name for name, shape in shapes.items() if len(shape) == 4]
    assert convolutions == [f"{place}.weight" for place in (0, 2, 5, 8, 11)]
    assert {name for name in shapes if name.endswith("bias")} == {f"{place}.bias" for place in (0, 3, 6, 9, 11)}


def test_dropout_is_in_the_three_levels_of_full_width_around_the_innermost_one() -> None:
    names = [name for name, layer in unet(64).named_modules() if isinstance(layer, nn.Dropout)]
    assert sorted(name.count("model.") for name in names) == [6, 7, 8]  # levels 5 to 7 of 8
    net = UnetGenerator(4, 6)
    images = torch.rand(2, 3, 64, 64)
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))


def test_convolutions_start_around_zero_and_scales_around_one() -> None:
    torch.manual_seed(0)
    for name, weight in normal_initialised(UnetGenerator(16, 6)).named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        else:
            assert 0.015 < float(weight.detach().std()) < 0.025, name
            assert float(weight.detach().mean()) == pytest.approx(float(weight.dim() == 1), abs=0.01), name
