"""The shared network blocks: shapes and costs; the adversarial losses against values computed by hand."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modtrain.nets.adversarial_losses import (
    AnyGanMode,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    scores,
)
from modtrain.nets.layers import (
    Conv,
    Norm,
    ResnetBlock,
    c7s1,
    conv3x3,
    down,
    normalisation,
    pad_to_multiple,
    patchgan,
    up,
)


def multiply_accumulates(net: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return counter.get_total_flops() // 2


def test_the_layers_of_cyclegan_have_its_shapes() -> None:
    image = torch.randn(2, 3, 24, 32)
    assert c7s1(3, 8)(image).shape == (2, 8, 24, 32)
    assert down(16, "instance")(torch.randn(2, 8, 24, 32)).shape == (2, 16, 12, 16)
    assert up(8, "none")(torch.randn(2, 16, 12, 16)).shape == (2, 8, 24, 32)


def test_a_constant_image_has_no_border_because_padding_reflects() -> None:
    for layer in (c7s1(3, 8), conv3x3(3, "dense"), conv3x3(3, "separable")):
        out = layer(torch.ones(1, 3, 12, 12))
        torch.testing.assert_close(out, out[..., 6:7, 6:7].expand_as(out))


@pytest.mark.parametrize(("conv", "macs_a_position"), [("dense", 9 * 64 * 64), ("separable", 9 * 64 + 64 * 64)])
def test_a_convolution_costs_what_its_docstring_says(conv: Conv, macs_a_position: int) -> None:
    assert multiply_accumulates(conv3x3(64, conv), torch.zeros(1, 64, 10, 10)) == 100 * macs_a_position


def test_separable_is_about_nine_times_cheaper_at_the_width_of_the_article() -> None:
    x = torch.zeros(1, 256, 8, 8)
    dense, separable = (multiply_accumulates(conv3x3(256, conv), x) for conv in get_args(Conv))
    assert dense / separable == pytest.approx(8.7, abs=0.05)


@pytest.mark.parametrize("conv", get_args(Conv))
@pytest.mark.parametrize("norm", get_args(Norm))
def test_a_residual_block_starts_as_the_identity_and_gets_gradients(conv: Conv, norm: Norm) -> None:
    block = ResnetBlock(8, conv=conv, norm=norm)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x), x)
    (block(x) * torch.randn_like(x)).sum().backward()
    last = list(block.parameters())[-2]
    assert last.grad is not None
    assert last.grad.abs().sum() > 0


def test_instance_normalisation_is_per_image_and_channel() -> None:
    out = normalisation("instance", 4)(torch.randn(3, 4, 20, 20) * 7 + 5)
    torch.testing.assert_close(out.mean((2, 3)), torch.zeros(3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((2, 3)), torch.ones(3, 4), atol=1e-2, rtol=0)


def test_an_image_is_padded_with_its_reflection_to_a_multiple() -> None:
    images = torch.arange(9 * 9.0).view(1, 1, 9, 9)
    padded = pad_to_multiple(images, 4)
    assert padded.shape == (1, 1, 12, 12)
    torch.testing.assert_close(padded[..., :9, 9:], images[..., [7, 6, 5]])
    assert pad_to_multiple(images[..., :8, :8], 4).shape == (1, 1, 8, 8)
    assert pad_to_multiple(images[..., :1, :2], 4).shape == (1, 1, 8, 8)


def test_patchgan_gives_a_logit_for_each_patch() -> None:
    assert patchgan(256, ((256, 2), (512, 1)))(torch.zeros(1, 256, 64, 64)).shape == (1, 1, 30, 30)


def test_spectral_norm_bounds_every_layer_and_survives_a_round_trip_through_a_state_dict() -> None:
    torch.manual_seed(0)
    net, copy = (patchgan(4, ((8, 2), (16, 1)), norm="none", spectral_norm=True) for _ in range(2))
    for _ in range(30):
        net(torch.randn(1, 4, 12, 12))
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, rel=0.02)
    copy.load_state_dict(net.state_dict())
    x = torch.randn(2, 4, 12, 12)
    torch.testing.assert_close(copy.eval()(x), net.eval()(x))


REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 1.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("gan_mode", "expected"),
    [
        ("lsgan", ((1 + 0.25) / 2 + (4 + 1) / 2) / 2),
        ("vanilla", ((softplus(-2) + softplus(-0.5)) / 2 + (softplus(-2) + softplus(1)) / 2) / 2),
        ("hinge", ((0 + 0.5) / 2 + (0 + 2) / 2) / 2),
        ("wasserstein", (-0.5 - 1.25) / 2),
        ("relativistic", (softplus(-4) + softplus(0.5)) / 2 / 2),
    ],
)
def test_the_discriminators_loss_is_that_of_the_papers(gan_mode: AnyGanMode, expected: float) -> None:
    assert float(discriminator_loss(REAL, FAKE, gan_mode)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gan_mode", "expected"),
    [
        ("lsgan", (9 + 0) / 2),
        ("vanilla", (softplus(2) + softplus(-1)) / 2),
        ("hinge", 0.5),
        ("wasserstein", 0.5),
        ("relativistic", (softplus(4) + softplus(-0.5)) / 2),
    ],
)
def test_the_generators_loss_is_that_of_the_papers(gan_mode: AnyGanMode, expected: float) -> None:
    assert float(generator_loss(FAKE, gan_mode, real=REAL)) == pytest.approx(expected)


def test_the_scores_say_how_often_a_real_sample_is_ranked_above_a_fake_one() -> None:
    assert {name: float(value) for name, value in scores(REAL, FAKE).items()} == {
        "real_score": 1.25,
        "fake_score": -0.5,
        "accuracy": 0.5,
    }


def test_the_gradient_penalty_of_a_linear_discriminator_is_half_its_squared_norm() -> None:
    linear = nn.Linear(3, 1, bias=False)
    samples = torch.randn(5, 3, requires_grad=True)
    penalty = gradient_penalty(linear(samples), samples)
    assert float(penalty.detach()) == pytest.approx(float(linear.weight.detach().square().sum()) / 2)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, linear.weight.detach())


def test_the_gradient_penalty_of_a_quadratic_discriminator_depends_on_the_samples() -> None:
    samples = torch.tensor([[1.0, 2.0], [3.0, 0.0]], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    penalty = gradient_penalty(scale * samples.square().sum(1), samples)
    # |grad|^2 = 4 s^2 |x|^2 with |x|^2 = 5 and 9: half of its mean is 2 s^2 * 7
    assert float(penalty.detach()) == pytest.approx(14 * 0.25)
    penalty.backward()
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(28 * 0.5)


def test_the_gradient_penalty_of_a_patch_does_not_depend_on_the_size_of_the_image() -> None:
    patches = nn.Conv2d(3, 1, 4, stride=4)
    small = torch.randn(2, 3, 8, 8)
    penalties = []
    for image in (small, small.repeat(1, 1, 2, 3)):
        samples = image.requires_grad_(True)
        penalties.append(float(gradient_penalty(patches(samples), samples).detach()))
    assert penalties[0] == pytest.approx(penalties[1])
    assert penalties[0] == pytest.approx(float(patches.weight.detach().square().sum()) / 2)
