"""The built-in data set and its cache."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modtrain.data import cache
from modtrain.data.fruits import backgrounds
from modtrain.data.fruits.dataset import Fruits, fruits
from modtrain.data.fruits.orchard import orchard
from modtrain.data.fruits.thermal import thermal
from modtrain.data.unpaired import UnpairedTest, unpaired
from modtrain.errors import InputError

SMALL = {"train": 24, "test": 16}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "modtrain"


def equal(one: Fruits, other: Fruits) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


def inside(pictures: Tensor, mask: Tensor) -> Tensor:
    """Mean colour (3,) on the fruits."""
    return (pictures * mask).sum((0, 2, 3)) / mask.sum()


@pytest.mark.parametrize("size", [16, 48, 65, 128])
def test_pictures_have_the_requested_size(size: int) -> None:
    data = fruits(size, train=3, test=2)
    assert data.train_a.shape == data.train_b.shape == (3, 3, size, size)
    assert data.test_a.shape == data.test_b.shape == (2, 3, size, size)
    assert data.test_mask.shape == (2, 1, size, size)
    assert all(getattr(data, name).dtype == torch.uint8 for name in vars(data))


def test_an_apple_and_its_true_orange_differ_on_the_fruit_and_nowhere_else() -> None:
    data = fruits(48, **SMALL)
    differs = (data.test_a != data.test_b).any(1, keepdim=True)
    assert not (differs & ~data.test_mask.bool()).any()
    assert (differs & data.test_mask.bool()).sum() > 0.95 * data.test_mask.sum()


def test_the_fruit_covers_a_fifth_to_a_half_of_every_picture() -> None:
    covered = fruits(48, train=1, test=200).test_mask.float().mean((1, 2, 3))
    assert covered.min() > 0.2
    assert covered.max() < 0.5


def test_oranges_are_orange_and_apples_are_red_to_green() -> None:
    data = fruits(48, train=1, test=100)
    red, green, blue = inside(data.test_b, data.test_mask).tolist()
    assert red > 1.5 * green > 2 * blue
    each = (data.test_a * data.test_mask).sum((2, 3)).float()
    redness = each[:, 0] / each[:, 1]
    assert redness.min() < 1.1
    assert redness.max() > 2.5


def test_the_same_arguments_give_the_same_pictures_and_another_seed_gives_others(own_cache: Path) -> None:
    first = fruits(32, **SMALL)
    for file in own_cache.iterdir():
        file.unlink()
    assert equal(first, fruits(32, **SMALL))
    assert not torch.equal(first.train_a, fruits(32, **SMALL, seed=1).train_a)


def test_training_apples_and_oranges_are_scenes_of_their_own() -> None:
    data = fruits(32, **SMALL)
    a, b = (pictures[:, :, :3, :3].flatten(1).float() for pictures in (data.train_a, data.train_b))
    assert torch.cdist(a, b).min() > 0


def test_training_and_test_pictures_show_different_parts_of_the_photographs() -> None:
    widths = [photograph.width for photograph in backgrounds.photographs()]
    for testing in (False, True):
        for crop in backgrounds.draw_crops(500, rng=np.random.default_rng(0), testing=testing):
            line = round(widths[crop.photograph] * backgrounds.TRAIN_SHARE)
            assert crop.left >= line if testing else crop.left + crop.side <= line


def test_no_network_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backgrounds.photographs.cache_clear()
    assert len(fruits(16, train=1, test=1).train_a) == 1


def test_a_missing_photograph_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backgrounds, "_folder", lambda: tmp_path)
    backgrounds.photographs.cache_clear()
    with pytest.raises(InputError, match=r"astronaut\.png.*--dataroot"):
        fruits(16, train=1, test=0)


def test_a_thousand_pictures_take_a_few_seconds() -> None:
    begin = time.perf_counter()
    fruits(48, train=500, test=0)
    assert time.perf_counter() - begin < 20  # 1.2 s on one idle core


@pytest.mark.parametrize(("build", "name", "split"), [(orchard, "images", "train"), (thermal, "pairs", "val")])
def test_pictures_of_classes_follow_from_their_arguments(
    own_cache: Path, build: Callable[..., Any], name: str, split: str
) -> None:
    first = build(16, "test", each=2)
    for file in own_cache.iterdir():
        file.unlink()
    assert torch.equal(getattr(first, name), getattr(build(16, "test", each=2), name))
    for other in (build(16, split, each=2), build(16, "test", each=2, seed=1)):
        assert torch.equal(first.labels, other.labels)
        assert not torch.equal(getattr(first, name), getattr(other, name))
    for size, each in ((8, 1), (16, -1)):
        with pytest.raises(InputError, match="size of at least 16"):
            build(size, "test", each=each)


@pytest.mark.parametrize("wrong", [{"size": 8}, {"size": 48, "train": -1}, {"size": 48, "seed": -1}])
def test_impossible_numbers_are_an_input_error(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="size of at least 16"):
        fruits(**wrong)


def test_the_second_call_reads_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the pictures were painted again")

    first = fruits(32, **SMALL)
    monkeypatch.setattr("modtrain.data.fruits.dataset._paint_all", refuse)
    assert equal(first, fruits(32, **SMALL))


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: b"x" + content])
def test_a_broken_cache_file_is_replaced(
    own_cache: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    first = fruits(32, **SMALL)
    (file,) = own_cache.glob("*.tensors")
    content = file.read_bytes()
    file.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING):
        assert equal(first, fruits(32, **SMALL))
    assert "is broken" in caplog.text
    assert file.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    expected = fruits(32, **SMALL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert equal(expected, fruits(32, **SMALL))


def test_a_full_disk_under_the_cache_costs_only_time(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modtrain.storage.filesystem.replace_file", full)
    assert len(fruits(32, **SMALL).train_a) == SMALL["train"]
    assert not list(own_cache.glob("*.tensors"))


def test_workers_of_one_node_compute_a_cache_file_once(own_cache: Path) -> None:
    calls = list[int]()

    def make() -> dict[str, Tensor]:
        calls.append(1)
        time.sleep(0.1)
        return {"x": torch.ones(3)}

    threads = [threading.Thread(target=cache.cached, args=("once", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_a_recipe_gets_fruits_without_a_dataroot(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(size: int, *, train: int = 12, test: int = 4) -> Fruits:
        return fruits(size, train=train, test=test)

    monkeypatch.setattr("modtrain.data.unpaired.fruits", few)
    data = unpaired(None, load_size=36, crop_size=32, batch_size=5)
    assert data.description == "fruits 32x32: 12 apples and 12 oranges for training, 4 pairs for testing"
    batches = list(data.train.epoch(0, seed=0))
    assert len(batches) == len(data.train) == 2
    assert batches[0]["a"].shape == (5, 3, 32, 32)
    assert isinstance(data.test, UnpairedTest)
    assert data.test.mask is not None
    assert data.test.a.shape == data.test.b.shape == (4, 3, 32, 32)
    assert data.test.mask.dtype == torch.bool
    assert -1 <= data.test.a.min() < -0.5
    assert 0.5 < data.test.b.max() <= 1
