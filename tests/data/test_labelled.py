"""Images of classes: labelled folders, folders without labels, and the built-in orchard."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from modtrain.data.fruits.orchard import CLASSES
from modtrain.data.labelled import LabelledData, LabelledTest, labelled
from modtrain.data.labelled_params import LabelledParams, class_names, image_data, labelled_data
from modtrain.errors import InputError

Change = Callable[[Path], Path]


def fill(folder: Path, count: int, green: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (12, 10), (number, green, 30)).save(folder / f"{number:03}.png")


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    for name, count, green in (("cat", 6, 100), ("dog", 4, 150), ("owl", 2, 200)):
        fill(tmp_path / "train" / name, count, green)
        fill(tmp_path / "test" / name, 2, green)
    return tmp_path


def make(dataroot: Path | None, **options: Any) -> LabelledData:
    sizes: dict[str, Any] = {"load_size": 10, "crop_size": 8, "batch_size": 4}
    return labelled(dataroot, **{**sizes, **options})


def held_out(data: LabelledData) -> LabelledTest:
    assert isinstance(data.test, LabelledTest)
    return data.test


def epoch_of(data: LabelledData, epoch: int = 0, start: int = 0) -> dict[str, Tensor]:
    batches = list(data.train.epoch(epoch, seed=3, start=start))
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def greens(images: Tensor) -> list[int]:
    return [round(float(value)) for value in (images[:, 1].mean((1, 2)) + 1) * 127.5]


def test_a_batch_holds_images_and_the_numbers_of_their_classes(dataroot: Path) -> None:
    data = make(dataroot)
    assert data.classes == class_names(dataroot, LabelledParams()) == ("cat", "dog", "owl")
    epoch = epoch_of(data)
    assert epoch.keys() == {"image", "label"}
    assert epoch["image"].shape == (12, 3, 8, 8)
    assert epoch["label"].dtype == torch.int64
    assert greens(epoch["image"]) == [100 + 50 * number for number in epoch["label"].tolist()]
    test = held_out(data)
    assert (test.split, test.pixels.dtype) == ("test", torch.uint8)
    assert test.labels is not None
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert greens(test.images) == [100, 100, 150, 150, 200, 200]


def test_classes_and_their_counts_are_described(dataroot: Path) -> None:
    described = "8x8: 12 images for training, 6 for testing, 3 classes (cat 6, dog 4, owl 2)"
    assert make(dataroot).description == f"{dataroot} {described}"
    for number in range(20):
        fill(dataroot / "train" / f"z{number:02}", 1)
    assert make(dataroot).description.endswith(
        "23 classes (cat 6, dog 4, owl 2, " + ", ".join(f"z{number:02} 1" for number in range(9)) + " and 11 more)"
    )


def test_an_epoch_that_is_entered_in_the_middle_goes_on_bit_for_bit(dataroot: Path) -> None:
    complete, rest = epoch_of(make(dataroot), 1), epoch_of(make(dataroot), 1, start=1)
    assert torch.equal(complete["image"][4:], rest["image"])
    assert torch.equal(complete["label"][4:], rest["label"])
    assert not torch.equal(complete["image"], epoch_of(make(dataroot), 0)["image"])


def test_the_middle_of_an_image_keeps_its_proportions(tmp_path: Path) -> None:
    """A wide image with a square in its middle: squeezed to a square, the square would become a bar."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "1.png")
    assert held_out(make(tmp_path, load_size=16, crop_size=16)).pixels.float().mean() > 240


def test_a_broken_image_is_left_out_and_no_label_moves(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    (dataroot / "train/cat/001.png").write_bytes(b"none")
    epoch = epoch_of(make(dataroot, batch_size=1))
    assert "train/cat/001.png cannot be read" in caplog.text
    assert len(epoch["label"]) == 11
    assert greens(epoch["image"]) == [100 + 50 * number for number in epoch["label"].tolist()]


def flat(root: Path) -> Path:
    fill(root / "some/where", 5)
    fill(root, 3)
    return root


def train_alone(root: Path) -> Path:
    fill(root / "train", 8)
    return root


def one_folder(root: Path) -> Path:
    fill(root / "img_align_celeba", 8)
    return root


@pytest.mark.parametrize("make_folder", [flat, train_alone, one_folder])
def test_images_without_labels_train_a_recipe_that_needs_none(tmp_path: Path, make_folder: Change) -> None:
    data = make(make_folder(tmp_path), needs_labels=False)
    assert data.description == f"{tmp_path} 8x8: 8 images for training, which test images are taken from, no labels"
    assert epoch_of(data).keys() == {"image"}
    assert (held_out(data).split, held_out(data).labels, len(held_out(data).pixels)) == ("train", None, 8)
    with pytest.raises(InputError, match=r"not in folders of their classes|same label|without a label"):
        make(tmp_path)


def test_a_recipe_that_needs_no_labels_gets_those_that_are_there(dataroot: Path) -> None:
    assert make(dataroot, needs_labels=False).classes == ("cat", "dog", "owl")


def test_classes_without_a_split_are_trained_on_and_images_of_training_stand_for_test_images(dataroot: Path) -> None:
    data = make((dataroot / "train").rename(dataroot / "photographs"))
    assert data.classes == ("cat", "dog", "owl")
    assert held_out(data).split == "train"


def test_of_many_images_every_nth_is_held_out(dataroot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modtrain.data.labelled.MOST_TESTED", 2)
    labels = held_out(make(dataroot)).labels
    assert labels is not None
    assert labels.tolist() == [0, 1]


def test_validation_images_stand_for_test_images_or_are_beside_them(dataroot: Path) -> None:
    assert make(dataroot).valid is None
    shutil.copytree(dataroot / "test", dataroot / "val")
    data = make(dataroot)
    assert callable(data.valid)
    assert (held_out(data).split, data.valid().split) == ("test", "val")
    shutil.rmtree(dataroot / "test")
    data = make(dataroot)
    assert (held_out(data).split, data.valid) == ("val", None)


def test_labels_may_be_listed_in_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "train", 4)
    rows = [f"train/{number:03}.png,{10 - number}" for number in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    data = make(tmp_path)
    assert data.classes == ("7", "8", "9", "10")
    assert held_out(data).labels is not None
    assert not caplog.messages
    fill(tmp_path / "test", 1)
    assert held_out(make(tmp_path)).labels is None
    assert caplog.messages == [
        f"1 image in {tmp_path}/test without a label, while those for training have one, so metrics that need labels "
        "are not measured: 000.png."
    ]


def test_images_of_one_class_with_two_suffixes_are_two_images(dataroot: Path) -> None:
    Image.new("RGB", (12, 10)).save(dataroot / "train/cat/000.jpg")
    assert "cat 7" in make(dataroot).description


def without_labels(root: Path) -> Path:
    shutil.rmtree(root / "train")
    fill(root / "train", 4)
    return root


def one_class(root: Path) -> Path:
    for name in ("cat", "owl"):
        shutil.rmtree(root / "train" / name)
    return root


def one_too_deep(root: Path) -> Path:
    (root / "train").rename(root / "images")
    (root / "train").mkdir()
    (root / "images").rename(root / "train/images")
    return root


def a_stray_image(root: Path) -> Path:
    fill(root / "train", 1)
    return root


def other_classes(root: Path) -> Path:
    shutil.rmtree(root / "test")
    fill(root / "test/Cat", 1)
    return root


def capital(root: Path) -> Path:
    (root / "train").rename(root / "Train")
    return root


def unpaired(root: Path) -> Path:
    for name in ("A", "B"):
        fill(root / "pairless" / f"train{name}", 1)
    return root / "pairless"


def pairs(root: Path) -> Path:
    for name in ("A", "B"):
        fill(root / "paired" / name / "train", 1)
    return root / "paired"


def empty(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_labels, r"is not a labelled data set: its images are not in folders of their classes\. Expected:\n"),
        (
            one_class,
            r"All images in .*/train have the same label, 'dog': each folder in it is a class; give two at least",
        ),
        (
            one_too_deep,
            r"same label, 'images': each folder in it is a class; move cat, dog, owl up from .*/train/images\.",
        ),
        (
            a_stray_image,
            r"1 image of .* without a label, while others are in a folder named after theirs: train/000\.png\.",
        ),
        (other_classes, r"test has other classes than .*train: it also has Cat, left out, and it lacks cat, dog, owl"),
        (capital, r"there is no folder train \(did you mean Train\? rename it to train\)"),
        (unpaired, r"no folder train \(trainA and trainB hold unpaired images, for the recipe cyclegan\)"),
        (pairs, r"no folder train \(A and B hold pairs, for the recipe pix2pix\)"),
        (lambda root: root.parent / root.name.upper(), r"does not exist"),
        (lambda root: root / "test", r"test is one part of a data set: give the folder above"),
        (lambda root: root / "train/cat/000.png", r"is a file, but must be a folder with train"),
        (empty, r"there is neither a folder train nor an image\. Expected"),
    ],
)
def test_a_wrong_layout_is_explained(dataroot: Path, change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(change(dataroot))


def test_a_folder_without_images_is_told_what_a_recipe_without_classes_takes(tmp_path: Path) -> None:
    says = (
        r"is not a folder of images: there is neither a folder train nor an image\. Expected:\n.*or these without train"
    )
    with pytest.raises(InputError, match=f"(?s){says}"):
        image_data(empty(tmp_path), LabelledParams(load_size=16, crop_size=16, batch_size=4))


def test_folders_in_a_class_are_named(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(dataroot / "train/dog/poodle", 2)
    assert "dog 6" in make(dataroot).description
    assert "images in folders of a class have the label of that class: dog" in caplog.text


def test_test_images_of_unknown_classes_are_left_out(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    (dataroot / "test/owl").rename(dataroot / "test/ant")
    labels = held_out(make(dataroot)).labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 1, 1]
    assert "test has other classes than" in caplog.text
    assert "it also has ant, left out, and it lacks owl." in caplog.text


@pytest.mark.parametrize(
    ("change", "counts", "reason"),
    [
        (a_stray_image, "13 images for training, 6 for testing", "1 image of .* without a label"),
        (other_classes, "12 images for training, 1 for testing", "test has other classes than"),
    ],
)
def test_labels_that_cannot_be_used_are_left_out_where_none_are_needed(
    dataroot: Path, change: Change, counts: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(change(dataroot), needs_labels=False)
    assert data.description.endswith(f"{counts}, no labels")
    assert re.search(f"The labels are not used: .*{reason}", caplog.text)


def test_a_recipe_gets_the_orchard_without_a_dataroot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("modtrain.data.fruits.orchard.EACH", {"train": 3, "test": 1})
    params = LabelledParams(load_size=18, crop_size=16, batch_size=6, flip=False)
    data = labelled_data(None, params)
    assert data.classes == class_names(None, params) == CLASSES
    assert "orchard 16x16: 24 images for training, 8 for testing, 8 classes (red-apple 3, " in data.description
    assert sorted(epoch_of(data)["label"].tolist()) == [number for number in range(8) for _ in range(3)]
    assert torch.equal(held_out(image_data(None, params)).pixels, held_out(data).pixels)


def test_images_are_resized_with_the_filter_of_resize_and_shrunk_to_the_size_of_a_stage(tmp_path: Path) -> None:
    """Of columns that are black and white in turn `nearest` takes one, and every other filter their mean."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, ::2] = 255
    for number in range(4):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    found = {}
    for name in ("nearest", "box"):
        data = image_data(tmp_path, LabelledParams(load_size=16, crop_size=16, batch_size=1, resize=name))
        assert np.array_equal(held_out(data).pixels[0].permute(1, 2, 0).numpy(), pixels)
        small = labelled(tmp_path, load_size=8, crop_size=8, batch_size=1, resize=name, needs_labels=False)
        found[name] = set(held_out(small).pixels.flatten().tolist())
    assert found["nearest"] in ({0}, {255})
    assert found["box"] == {128}
    assert data.at_size(4, 1).train.batch_size == 1
    mean = next(data.at_size(4, 1).train.epoch(0, seed=0))["image"]
    assert mean.shape == (1, 3, 4, 4)
    assert mean.abs().max() < 1e-6


def test_too_few_images_to_compare_samples_with_are_an_error_before_training(dataroot: Path) -> None:
    shutil.rmtree(dataroot / "test")
    fill(dataroot / "test" / "cat", 3)
    says = "test has 3 images; samples are compared with at least 4. Add images, or leave the folder out."
    with pytest.raises(InputError, match=re.escape(says)):
        image_data(dataroot, LabelledParams(load_size=16, crop_size=16, batch_size=4))
    shutil.rmtree(dataroot / "test")
    assert len(held_out(image_data(dataroot, LabelledParams(load_size=16, crop_size=16, batch_size=4))).pixels) == 12
