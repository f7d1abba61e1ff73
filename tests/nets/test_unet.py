"""The generator and the discriminator of pix2pix against their published layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modtrain.nets.layers import normal_initialised, patchgan
from modtrain.nets.unet import UnetGenerator
from tests.support.published_nets import published_unet

DISCRIMINATOR = ((64, 2), (128, 2), (256, 2), (512, 1))


def test_the_generator_is_the_published_one_with_the_published_keys() -> None:
    ours, theirs = normal_initialised(UnetGenerator(2, 6)), published_unet(2, 6)
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
