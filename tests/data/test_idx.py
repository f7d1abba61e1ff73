"""IDX files, in which MNIST and Fashion-MNIST are distributed."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from modtrain.data.idx import load_grey
from modtrain.data.labelled import LabelledTest, labelled
from modtrain.errors import InputError

IMAGES = np.random.default_rng(0).integers(256, size=(6, 28, 28), dtype=np.uint8)
LABELS = np.array([7, 0, 7, 3, 0, 7], np.uint8)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array: NDArray[np.uint8], kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def dataroot(tmp_path: Path) -> Path:
    """One file of each spelling: plain, compressed, with a dot."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx(IMAGES[:2]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    return tmp_path


def test_a_folder_of_idx_files_is_labelled_data(dataroot: Path) -> None:
    data = labelled(dataroot, load_size=32, crop_size=32, batch_size=6, flip=False)
    described = "32x32: 6 images for training, 2 for testing, 3 classes (0 2, 3 1, 7 3)"
    assert data.description == f"{dataroot} {described}"
    batch = next(data.train.epoch(0, seed=0))
    grey = ((batch["image"] + 1) * 127.5).round().byte().numpy()
    assert grey.shape == (6, 3, 32, 32)
    assert (grey == grey[:, :1]).all()
    shown = {
        (data.classes[int(label)], image.tobytes()) for label, image in zip(batch["label"], grey[:, 0], strict=True)
    }
    assert shown == {(str(label), np.pad(image, 2).tobytes()) for label, image in zip(LABELS, IMAGES, strict=True)}
    assert isinstance(data.test, LabelledTest)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [2, 0]


def test_images_without_a_file_of_labels_have_none(dataroot: Path) -> None:
    (dataroot / "train-labels-idx1-ubyte.gz").unlink()
    assert not labelled(dataroot, load_size=32, crop_size=32, batch_size=2, needs_labels=False).classes
    with pytest.raises(InputError, match="has no train-labels-idx1-ubyte, the labels"):
        labelled(dataroot, load_size=32, crop_size=32, batch_size=2)


@pytest.mark.parametrize("size", [16, 48, 64])
def test_images_are_resized_from_a_square_with_a_black_margin(size: int) -> None:
    white = load_grey(np.full((1, 28, 20), 255, np.uint8), size)
    assert white.shape == (1, 3, size, size)
    rows, columns = white[0, 0].float().div(255).mean(1), white[0, 0].float().div(255).mean(0)
    assert float(rows.sum()) == pytest.approx(size * 28 / 32 * 20 / 32, rel=0.02)
    assert columns[0] == columns[-1] == 0


def test_images_are_resized_with_the_filter_of_resize(tmp_path: Path) -> None:
    """Of columns that are black and white in turn `nearest` takes one, and `box` their mean."""
    columns = np.zeros((1, 32, 32), np.uint8)
    columns[..., ::2] = 255
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(columns))
    sizes = {"load_size": 16, "crop_size": 16, "batch_size": 1}
    found = {name: labelled(tmp_path, **sizes, resize=name, needs_labels=False).test for name in ("nearest", "box")}
    assert found["nearest"].pixels.unique().tolist() in ([0], [255])
    assert found["box"].pixels.unique().tolist() == [128]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing instead of two zero bytes"),
        (b"\x80\x04\x95\x00", "begins with 80 04 95 00 instead of two zero bytes"),
        (idx(IMAGES, kind=13), "its numbers are of type 0x0d, and only unsigned bytes, 0x08, are read"),
        (idx(LABELS), "it says that it has 1 dimensions, and must have 3"),
        (idx(IMAGES)[:10], "ends in its header"),
        (idx(IMAGES)[:-1], "it says that it holds 6 x 28 x 28 numbers, and has only 4703; copy it again"),
        (idx(IMAGES) + b"\0", "it says that it holds 6 x 28 x 28 numbers, and has more; copy it again"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "4294967295 x 4294967295 x 4294967295 numbers, and must have from 1 to"),
        (idx(IMAGES[:0]), "it says that it holds 0 x 28 x 28 numbers, and must have from 1 to"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_malformed_file_is_one_sentence(dataroot: Path, content: bytes, message: str, compressed: bool) -> None:
    (dataroot / "train-images-idx3-ubyte").unlink()
    name = "train-images-idx3-ubyte" + ".gz" * compressed
    (dataroot / name).write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(InputError, match=f"{name} cannot be read as an IDX file: .*{message}"):
        labelled(dataroot, load_size=32, crop_size=32, batch_size=2)


@pytest.mark.parametrize("cut", [5, 1000, -1])
def test_a_truncated_gzip_file_is_one_sentence(dataroot: Path, cut: int) -> None:
    (dataroot / "train-images-idx3-ubyte").unlink()
    (dataroot / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES))[:cut])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz cannot be read as an IDX file: "):
        labelled(dataroot, load_size=32, crop_size=32, batch_size=2)


def test_images_and_labels_of_two_data_sets_are_refused(dataroot: Path) -> None:
    (dataroot / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(InputError, match="have 2 images and 6 labels for test"):
        labelled(dataroot, load_size=32, crop_size=32, batch_size=2)


@pytest.mark.slow
@pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed: make slow-packages"
)
def test_fashion_mnist_is_read_as_debian_installs_it() -> None:
    data = labelled(DEBIAN, load_size=32, crop_size=32, batch_size=64)
    counts = ", ".join(f"{number} 6000" for number in range(10))
    described = f"32x32: 60000 images for training, 10000 for testing, 10 classes ({counts})"
    assert data.description == f"{DEBIAN} {described}"
