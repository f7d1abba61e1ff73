"""Data for super-resolution: folders, crops as a pure function of seed, epoch and position, and what is held out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modtrain.data.fruits.backgrounds import TRAIN_SHARE, photographs
from modtrain.data.images import as_float
from modtrain.data.super_resolution import LargeCrops, LargeFiles, SuperResolutionTest, super_resolution
from modtrain.errors import InputError
from modtrain.metrics.full_reference import psnr
from modtrain.nets.srresnet import bicubic
from tests.support.noise import save_noise

SIZES: dict[str, Any] = {"scale": 4, "crop_size": 16, "crops": 8, "batch_size": 4}


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("lr", "hr"))


def test_bicubic_interpolation_of_the_photographs_has_the_published_psnr() -> None:
    test = super_resolution(None, **SIZES, built_in="photographs").test
    values = {}
    for channel in ("rgb", "y"):
        pairs = [(bicubic(as_float(s), 4), as_float(p)) for s, p in zip(test.small, test.pixels, strict=True)]
        values[channel] = sum(psnr(*pair, channel=channel, border=4) for pair in pairs) / len(pairs)  # type: ignore[arg-type]
    assert values == {"rgb": pytest.approx(28.19, abs=0.01), "y": pytest.approx(29.88, abs=0.01)}


def test_the_right_parts_of_the_photographs_are_tested_on_and_never_trained_on() -> None:
    data = super_resolution(None, **SIZES, built_in="photographs")
    (pile,) = data.train.piles  # type: ignore[attr-defined]
    for number, (left, right) in enumerate(zip(pile.images, data.test.pixels, strict=True)):
        whole = np.asarray(photographs()[number])
        line = round(whole.shape[1] * TRAIN_SHARE)
        assert np.array_equal(left, whole[:, :line])
        height, width = right.shape[-2:]
        assert np.array_equal(right[0].permute(1, 2, 0).numpy(), whole[:height, line : line + width])


def test_a_batch_is_a_function_of_seed_epoch_and_position_and_lr_is_hr_made_smaller() -> None:
    train = super_resolution(None, **SIZES | {"crops": 12}, built_in="photographs").train
    first = list(train.epoch(1, seed=3))
    assert [tuple(first[0][name].shape) for name in ("lr", "hr")] == [(4, 3, 4, 4), (4, 3, 16, 16)]
    assert len(first) == len(train) == 3
    assert all(itertools.starmap(equal, zip(first[1:], train.epoch(1, seed=3, start=1), strict=True)))
    assert not equal(first[0], next(train.epoch(2, seed=3)))
    assert not equal(first[0], next(train.epoch(1, seed=4)))
    crop = ((first[0]["hr"][0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    small = Image.fromarray(crop).resize((4, 4), Image.Resampling.BICUBIC)
    assert torch.equal(first[0]["lr"][0], as_float(torch.from_numpy(np.array(small)).permute(2, 0, 1)))


def test_crops_are_of_all_images_in_turn_at_all_places_and_mirrored_where_that_is_asked_for() -> None:
    rows = [np.full((20, 17, 3), number, np.uint8) + np.arange(17, dtype=np.uint8)[:, None] for number in (0, 100, 200)]
    pile = LargeCrops(images=rows, count=6, crop_size=16, scale=4, flip=True)
    seen = {index: pile.sample(index, [0.0, 0.0, 0.9])["hr"] for index in range(6)}
    assert [round((float(np.min(crop)) + 1) * 127.5) for crop in seen.values()] == [0, 100, 200, 0, 100, 200]
    last, mirrored = (np.asarray(pile.sample(0, [0.999, 0.999, share])["hr"]) for share in (0.9, 0.1))
    assert round((float(last[0, 0, 0]) + 1) * 127.5) == 1
    assert np.array_equal(mirrored, last[:, :, ::-1])
    draws = pile.draw(np.random.default_rng(0), 1000)
    assert {int(share * 5) for share in draws[:, 0]} == set(range(5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_noise(tmp_path, "train/a.png", "train/b.png", size=(20, 24))
    return save_noise(tmp_path, "test/c.png", "val/d.png", size=(19, 22))


def test_test_images_are_cropped_to_a_multiple_and_never_resized(folder: Path) -> None:
    data = super_resolution(folder, **SIZES)
    (pixels,), (small,) = data.test.pixels, data.test.small
    whole = np.asarray(Image.open(folder / "test/c.png").convert("RGB"))
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), whole[:20, :16])
    assert small.shape == (1, 3, 5, 4)
    assert data.held_out.pixels[0].shape == (1, 3, 20, 16)
    assert not torch.equal(data.held_out.pixels[0], pixels)
    assert data.description == f"{folder} x4, crops of 16: 2 images for training, 1 for testing"


@pytest.mark.parametrize("name", ["c.png", "cx4.png"])
def test_small_images_of_the_user_are_taken_as_they_are(folder: Path, name: str) -> None:
    save_noise(folder, f"test_LR/X4/{name}", size=(4, 5))
    test: SuperResolutionTest = super_resolution(folder, **SIZES).test
    given = np.asarray(Image.open(folder / f"test_LR/X4/{name}").convert("RGB"))
    assert np.array_equal(test.small[0][0].permute(1, 2, 0).numpy(), given)


def test_small_images_that_are_missing_of_another_scale_or_of_another_size_are_named(folder: Path) -> None:
    save_noise(folder, "test_LR/X4/c.png", size=(4, 6))
    with pytest.raises(
        InputError, match=r"c\.png has 4 x 6 pixels, but must have 4 x 5: .*c\.png has 19 x 22, and the"
    ):
        super_resolution(folder, **SIZES)
    (folder / "test_LR/X4/c.png").rename(folder / "test_LR/X4/e.png")
    with pytest.raises(InputError, match=r"X4 lacks the small images of c; add them, or remove"):
        super_resolution(folder, **SIZES)
    with pytest.raises(InputError, match=r"test_LR has no folder X2, the images for a scale of 2; add it, or remove"):
        super_resolution(folder, **SIZES | {"scale": 2})


def test_an_image_that_holds_no_crop_is_left_out_and_too_many_of_them_are_refused(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_noise(folder, "train/small.png", size=(30, 15))
    assert super_resolution(folder, **SIZES).description.startswith(f"{folder} x4, crops of 16: 2 images for training")
    assert (
        "train/small.png has 30 x 15 pixels, and holds no crop of 16 x 16: take larger images, or a smaller"
        in caplog.text
    )
    with pytest.raises(InputError, match=r"(?s)3 of 3 images cannot be read.*holds no crop of 32 x 32"):
        super_resolution(folder, **SIZES | {"crop_size": 32})


def test_a_folder_of_another_layout_is_shown_as_it_should_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train is one part of a data set: give the folder above"):
        super_resolution(folder / "train", **SIZES)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"is not a super-resolution data set: there is no folder train\. Expected:"):
        super_resolution(tmp_path / "other", **SIZES)
    (folder / "test/c.png").unlink()
    (folder / "test").rmdir()
    (folder / "val/d.png").unlink()
    (folder / "val").rmdir()
    assert super_resolution(folder, **SIZES).test is None


def test_images_that_fit_no_memory_are_decoded_at_each_access_and_give_the_same_crops(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list(super_resolution(folder, **SIZES).train.epoch(0, seed=0))
    monkeypatch.setattr("modtrain.data.super_resolution._load_large.__kwdefaults__", None, raising=False)
    monkeypatch.setattr("modtrain.data.super_resolution._load_large.__defaults__", (0,))
    train = super_resolution(folder, **SIZES).train
    assert isinstance(train.piles[0].images, LargeFiles)  # type: ignore[attr-defined]
    assert all(itertools.starmap(equal, zip(held, train.epoch(0, seed=0), strict=True)))
