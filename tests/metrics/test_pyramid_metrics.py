"""The sliced Wasserstein distance and MS-SSIM against independent implementations of what was published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import pytorch_msssim
import torch
from numpy.typing import NDArray
from scipy import ndimage, signal
from torch import Tensor

from modtrain.errors import InputError
from modtrain.metrics.ms_ssim import WEIGHTS, ms_ssim, ms_ssim_of_pairs
from modtrain.metrics.sliced_wasserstein import laplacian_level, level_count, sliced_wasserstein_distances

Array = NDArray[np.float64]


def pictures(count: int, size: int, *, seed: int = 0) -> Tensor:
    """Smooth, with a little noise: uint8."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand((count, 3, 5, 5), generator=generator)
    smooth = torch.nn.functional.interpolate(small, (size, size), mode="bilinear")
    noise = 0.1 * torch.randn(smooth.shape, generator=generator)
    return (255 * (smooth + noise).clamp(0, 1)).to(torch.uint8)


def reduce(image: Array) -> Array:
    """Burt and Adelson's REDUCE: the kernel w(m, n), centred at every second pixel."""
    binomial = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    return np.stack([ndimage.convolve(channel, binomial, mode="mirror")[::2, ::2] for channel in image])


def expand(image: Array) -> Array:
    """Burt and Adelson's EXPAND: 4 times the sum over those places of the kernel that fall onto a pixel."""
    binomial = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 64
    spread = np.kron(image, np.array([[[1, 0], [0, 0]]]))
    return np.stack([ndimage.convolve(channel, binomial, mode="mirror") for channel in spread])


def pyramid(image: Array, levels: int) -> list[Array]:
    gaussian = [image]
    for _ in range(levels - 1):
        gaussian.append(reduce(gaussian[-1]))
    return [fine - expand(coarse) for fine, coarse in itertools.pairwise(gaussian)] + gaussian[-1:]


@pytest.mark.parametrize(("size", "edges"), [(64, [64, 32, 16]), (48, [48, 24]), (28, [28])])
def test_the_pyramid_is_that_of_burt_and_adelson(size: int, edges: list[int]) -> None:
    images = pictures(2, size)
    assert [size >> level for level in range(level_count(images))] == edges
    expected = [pyramid(image.numpy().astype(np.float64), len(edges)) for image in images]
    for level, edge in enumerate(edges):
        result = laplacian_level(images.float(), level, len(edges))
        assert result.shape == (2, 3, edge, edge)
        assert np.allclose(result.numpy(), np.stack([each[level] for each in expected]), atol=1e-3)


def by_definition(sets: list[Tensor], levels: int) -> dict[int, float]:
    """Karras et al. 2018, section 5, one patch and one direction after the other; the draws are those of the metric."""
    draws, distances = torch.Generator().manual_seed(0), {}
    for level in range(levels):
        patches = []
        for images in sets:
            details = [pyramid(image.numpy().astype(np.float64), levels)[level] for image in images]
            last = details[0].shape[-1] - 7
            shape = (len(images), 128, 1, 1)
            tops, lefts = (torch.randint(0, last + 1, shape, generator=draws).flatten(1).tolist() for _ in range(2))
            cut = np.stack(
                [
                    detail[:, top : top + 7, left : left + 7]
                    for detail, *places in zip(details, tops, lefts, strict=True)
                    for top, left in zip(*places, strict=True)
                ]
            )
            for channel in range(3):
                cut[:, channel] = (cut[:, channel] - cut[:, channel].mean()) / cut[:, channel].std()
            patches.append(cut.reshape(len(cut), 147))
        differences = []
        for _ in range(512 // 16):
            for direction in torch.randn(147, 16, generator=draws).double().numpy().T:
                unit = direction / np.sqrt((direction**2).sum())
                first, second = (sorted(part @ unit) for part in patches)
                differences.append(np.mean(np.abs(np.subtract(first, second))))
        distances[sets[0].shape[-1] >> level] = 1e3 * float(np.mean(differences))
    return distances


def test_swd_is_that_of_the_published_definition() -> None:
    first, second = pictures(3, 32), pictures(3, 32, seed=1) // 2
    measured = sliced_wasserstein_distances(first, second)
    assert list(measured) == [32, 16]
    assert measured == pytest.approx(by_definition([first, second], 2), rel=1e-4)


def test_swd_counts_as_many_images_as_the_smaller_set_has() -> None:
    many, few = pictures(9, 16), pictures(4, 16, seed=1)
    assert sliced_wasserstein_distances(many, few) == sliced_wasserstein_distances(many[:4], few)
    assert sliced_wasserstein_distances(few, many) == sliced_wasserstein_distances(few, many[:4])


def test_images_that_swd_cannot_compare_are_named() -> None:
    with pytest.raises(InputError, match=r"the same size; they are \(2, 3, 32, 32\) and \(2, 3, 16, 16\)"):
        sliced_wasserstein_distances(pictures(2, 32), pictures(2, 16))
    with pytest.raises(InputError, match="at least 16 pixels; these have 8 x 8"):
        sliced_wasserstein_distances(pictures(2, 8), pictures(2, 8))


@pytest.mark.parametrize("size", [161, 176])
def test_ms_ssim_is_that_of_pytorch_msssim_above_160_pixels(size: int) -> None:
    first = pictures(1, size)
    second = first // 2 + pictures(1, size, seed=1) // 4
    published = pytorch_msssim.ms_ssim(first.double(), second.double(), data_range=255, size_average=False)
    assert torch.allclose(ms_ssim(first, second), published, rtol=1e-6)


@pytest.mark.parametrize("size", [16, 32, 96])
def test_below_161_pixels_the_window_shrinks_to_the_image(size: int) -> None:
    first = pictures(2, size)
    second = (first.int() // 2 + pictures(2, size, seed=1) // 4).to(torch.uint8)
    expected = [
        np.mean([with_shrinking_window(*map(np.asarray, channels)) for channels in zip(*pair, strict=True)])
        for pair in zip(first.double(), second.double(), strict=True)
    ]
    assert ms_ssim(first, second).tolist() == pytest.approx(expected, rel=1e-6)


def with_shrinking_window(x: Array, y: Array) -> float:
    """One channel, with a two-dimensional window of min(11, edge) pixels and a deviation of 1.5 / 11 of that."""
    product = 1.0
    for scale, weight in enumerate(WEIGHTS):
        edge = min(11, len(x))
        places = np.arange(edge) - (edge - 1) / 2
        window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * (1.5 * edge / 11) ** 2))
        mean_x, mean_y, xx, yy, xy = (
            signal.convolve2d(values, window / window.sum(), mode="valid") for values in (x, y, x * x, y * y, x * y)
        )
        cs = (2 * (xy - mean_x * mean_y) + 58.5225) / (xx + yy - mean_x**2 - mean_y**2 + 58.5225)
        luminance = (2 * mean_x * mean_y + 6.5025) / (mean_x**2 + mean_y**2 + 6.5025)
        product *= max(0.0, float(np.mean(cs * luminance if scale == 4 else cs))) ** weight
        x, y = (
            values.reshape(len(values) // 2, 2, -1, 2).mean((1, 3)) if len(values) > 1 else values for values in (x, y)
        )
    return product


def test_ms_ssim_of_pairs_is_1_where_all_images_are_the_same() -> None:
    one = pictures(1, 32)
    assert ms_ssim_of_pairs(one.expand(6, -1, -1, -1)) == pytest.approx(1)
    assert ms_ssim_of_pairs(pictures(7, 32)) < 0.6
    with pytest.raises(InputError, match="at least 2 images"):
        ms_ssim_of_pairs(one)
    with pytest.raises(InputError, match="at least 16 pixels"):
        ms_ssim_of_pairs(pictures(2, 8))
