"""Pairs of images: layouts, partners, labels, and the batches made of them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from modtrain.data.aligned_folders import aligned_folders
from modtrain.data.base import Data
from modtrain.data.decoding import decode_pair
from modtrain.data.images import Files, load_sources
from modtrain.data.paired import PairedTest, paired, paired_batches
from modtrain.errors import InputError

SIZES: dict[str, Any] = {"load_size": 8, "crop_size": 8, "batch_size": 2}
NAMES = ("1", "2", "3", "4")


def image(number: int, blue: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (number, 0, blue))


def combined(path: Path, number: int) -> None:
    """A in blue 10 and B in blue 200; both have the same red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    both = Image.new("RGB", (16, 8))
    both.paste(image(number, 10), (0, 0))
    both.paste(image(number, 200), (8, 0))
    both.save(path)


def separate(root: Path, place: str, number: int, sides: str = "AB") -> None:
    for side in sides:
        path = root / side / place
        path.parent.mkdir(parents=True, exist_ok=True)
        image(number, {"A": 10, "B": 200}[side]).save(path)


@pytest.fixture(params=["halves", "two folders"])
def dataroot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Four pairs for training, of two persons, and two of another split."""
    make = combined_in if request.param == "halves" else separate
    for number, name in enumerate(NAMES):
        make(tmp_path, f"train/{'eve' if number < 3 else 'adam'}/{name}.png", 20 * number)
    for number, person in ((100, "adam"), (120, "cain")):
        make(tmp_path, f"test/{person}/{number}.png", number)
    return tmp_path


def combined_in(root: Path, place: str, number: int) -> None:
    combined(root / place, number)


def bytes_of(pictures: Tensor) -> Tensor:
    return (pictures + 1).mul(127.5).round().to(torch.uint8)


def epoch_of(data: Data, epoch: int = 0) -> dict[str, Tensor]:
    batches = list(data.train.epoch(epoch, seed=0))
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize(("direction", "blue_of_a"), [("AtoB", 10), ("BtoA", 200)])
def test_a_batch_holds_both_images_of_a_pair_and_its_label(dataroot: Path, direction: Any, blue_of_a: int) -> None:
    data = paired(dataroot, **SIZES, direction=direction)
    assert data.description == f"{dataroot} 8x8: 4 pairs for training, 2 for testing, 2 labels"
    batch = epoch_of(data)
    a, b = bytes_of(batch["a"]), bytes_of(batch["b"])
    assert sorted(a[:, 0, 0, 0].tolist()) == [0, 20, 40, 60]
    assert torch.equal(a[:, 0], b[:, 0])
    assert set(a[:, 2].flatten().tolist()) == {blue_of_a}
    assert set(b[:, 2].flatten().tolist()) == {210 - blue_of_a}
    assert batch["label"].dtype == torch.int64
    assert dict(zip(a[:, 0, 0, 0].tolist(), batch["label"].tolist(), strict=True)) == {0: 1, 20: 1, 40: 1, 60: 0}
    assert isinstance(data.test, PairedTest)
    assert data.test.pixels_a[:, :, 0, 0].tolist() == [[100, 0, blue_of_a], [120, 0, blue_of_a]]
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, -1]  # cain is in no training image
    assert data.labels == 2
    assert bytes_of(data.test.mean)[:, :, 0, 0].tolist() == 2 * [[30, 0, 210 - blue_of_a]]


def test_a_pair_is_cropped_and_mirrored_alike() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 9, 9), np.uint8))
    batches = paired_batches(torch.cat([pixels, 255 - pixels], 1), load_size=9, crop_size=5, batch_size=6)
    shown = [batch for epoch in range(5) for batch in batches.epoch(epoch, seed=0)]
    assert all(torch.equal(bytes_of(batch["a"]), 255 - bytes_of(batch["b"])) for batch in shown)
    crops = {crop.numpy().tobytes() for batch in shown for crop in batch["a"]}
    assert len(crops) > 25
    parts = [pixels[:, :, y : y + 5, x : x + 5] for y in range(5) for x in range(5)]
    allowed = {crop.contiguous().numpy().tobytes() for part in parts for crop in (*part, *part.flip(-1))}
    assert {crop.contiguous().numpy().tobytes() for batch in shown for crop in bytes_of(batch["a"])} <= allowed


def test_an_epoch_that_is_entered_in_the_middle_goes_on_bit_for_bit(dataroot: Path) -> None:
    train = paired(dataroot, load_size=10, crop_size=8, batch_size=1).train
    whole = list(train.epoch(3, seed=5))
    for start in range(len(train) + 1):
        for one, other in itertools.zip_longest(whole[start:], train.epoch(3, seed=5, start=start)):
            assert all(torch.equal(one[name], other[name]) for name in ("a", "b", "label"))


def test_pairs_that_do_not_fit_into_memory_make_the_same_batches(dataroot: Path) -> None:
    sources = aligned_folders(dataroot)[0].pairs
    held, read = (load_sources(sources, decode_pair, 8, channels=6, memory_bytes=limit)[0] for limit in (10**6, 0))
    assert isinstance(read, Files)
    one, other = (list(paired_batches(pairs, **SIZES).epoch(0, seed=0)) for pairs in (held, read))
    assert all(torch.equal(x["a"], y["a"]) and torch.equal(x["b"], y["b"]) for x, y in zip(one, other, strict=True))


def test_a_broken_image_costs_its_pair_and_no_label_moves(dataroot: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = next(iter(sorted(dataroot.glob("**/train/eve/2.png"))))
    broken.write_bytes(broken.read_bytes()[:50])
    batch = epoch_of(paired(dataroot, load_size=8, crop_size=8, batch_size=3))
    assert dict(zip(bytes_of(batch["a"])[:, 0, 0, 0].tolist(), batch["label"].tolist(), strict=True)) == {
        0: 1, 40: 1, 60: 0,
    }  # fmt: skip
    assert f"Skipped an image: {broken} cannot be read as an image" in caplog.text


def test_validation_pairs_stand_for_test_pairs_or_are_asked_for(dataroot: Path) -> None:
    for folder in list(dataroot.glob("**/test")):
        folder.rename(folder.with_name("val"))
    for held_out in ("test", "val"):
        assert "2 for testing" in paired(dataroot, **SIZES, held_out=held_out).description  # type: ignore[arg-type]
    for folder in list(dataroot.glob("**/val")):
        folder.rename(folder.with_name("test"))
    without = paired(dataroot, **SIZES, held_out="val")
    assert without.test is None
    assert "4 pairs for training, none for testing" in without.description


def test_a_file_without_a_partner_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        separate(tmp_path, f"train/{number}.png", number)
    separate(tmp_path, "train/only_a.png", 9, "A")
    separate(tmp_path, "train/only_b.png", 9, "B")
    (tmp_path / "B/train/3.png").rename(tmp_path / "B/train/3.PNG")  # a partner may have another suffix
    with caplog.at_level(logging.WARNING):
        train, test = aligned_folders(tmp_path)
    assert [pair[0].name for pair in train.pairs] == ["0.png", "1.png", "2.png", "3.png"]
    assert (train.labels, test) == (None, None)
    assert caplog.messages == [
        f"2 files of 10 in {tmp_path} have no partner with the same name, left out: "
        "A/train/only_a.png, B/train/only_b.png."
    ]


def partners(root: Path) -> Path:
    for number in range(3):
        separate(root, f"train/{number}_a.png", number, "A")
        separate(root, f"train/{number}_b.png", number, "B")
    return root


def twice(root: Path) -> Path:
    separate(root, "train/1.png", 1)
    separate(root, "train/1.jpg", 1, "A")
    return root


def labels(text: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for number in range(3):
            combined(root / "train" / f"{number}.png", number)
        (root / "labels.csv").write_text(text)
        return root

    return make


def mixed(root: Path) -> Path:
    combined(root / "train/eve/1.png", 1)
    combined(root / "train/2.png", 1)
    return root


def folders(*names: str, given: str = "") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for name in names:
            combined(root / name / "1.png", 1)
        return root / given

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partners,
            r"6 files of 6 in .* have no partner: .*same name.*remove A/train/0_a\.png, A/train/1_a\.png, .*2_b",
        ),
        (twice, r"1\.jpg and .*1\.png have the same name"),
        (mixed, r"1 image of .* without a label, while others are in a folder named after theirs: train/2\.png\."),
        (labels("0.png,eve\n"), r"labels\.csv begins with '0\.png,eve'; its first line must be file,label\."),
        (labels("file,label\n0.png,eve\n1.png,\n"), r"labels\.csv, line 3, gives 1 no label"),
        (labels("file,label\n0.png,eve\n0.png,adam\n"), r"line 3, gives 0 a second label, 'adam'"),
        (
            labels("file,label\n0.png,eve\n"),
            r"2 images of .* others have theirs in labels\.csv: train/1\.png, train/2\.png\.",
        ),
        (folders("Train"), r"no folder train \(did you mean Train\? rename it to train\)"),
        (folders("x/train"), r"no folder train \(did you mean --dataroot .*x\?\)"),
        (folders("trainA", "trainB"), r"hold unpaired images, for the recipe cyclegan; pairs are in A/train"),
        (folders("A/train"), r"there is no folder B/train"),
        (folders("train", given="train"), r"train is one part of a data set: give the folder above"),
        (folders("train", given="trian"), r"trian does not exist\. Did you mean 'train'\?"),
    ],
)
def test_a_wrong_layout_or_label_is_explained(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError, match=message):
        aligned_folders(make(tmp_path))


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    rows = [(f"{number}.png", str(2 * number)) for number in range(7)]
    for number, (name, _) in enumerate(rows):
        combined(tmp_path / "train" / name, number)
    text = "file,label,age\n" + "".join(f"train/{name},{label},7\n" for name, label in rows)
    (tmp_path / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    batch = epoch_of(paired(tmp_path, load_size=8, crop_size=8, batch_size=7))
    assert torch.equal(bytes_of(batch["a"])[:, 0, 0, 0].long(), batch["label"])


def test_images_to_evaluate_on_without_labels_and_rows_without_an_image_are_named(
    dataroot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for person in ("adam", "cain"):
        for folder in dataroot.rglob(f"test/{person}"):
            folder.rename(folder.with_name(f"{person} 2"))
    given = [f"train/{'eve' if number < 3 else 'adam'}/{name}.png,p1" for number, name in enumerate(NAMES)]
    rows = ["file,label", *given, "val/nope.png,p1", "5.png,p2"]
    (dataroot / "labels.csv").write_text("\n".join(rows))
    test = aligned_folders(dataroot)[1]
    assert (test.labels if test else ()) is None
    strays, unlabelled = (message.replace(str(dataroot), "") for message in caplog.messages)
    assert strays == "2 rows of /labels.csv without an image: val/nope.png, 5.png."
    assert unlabelled.removeprefix("2 images in ").removeprefix("/A") == (
        "/test without a label, while those for training have one, so metrics that need labels are not measured: "
        "adam 2/100.png, cain 2/120.png."
    )


def test_one_label_for_all_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    combined(tmp_path / "train/eve/1.png", 1)
    paired(tmp_path, load_size=8, crop_size=8, batch_size=1)
    assert "have the same label, eve." in caplog.text


def test_a_direction_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="direction must be AtoB or BtoA: got 'AB'"):
        paired(tmp_path, **SIZES, direction="AB")  # type: ignore[arg-type]


def test_pairs_beside_those_for_testing_are_for_validation_and_loaded_when_they_are_needed(tmp_path: Path) -> None:
    sizes = {"load_size": 32, "crop_size": 32, "batch_size": 2}
    built_in = paired(None, **sizes)
    assert built_in.valid().pixels_a.shape == built_in.test.pixels_a.shape
    assert not torch.equal(built_in.valid().pixels_a, built_in.test.pixels_a)
    assert paired(None, held_out="val", **sizes).valid is None
    for name, grey in (("train", 50), ("train", 60), ("test", 100), ("val", 200)):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (64, 32), (grey, grey, grey)).save(tmp_path / name / f"{grey}.png")
    folders = paired(tmp_path, **sizes)
    assert {int(value) for value in folders.test.pixels_a.unique()} == {100}
    assert {int(value) for value in folders.valid().pixels_a.unique()} == {200}
