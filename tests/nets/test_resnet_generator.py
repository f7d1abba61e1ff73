"""The generator and the discriminator of CycleGAN against its published layout."""

from __future__ import annotations

import torch
from torch import nn

from modtrain.nets.layers import normal_initialised, patchgan
from modtrain.nets.resnet_generator import ResnetGenerator
from tests.support.published_nets import published_discriminator, published_generator


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
