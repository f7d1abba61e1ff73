"""The networks of Progressive GAN: the published sizes, each equation of the paper, and levels that are faded in."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modtrain.nets.adversarial_losses import interpolated_penalty
from modtrain.nets.layers import Conv
from modtrain.nets.progressive import (
    Discriminator,
    Equalised,
    Generator,
    Growth,
    conv3x3,
    enlarged,
    faded,
    level_of,
    pixel_norm,
    shrunk,
    widths,
    with_minibatch_deviation,
)

CONVS = pytest.mark.parametrize("conv", ["dense", "separable"])


def size_of(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def test_the_networks_for_1024_pixels_have_the_layers_and_the_parameters_of_table_2() -> None:
    channels = widths(8192, 512, 1024)
    assert channels == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    with torch.device("meta"):
        generator, discriminator = Generator(512, channels), Discriminator(channels)
    assert (size_of(generator), size_of(discriminator)) == (23_079_115, 23_087_249)  # as the published code prints
    by_layer = [[size_of(conv) for conv in level.children()] for level in generator.levels]
    assert size_of(generator.first) == 4_194_816
    assert by_layer[:2] == [[2_359_808], [2_359_808, 2_359_808]]
    assert by_layer[4:6] == [[1_179_904, 590_080], [295_040, 147_584]]
    assert size_of(generator.to_rgb[8]) == 51
    assert (size_of(discriminator.from_rgb[8]), size_of(discriminator.score)) == (64, 513)


def test_a_separable_convolution_has_as_many_multiplications_as_equation_2_says() -> None:
    inputs, outputs = 12, 20
    weights = [weight for weight in conv3x3(inputs, outputs, "separable").parameters() if weight.dim() == 4]
    assert sum(weight.numel() for weight in weights) == inputs * (9 + outputs)
    dense = 9 * inputs * outputs
    assert inputs * (9 + outputs) / dense == pytest.approx(1 / outputs + 1 / 9)  # equation 3


@pytest.mark.parametrize(("conv", "expected"), [("dense", 13.635), ("separable", 1.562)])
def test_a_forward_pass_at_64_pixels_has_so_many_billion_multiplications(conv: Conv, expected: float) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Generator(512, widths(8192, 512, 64), conv)(torch.empty(1, 512), Growth(level_of(64)))
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("gain", "expected"), [(math.sqrt(2), math.sqrt(2)), (1.0, 1.0)])
def test_an_equalised_layer_keeps_the_scale_whatever_its_width(gain: float, expected: float) -> None:
    torch.manual_seed(0)
    for inputs in (4, 64):
        layer = Equalised(inputs, 512, 3, gain=gain)
        assert float(layer.weight.detach().std()) == pytest.approx(1, abs=0.05)
        made = layer(torch.randn(64, inputs, 3, 3))
        assert float(made.detach().std()) == pytest.approx(expected, rel=0.05)


def test_both_parts_of_a_separable_convolution_have_a_rate_of_their_own() -> None:
    depthwise, pointwise = conv3x3(16, 4, "separable").children()
    assert isinstance(depthwise, Equalised)
    assert isinstance(pointwise, Equalised)
    assert (depthwise.scale, pointwise.scale) == pytest.approx((1 / 3, math.sqrt(2 / 16)))
    assert depthwise.bias is None


def test_pixel_norm_makes_the_root_mean_square_of_each_position_one() -> None:
    x = torch.randn(3, 8, 2, 2) * 7
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(3, 2, 2))
    torch.testing.assert_close(pixel_norm(x)[1, :, 0, 1], x[1, :, 0, 1] / x[1, :, 0, 1].norm() * math.sqrt(8))


@pytest.mark.parametrize(("count", "group"), [(8, 4), (6, 3), (5, 1), (2, 2)])
def test_the_deviation_of_the_minibatch_is_that_of_every_group_of_four(count: int, group: int) -> None:
    x = torch.randn(count, 3, 4, 4)
    made = with_minibatch_deviation(x)
    assert made.shape == (count, 4, 4, 4)
    assert torch.equal(made[:, :3], x)
    step = count // group
    for number in range(count):
        members = x[number % step :: step]
        expected = members.var(0, unbiased=False).add(1e-8).sqrt().mean()
        torch.testing.assert_close(made[number, 3], expected.expand(4, 4))


def networks(conv: Conv) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    channels = widths(32, 8, 16)
    return Generator(6, channels, conv).eval(), Discriminator(channels, conv).eval()


@CONVS
@torch.no_grad()
def test_a_fade_leads_from_one_level_to_the_next(conv: Conv) -> None:
    generator, discriminator = networks(conv)
    noise = torch.randn(4, 6)
    before, after = generator(noise, Growth(1)), generator(noise, Growth(2))
    assert (before.shape, after.shape) == ((4, 3, 8, 8), (4, 3, 16, 16))
    torch.testing.assert_close(generator(noise, Growth(2, 0.0)), enlarged(before))
    torch.testing.assert_close(generator(noise, Growth(2, 0.25)), 0.75 * enlarged(before) + 0.25 * after)
    torch.testing.assert_close(generator(noise, Growth(2, 1 - 1e-7)), after, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(discriminator(after, Growth(2, 0.0)), discriminator(shrunk(after), Growth(1)))
    almost = discriminator(after, Growth(2, 1 - 1e-7))
    torch.testing.assert_close(almost, discriminator(after, Growth(2)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(faded(after, Growth(2, 0.0)), enlarged(shrunk(after)))
    torch.testing.assert_close(faded(after, Growth(2, 0.5)), (enlarged(shrunk(after)) + after) / 2)
    assert torch.equal(faded(after, Growth(2)), after)


@CONVS
def test_only_the_levels_that_are_used_are_trained(conv: Conv) -> None:
    generator, discriminator = networks(conv)
    growth = Growth(1, 0.5)
    discriminator(generator(torch.randn(4, 6), growth), growth).sum().backward()
    for net, rgb in ((generator, generator.to_rgb), (discriminator, discriminator.from_rgb)):
        for part in (net.levels, rgb):
            trained = [{weight.grad is not None for weight in level.parameters()} for level in part.children()]
            assert trained == [{True}, {True}, {False}], part


def test_the_weights_know_how_far_they_have_grown() -> None:
    generator, _ = networks("dense")
    noise = torch.randn(2, 6)
    assert generator(noise).shape == (2, 3, 16, 16)
    generator.grow(Growth(1, 0.75))
    other, _ = networks("dense")
    other.load_state_dict(generator.state_dict())
    assert other.growth == Growth(1, 0.75)
    assert torch.equal(other(noise), generator(noise, Growth(1, 0.75)))
    assert (Growth(1).size, level_of(8), level_of(1024)) == (8, 1, 8)


def test_the_penalty_is_that_of_the_critics_gradient_between_real_and_fake_images() -> None:
    """Of a critic whose gradient is known: w * x summed has w everywhere, and w² / 2 has it at the point."""
    weight = torch.randn(3, 2, 2, requires_grad=True)
    real, fake = torch.randn(2, 5, 3, 2, 2)
    penalty = interpolated_penalty(lambda images: (images * weight).flatten(1).sum(1), real, fake)
    torch.testing.assert_close(penalty, (weight.norm() - 1).square())
    (made,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(made, 2 * (weight - weight / weight.norm()))
    points = list[Tensor]()

    def critic(images: Tensor) -> Tensor:
        points.append(images)
        return images.square().flatten(1).sum(1) / 2

    torch.manual_seed(1)
    penalty = interpolated_penalty(critic, real, fake)
    torch.manual_seed(1)
    share = torch.rand(5, 1, 1, 1)
    torch.testing.assert_close(points[0], (1 - share) * real + share * fake)
    torch.testing.assert_close(penalty, (points[0].flatten(1).norm(dim=1) - 1).square().mean())
