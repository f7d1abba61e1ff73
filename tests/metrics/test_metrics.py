"""PSNR and SSIM agree with scikit-image, also inside a mask; sample grids."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import skimage.color
import torch
from skimage import metrics
from torch import Tensor

from modtrain.metrics.full_reference import psnr, ssim
from modtrain.metrics.sample_grid import MARGIN, sample_grid

scikit_image: Any = metrics


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Smooth images and noisy versions of them, some noisier."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand((4, 3, 6, 5), generator=generator) * 2 - 1
    truth = torch.nn.functional.interpolate(small, (36, 30), mode="bilinear")
    noise = torch.randn(truth.shape, generator=generator) * torch.tensor([0.02, 0.1, 0.2, 0.4]).view(4, 1, 1, 1)
    return (truth + noise).clamp(-1, 1), truth


def left_half(images: Tensor) -> Tensor:
    mask = torch.zeros((len(images), 1, *images.shape[2:]), dtype=torch.bool)
    mask[..., : images.shape[-1] // 2] = True
    return mask


def test_psnr_is_the_mean_of_scikit_images_over_all_images(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = (tensor.numpy().astype(np.float64) for tensor in pair)
    each = [
        scikit_image.peak_signal_noise_ratio(true, image, data_range=2)
        for image, true in zip(images, truth, strict=True)
    ]
    assert psnr(*pair) == pytest.approx(np.mean(each), abs=1e-9)


def test_psnr_inside_a_mask_equals_that_of_the_cropped_part(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = pair
    assert psnr(images, truth, left_half(images)) == pytest.approx(psnr(images[..., :15], truth[..., :15]), abs=1e-9)


def test_pixels_outside_the_mask_do_not_count(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = pair
    changed = torch.where(left_half(images), images, torch.ones(()))
    assert psnr(changed, truth, left_half(images)) == psnr(images, truth, left_half(images))
    assert psnr(changed, truth, ~left_half(images)) < psnr(images, truth, ~left_half(images))


def test_ssim_is_the_mean_of_scikit_images_over_all_images(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = (tensor.numpy().astype(np.float64) for tensor in pair)
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2, "channel_axis": 0}
    each = [scikit_image.structural_similarity(image, true, **wang) for image, true in zip(images, truth, strict=True)]
    assert ssim(*pair) == pytest.approx(np.mean(each), abs=1e-9)


def test_ssim_inside_a_mask_depends_only_on_pixels_near_the_mask(pair: tuple[Tensor, Tensor]) -> None:
    _, truth = pair
    damaged = truth.clone()
    damaged[..., 25:] = 1.0
    assert ssim(damaged, truth, left_half(truth)) == pytest.approx(1.0)
    assert ssim(damaged, truth, ~left_half(truth)) < 0.9


@pytest.mark.parametrize(("channel", "border"), [("rgb", 0), ("rgb", 4), ("y", 0), ("y", 4)])
def test_psnr_and_ssim_of_super_resolution_are_those_of_scikit_image_on_8_bits(
    pair: tuple[Tensor, Tensor], channel: Any, border: int
) -> None:
    inner = slice(border, 36 - border), slice(border, 30 - border)
    bytes_ = [np.rint((each.double().numpy() + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1) for each in pair]
    if channel == "y":
        bytes_ = [skimage.color.rgb2ycbcr(each)[..., :1] for each in bytes_]
    images, truth = ([each[inner] for each in images] for images in bytes_)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    both = list(zip(truth, images, strict=True))
    snr = [scikit_image.peak_signal_noise_ratio(*each, data_range=255) for each in both]
    similarity = [scikit_image.structural_similarity(*each, data_range=255, **options) for each in both]
    assert psnr(*pair, channel=channel, border=border) == pytest.approx(np.mean(snr), abs=1e-6)
    assert ssim(*pair, channel=channel, border=border) == pytest.approx(np.mean(similarity), abs=1e-6)


def test_a_border_is_left_out_of_the_mask_too(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = pair
    inner = (..., slice(4, -4), slice(4, -4))
    mask = left_half(images)
    assert psnr(images, truth, mask, border=4) == psnr(images[inner], truth[inner], mask[inner])
    for wrong in ({"channel": "Y"}, {"border": 15}, {"border": -1}):
        with pytest.raises(ValueError, match="channel is None, 'rgb' or 'y', and the border leaves at least a pixel"):
            psnr(images, truth, **wrong)  # type: ignore[arg-type]


def test_equal_images_have_infinite_psnr_and_ssim_one(pair: tuple[Tensor, Tensor]) -> None:
    _, truth = pair
    assert psnr(truth, truth) == math.inf
    assert ssim(truth, truth) == pytest.approx(1.0)


def test_an_image_with_an_empty_mask_does_not_count(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = pair
    mask = left_half(images)
    mask[0] = False
    assert psnr(images, truth, mask) == pytest.approx(psnr(images[1:], truth[1:], mask[1:]))
    with pytest.raises(ValueError, match="every mask is empty"):
        psnr(images, truth, torch.zeros_like(mask))


def test_shapes_that_do_not_fit_are_named(pair: tuple[Tensor, Tensor]) -> None:
    images, truth = pair
    with pytest.raises(ValueError, match=r"\(4, 3, 36, 30\), \(3, 3, 36, 30\)"):
        psnr(images, truth[1:])
    with pytest.raises(ValueError, match="do not fit"):
        ssim(images, truth, torch.ones_like(images))


def test_a_sample_grid_enlarges_small_images_by_a_whole_factor() -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 24, 24)
    picture = sample_grid({"input": red, "translation": -red, "truth": red[:1]})
    assert picture.dtype == torch.uint8
    images = picture[:, -96:]
    assert images.shape == (3 * 96 + 2 * 2, 96, 3), "as many columns as the shortest row has"
    assert images[50, 50].tolist() == [255, 0, 0]
    assert images[150, 50].tolist() == [0, 255, 255]
    large = sample_grid({"": red.repeat(1, 1, 10, 10)})
    assert large[:, MARGIN * 2 :].shape == (240, 2 * 240 + 2, 3), "large ones stay as they are"


def test_the_names_of_rows_stand_to_the_left_of_them_in_the_picture() -> None:
    rows = dict.fromkeys(("input", "translation"), torch.ones(2, 3, 24, 24))
    names = sample_grid(rows)[:, : 2 - 2 * 98]
    ink = [(names[top : top + 96] < 128).any(-1).nonzero() for top in (0, 98)]
    assert all(place[:, 0].min() > 30 and place[:, 0].max() < 66 for place in ink), "each in the middle of its row"
    assert ink[0][:, 1].min() == pytest.approx(MARGIN, abs=2)
    assert ink[1][:, 1].max() > 1.5 * ink[0][:, 1].max(), "the longer name is the wider one"
    assert names.shape[1] - ink[1][:, 1].max() == pytest.approx(MARGIN, abs=3)
    assert (names < 128).any(-1).sum() > 2 * 50
