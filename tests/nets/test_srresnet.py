"""SRResNet and its discriminator: the published layers and sizes, scales, what a pixel depends on, and tiles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modtrain.nets.srresnet import Discriminator, Skip, SrResNet, bicubic
from modtrain.nets.tiles import in_tiles


def layers(net: nn.Module) -> list[str]:
    """Convolutions and dense layers as the paper writes them: k9n64s1."""
    named = list[str]()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            named.append(f"k{layer.kernel_size[0]}n{layer.out_channels}s{layer.stride[0]}")
        elif isinstance(layer, nn.Linear):
            named.append(f"dense{layer.out_features}")
        elif isinstance(layer, nn.BatchNorm2d):
            named[-1] += "-bn"
        elif isinstance(layer, nn.PReLU | nn.LeakyReLU | nn.PixelShuffle):
            named[-1] += f"-{type(layer).__name__.lower()}"
    return named


def test_the_generator_has_the_layers_and_the_size_of_the_paper() -> None:
    net = SrResNet(64, 16, 4)
    block = ["k3n64s1-bn-prelu", "k3n64s1-bn"]
    up = ["k3n256s1-pixelshuffle-prelu"] * 2
    assert layers(net) == ["k9n64s1-prelu", *16 * block, "k3n64s1-bn", *up, "k9n3s1"]
    assert sum(weight.numel() for weight in net.parameters()) == 1_547_350


def test_the_discriminator_has_the_layers_and_the_size_of_the_paper() -> None:
    net = Discriminator(64, 96)
    widths = [(64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2)]
    middle = [f"k3n{width}s{stride}-bn-leakyrelu" for width, stride in widths]
    assert layers(net) == ["k3n64s1-leakyrelu", *middle, "dense1024-leakyrelu", "dense1"]
    assert sum(weight.numel() for weight in net.parameters()) == 23_563_649
    assert Discriminator(2, 48)(torch.rand(3, 3, 48, 48)).shape == (3,)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_images_of_any_size_become_larger_by_the_scale(scale: int) -> None:
    assert SrResNet(4, 1, scale)(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


@pytest.mark.parametrize("scale", [0, 1, 5, 6, 12])
def test_other_scales_are_refused(scale: int) -> None:
    with pytest.raises(ValueError, match=f"^scale = {scale} is not allowed; it is 3, or a power of two from 2 on$"):
        SrResNet(4, 1, scale)


def test_with_a_bicubic_skip_it_begins_as_bicubic_interpolation() -> None:
    images = torch.rand(1, 3, 6, 6) * 2 - 1
    assert torch.equal(SrResNet(4, 1, 4, skip="bicubic")(images), bicubic(images, 4))


def test_the_pixels_that_a_shuffle_makes_of_one_begin_equal() -> None:
    made = SrResNet(4, 1, 4).upsampling[0](torch.rand(1, 4, 5, 5))
    assert torch.equal(made[..., ::2, ::2], made[..., 1::2, 1::2])


def trained(blocks: int = 2, scale: int = 4, skip: Skip = "none") -> SrResNet:
    """One whose every weight counts, as after training."""
    torch.manual_seed(0)
    net = SrResNet(4, blocks, scale, skip=skip).eval()
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    return net.requires_grad_(False).double()


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_pixel_depends_on_as_many_around_it_as_the_network_says_and_on_no_fewer(scale: int) -> None:
    net = trained(scale=scale)
    size, middle = 2 * net.reach + 5, net.reach + 2
    images = torch.rand(1, 3, size, size, dtype=torch.double).requires_grad_()
    net(images)[..., scale * middle : scale * (middle + 1), scale * middle : scale * (middle + 1)].sum().backward()
    assert images.grad is not None
    rows = images.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (middle - int(rows[0]), int(rows[-1]) - middle) == (net.reach, net.reach)


def test_tiles_leave_no_seams_and_no_part_is_larger_than_a_tile_and_its_surroundings() -> None:
    net, sizes = trained(blocks=1, skip="bicubic"), set[int]()

    def seen(images: Tensor) -> Tensor:
        sizes.update(images.shape[-2:])
        return net(images)

    images = torch.rand(1, 3, 40, 30, dtype=torch.double) * 2 - 1
    made = in_tiles(seen, images, tile=16, reach=net.reach, scale=4)
    torch.testing.assert_close(made, net(images), rtol=0, atol=1e-12)
    assert max(sizes) <= 16 + 2 * net.reach
    seams = in_tiles(net, images, tile=16, reach=net.reach - 4, scale=4)
    assert float((seams - net(images)).abs().max()) > 1e-9, "fewer pixels around a tile would not be enough"


def test_an_image_no_larger_than_a_tile_is_given_as_it_is() -> None:
    net, images = trained(), torch.rand(1, 3, 16, 9, dtype=torch.double)
    assert torch.equal(in_tiles(net, images, tile=16, reach=net.reach, scale=4), net(images))
