"""The networks of DCGAN: the sizes of the papers at any power of two, initial weights, standing statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modtrain.nets.dcgan import Discriminator, Generator, initialised
from modtrain.nets.standing_statistics import standing_statistics


def widths(net: nn.Module) -> list[int]:
    """Channels of all feature maps, in their order; the last one is that of the result."""
    return [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        (32, [128, 64, 32, 3], [32, 64, 128, 1]),
        (64, [256, 128, 64, 32, 3], [32, 64, 128, 256, 1]),
        (128, [512, 256, 128, 64, 32, 3], [32, 64, 128, 256, 512, 1]),
    ],
)
def test_each_power_of_two_has_a_layer_more_and_twice_the_channels(
    size: int, generator: list[int], discriminator: list[int]
) -> None:
    with torch.device("meta"):
        g, d = Generator(100, 32, size), Discriminator(32, size)
        images = g(torch.zeros(2, 100))
        assert (images.shape, d(images).shape) == ((2, 3, size, size), (2,))
    assert (widths(g), widths(d)) == (generator, discriminator)


def test_at_64_pixels_the_weights_are_those_of_pytorchs_examples() -> None:
    with torch.device("meta"):
        g, d = Generator(100, 64, 64), Discriminator(64, 64)
    assert {name: tuple(value.shape) for name, value in g.named_parameters() if value.dim() == 4} == {
        "0.weight": (100, 512, 4, 4),
        "3.weight": (512, 256, 4, 4),
        "6.weight": (256, 128, 4, 4),
        "9.weight": (128, 64, 4, 4),
        "12.weight": (64, 3, 4, 4),
    }
    assert {name: tuple(value.shape) for name, value in d.named_parameters() if value.dim() == 4} == {
        "0.weight": (64, 3, 4, 4),
        "2.weight": (128, 64, 4, 4),
        "5.weight": (256, 128, 4, 4),
        "8.weight": (512, 256, 4, 4),
        "11.weight": (1, 512, 4, 4),
    }
    assert {name.split(".")[0] for name, _ in g.named_parameters()} == {"0", "1", "3", "4", "6", "7", "9", "10", "12"}
    assert {name.split(".")[0] for name, _ in d.named_parameters()} == {"0", "2", "3", "5", "6", "8", "9", "11"}


def test_dropout_follows_every_layer_of_the_discriminator_but_the_first_and_the_last() -> None:
    kinds = [type(layer).__name__ for layer in Discriminator(2, 32, norm="none", dropout=0.5)]
    middle = ["Conv2d", "LeakyReLU", "Dropout"]
    assert kinds == ["Conv2d", "LeakyReLU", *middle, *middle, "Conv2d"]


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_published_initial_weights_are_those_of_a_normalised_layer_too(spectral_norm: bool) -> None:
    torch.manual_seed(0)
    net = initialised(Discriminator(64, 32), spectral_norm=spectral_norm)
    for name, weight in net.named_parameters():
        if weight.dim() == 4:
            assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.1), name
    largest = [
        float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    assert all(abs(value - 1) < 0.1 for value in largest) == spectral_norm, "and then the normalised ones are bounded"


def test_standing_statistics_are_those_of_the_weights_as_they_are() -> None:
    torch.manual_seed(0)
    net = Generator(8, 4, 16)
    net.requires_grad_(False).eval()
    stale = net(torch.randn(256, 8))
    standing_statistics(net, lambda: (torch.randn(64, 8),))
    made, wanted = net.eval()(torch.randn(256, 8)), net.train()(torch.randn(256, 8))
    assert abs(float(made.std() / wanted.std()) - 1) < 0.05 < abs(float(stale.std() / wanted.std()) - 1)
    assert all(layer.momentum == 0.1 for layer in net.modules() if isinstance(layer, nn.BatchNorm2d))
