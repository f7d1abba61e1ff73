"""Folders of images: how files are decoded, the errors for a wrong layout, and the batches made of them."""

from __future__ import annotations

import itertools
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from modtrain.data import decoding
from modtrain.data.decoding import decode
from modtrain.data.images import Files, find, load
from modtrain.data.read_ahead import ReadAheadBatches
from modtrain.data.unpaired import UnpairedTest, unpaired, unpaired_batches
from modtrain.errors import InputError
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.run import Run
from tests.support.command import Terminal
from tests.support.runs import finish

REAL = Path(__file__).parents[3] / "shared" / "data" / "automobile2truck"
COLOUR = (200, 100, 50)


def colour_of(path: Path) -> list[int]:
    """RGB in the middle of an image."""
    return decode(path, 8)[:, 4, 4].tolist()


def fill(folder: Path, count: int, size: tuple[int, int] = (12, 10)) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (number, 10, 20)).save(folder / f"{number:03}.png")


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    root = tmp_path / "horse2zebra"
    for name, count in {"trainA": 7, "trainB": 5, "testA": 2, "testB": 3}.items():
        fill(root / name, count)
    return root


def make(dataroot: Path | None, **options: Any) -> ReadAheadBatches:
    sizes: dict[str, Any] = {"load_size": 10, "crop_size": 8, "batch_size": 2}
    data = unpaired(dataroot, **{**sizes, **options})
    assert isinstance(data.train, ReadAheadBatches)
    return data.train


def identical(one: Iterator[object], other: Iterator[object]) -> bool:
    pairs = itertools.zip_longest(one, other)
    return all(torch.equal(x[name], y[name]) for x, y in pairs for name in "ab")  # type: ignore[index]


# Reading a file


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "tif", "TIFF"])
def test_every_usual_format_is_found_and_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (20, 16), COLOUR).save(path)
    assert find(tmp_path) == (path,)
    assert colour_of(path) == pytest.approx(COLOUR, abs=3)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("LA", "png"), ("1", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg")]
)
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode).save(path)
    assert colour_of(path) == pytest.approx([255, 255, 255], abs=2)


def test_a_palette_with_transparency_becomes_rgb(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 16), COLOUR).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(tmp_path / "image.png", transparency=bytes([255, 0, 128]))
    assert colour_of(tmp_path / "image.png") == pytest.approx(COLOUR, abs=3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_brightness(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)).save(path)
    assert colour_of(path) == [100, 100, 100]


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 16), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    picture.save(tmp_path / "image.png", exif=exif)
    shown = decode(tmp_path / "image.png", 8)
    assert shown[:, 1, :].min() > 200
    assert shown[:, 6, :].max() < 50


def test_an_image_is_resized_as_the_cyclegan_project_does_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "image.png")
    expected = np.asarray(Image.fromarray(noise).resize((24, 24), Image.Resampling.BICUBIC))
    assert np.array_equal(decode(tmp_path / "image.png", 24).permute(1, 2, 0).numpy(), expected)


def test_hidden_and_other_files_are_skipped_and_subfolders_and_links_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", 1)
    fill(tmp_path / "data" / "below", 1)
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    for name in ("._000.png", "notes.txt", "Thumbs.db", ".DS_Store"):
        (tmp_path / "data" / name).touch()
    for name in ("@eaDir", ".ipynb_checkpoints", "__MACOSX", ".thumbnails", "$RECYCLE.BIN"):
        fill(tmp_path / "data" / name, 1)
    names = [path.relative_to(tmp_path / "data").as_posix() for path in find(tmp_path / "data")]
    assert names == ["below/000.png", "linked/000.png"]


def test_files_of_kinds_that_are_not_read_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "a", 2)
    for name in ("1.heic", "2.HEIC", "3.avif", "4.gif", "5.jfif", "README", ".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / name).touch()
    assert len(find(tmp_path / "a")) == 2
    sentence = "passed over 6 files of kinds that are not read: 2 .heic, 1 .avif, 1 .gif, 1 .jfif, 1 no suffix."
    assert caplog.messages == [f"{tmp_path / 'a'}: {sentence}"]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "a" / "below", 1)
    scan = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may read any folder
    with pytest.raises(PermissionError):
        find(tmp_path / "a")


# Names that are not UTF-8

LATIN = os.fsdecode(b"caf\xe9")


def test_a_name_that_is_not_utf8_ends_neither_a_worker_nor_its_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data is in such a folder, and so is the name of a broken image, which every worker logs."""
    root = tmp_path / LATIN
    for name, count in {"trainA": 100, "trainB": 2, "testA": 2, "testB": 2}.items():
        fill(root / name, count)
    broken = root / "trainA" / f"{LATIN}.png"
    broken.write_bytes((root / "trainA" / "000.png").read_bytes()[:50])
    type_ = Terminal(capsys, monkeypatch)
    sizes = ("--set", "load_size=24", "--set", "crop_size=24", "--batch-size", 2, "--epochs", 1)
    words = ("--dataroot", root, "--root", tmp_path / "runs", "--name", "other", "--nodes", 1, *sizes)
    config = Config(
        dataroot=str(root), root=str(tmp_path / "runs"), name="run", nodes=1, epochs=1,
        params={"load_size": 24, "crop_size": 24, "batch_size": 50},
    )  # fmt: skip
    run = plan_run(find_target(config)).write()
    assert Run.open(run.path).spec.dataroot == str(root)
    finish(run)
    log = run.log_path("translator").read_text()
    assert f"{tmp_path}/caf\\xe9/trainA/caf\\xe9.png cannot be read as an image" in log
    shown = type_("launch", *words, "--backend", "local", "--dry-run")
    assert "caf\\xe9" in "".join(shown.out.split())  # a long path is folded
    assert "Traceback" not in shown.err
    assert json.loads(type_("status", run.path, "--json").out)["state"] == "finished"


def test_a_missing_dataroot_that_is_not_utf8_is_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Terminal(capsys, monkeypatch)("launch", "--dataroot", tmp_path / LATIN, "--backend", "local")
    assert (missing.code, f"{tmp_path}/caf\\xe9 does not exist" in missing.err) == (2, True)


# Broken files


def test_one_broken_image_in_a_hundred_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "a", 100)
    good = (tmp_path / "a" / "041.png").read_bytes()
    (tmp_path / "a" / "041.png").write_bytes(good[:50])
    with caplog.at_level(logging.WARNING):
        loaded = load(find(tmp_path / "a"), 8)
    assert len(loaded) == 99
    assert [picture[0, 0, 0] for picture in loaded] == [number for number in range(100) if number != 41]  # type: ignore[attr-defined]
    assert str(tmp_path / "a" / "041.png") in caplog.text


@pytest.mark.parametrize(("count", "broken"), [(2, 1), (20, 3), (100, 3), (400, 4)])
def test_a_few_broken_images_of_a_folder_are_left_out_and_one_percent_of_a_large_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, broken: int
) -> None:
    fill(tmp_path / "a", count, (1, 1))
    spoiled = [tmp_path / "a" / f"{number:03}.png" for number in range(broken)]
    for path in spoiled:
        path.write_text("no image")
    assert len(load(find(tmp_path / "a"), 8)) == count - broken
    assert [str(path) in message for path, message in zip(spoiled, caplog.messages, strict=True)] == [True] * broken


@pytest.mark.parametrize(("count", "broken", "left_out"), [(1, 1, 0), (2, 2, 1), (20, 4, 3), (100, 4, 3), (400, 5, 4)])
def test_more_broken_images_stop_the_run_and_are_named(tmp_path: Path, count: int, broken: int, left_out: int) -> None:
    fill(tmp_path / "a", count, (1, 1))
    for number in range(broken):
        (tmp_path / "a" / f"{number:03}.png").write_text("no image")
    sentence = f"{broken} of {count} images cannot be read, more than the {left_out} that are left out"
    with pytest.raises(InputError, match=rf"(?s){sentence}.*000\.png.*{broken - 1:03}\.png"):
        load(find(tmp_path / "a"), 8)


def test_links_that_lead_nowhere_are_broken_images_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "a", 10)
    for name in ("gone.png", "gone", "gone.txt"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "moved" / name)
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    assert len(load(find(tmp_path / "a"), 8)) == 10
    assert caplog.messages[0].endswith("passed over 2 files of kinds that are not read: 2 broken link.")
    for name, message in zip(("gone.png", "loop.png"), caplog.messages[1:], strict=True):
        assert message.startswith(f"Skipped an image: {tmp_path / 'a' / name} cannot be read as an image")


def bomb(path: Path) -> None:
    """A small PNG that claims to be 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_a_decompression_bomb_is_named_and_not_unpacked(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png cannot be read as an image: .*pixels"):
        decode(tmp_path / "bomb.png", 8)


def test_an_image_above_the_limit_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    Image.new("RGB", (20, 10)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match="20 x 10 pixels, more than the limit of 100"):
        decode(tmp_path / "large.png", 8)


def test_a_postscript_file_with_the_suffix_of_an_image_is_not_run(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "image.eps")
    (tmp_path / "image.eps").rename(tmp_path / "image.png")
    with pytest.raises(InputError, match="cannot be read as an image"):
        decode(tmp_path / "image.png", 8)


# Layouts


def test_a_data_set_is_described_in_one_line(dataroot: Path) -> None:
    data = unpaired(dataroot, load_size=10, crop_size=8, batch_size=2)
    assert data.description == f"{dataroot} 8x8: 7 A and 5 B for training, 2 A and 3 B for testing"
    assert isinstance(data.test, UnpairedTest)
    assert data.test.mask is None
    assert data.test.a.shape == (2, 3, 8, 8)
    assert data.test.b.shape == (3, 3, 8, 8)


def test_validation_images_serve_as_test_images_where_there_are_none(dataroot: Path) -> None:
    (dataroot / "testA").rename(dataroot / "valA")
    (dataroot / "testB").rename(dataroot / "valB")
    assert "2 A and 3 B for testing" in unpaired(dataroot, load_size=8, crop_size=8, batch_size=2).description


def test_a_data_set_without_test_images_can_be_trained_on_and_says_so(dataroot: Path) -> None:
    for name in ("testA", "testB"):
        (dataroot / name).rename(dataroot.parent / name)
    data = unpaired(dataroot, load_size=8, crop_size=8, batch_size=2)
    assert data.test is None
    assert "no images for testing (no testA and testB)" in data.description


def rename(old: str, new: str) -> Callable[[Path], Path]:
    def apply(root: Path) -> Path:
        (root / old).rename(root / new)
        return root

    return apply


def empty(name: str) -> Callable[[Path], Path]:
    def apply(root: Path) -> Path:
        for path in (root / name).iterdir():
            path.rename(path.with_suffix(".gif"))
        return root

    return apply


def cleared(name: str) -> Callable[[Path], Path]:
    def apply(root: Path) -> Path:
        for path in (root / name).iterdir():
            path.unlink()
        return root

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rename("trainA", "TrainA"), r"no folder trainA \(did you mean TrainA\? rename it to trainA\)"),
        (rename("trainB", "train_b"), r"no folder trainB \(did you mean train_b\?"),
        (rename("trainB", "B_train"), r"no folder trainB \(did you mean B_train\?"),
        (rename("testB", "more"), r"no folder testB\. Expected"),
        (lambda root: root.parent, r"no folder trainA \(did you mean --dataroot .*horse2zebra\?\)"),
        (lambda root: root / "trainA", r"one domain of a data set: give the folder above, .*horse2zebra\."),
        (lambda root: root / "trainA" / "000.png", r"000\.png is a file, but must be a folder"),
        (lambda root: root.parent / "horse2zebr", r"does not exist\. Did you mean 'horse2zebra'\?"),
        (
            empty("trainB"),
            r"trainB holds no image \(bmp jpeg jpg png tif tiff webp are read\), only 000\.gif, 001\.gif",
        ),
        (empty("testA"), r"testA holds no image"),
        (cleared("trainB"), r"trainB is empty\. Expected"),
    ],
)
def test_a_wrong_layout_is_explained(dataroot: Path, spoil: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spoil(dataroot))


def test_the_error_for_an_empty_folder_shows_the_expected_layout_and_the_content(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    fill(root / "photos", 1)
    with pytest.raises(InputError) as caught:
        make(root)
    assert str(caught.value).splitlines() == [
        f"{root} is not an unpaired data set: there is no folder trainA. Expected:",
        "  mine/",
        "  ├── trainA/  images of domain A",
        "  ├── trainB/  images of domain B, other ones",
        "  ├── testA/  to evaluate on; or valA",
        "  └── testB/  to evaluate on; or valB",
        "It contains: photos/.",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"), [({"crop_size": 11}, "crop_size=11, load_size=10"), ({"batch_size": 0}, "batch_size")]
)
def test_impossible_sizes_are_an_input_error(dataroot: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(dataroot, **wrong)


# Batches


def test_batches_are_float32_from_minus_one_to_one(tmp_path: Path) -> None:
    for name, colour in (("trainA", "white"), ("trainB", "black")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), colour).save(tmp_path / name / "image.png")
    (batch,) = make(tmp_path, batch_size=3).epoch(0, seed=0)
    assert batch["a"].shape == (3, 3, 8, 8)
    assert batch["a"].dtype == torch.float32
    assert (batch["a"] == 1).all()
    assert (batch["b"] == -1).all()


def test_an_epoch_that_is_entered_in_the_middle_goes_on_bit_for_bit(dataroot: Path) -> None:
    batches = make(dataroot)
    batches_of_epoch = list(batches.epoch(3, seed=5))
    for start in range(len(batches) + 1):
        assert identical(iter(batches_of_epoch[start:]), batches.epoch(3, seed=5, start=start))


def test_images_that_do_not_fit_into_memory_make_the_same_batches(dataroot: Path) -> None:
    paths = [find(dataroot / name) for name in ("trainA", "trainB")]
    held, read = ([load(some, 10, memory_bytes=limit) for some in paths] for limit in (10**6, 0))
    assert isinstance(held[0], Tensor)
    assert isinstance(read[0], Files)
    sizes: dict[str, Any] = {"load_size": 10, "crop_size": 8, "batch_size": 2}
    one, other = (unpaired_batches(a=a, b=b, **sizes) for a, b in (held, read))
    assert identical(one.epoch(0, seed=0), other.epoch(0, seed=0))


def test_crops_and_flips_are_parts_of_the_picture() -> None:
    picture = torch.arange(3 * 6 * 6, dtype=torch.uint8).view(1, 3, 6, 6)
    batches = unpaired_batches(a=picture, b=picture, load_size=6, crop_size=4, batch_size=200)
    (batch,) = batches.epoch(0, seed=0)
    parts = {part.numpy().tobytes() for part in (batch["a"] + 1).mul(127.5).round().byte()}
    crops = [picture[0, :, top : top + 4, left : left + 4] for top in range(3) for left in range(3)]
    assert parts == {part.contiguous().numpy().tobytes() for crop in crops for part in (crop, crop.flip(-1))}


if REAL.is_dir():  # not a skip: without this folder no test is missing

    def test_real_photographs_are_loaded() -> None:
        data = unpaired(REAL, load_size=36, crop_size=32, batch_size=8)
        batch = next(iter(data.train.epoch(0, seed=0)))
        assert batch["a"].shape == (8, 3, 32, 32)
        assert batch["a"].std() > 0.2
        assert data.test.a.std() > 0.2
