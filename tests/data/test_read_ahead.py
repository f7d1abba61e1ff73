"""Read-ahead batches: any tensors from any number of piles, entered at any position, and the threads that make them."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modtrain.data.base import Batch
from modtrain.data.read_ahead import Pile, ReadAheadBatches, Sample, read_ahead
from modtrain.data.unpaired import unpaired_batches
from modtrain.errors import InputError


@dataclass(frozen=True)
class Labelled:
    """Samples of several tensors, varied by a generator of their own."""

    count: int
    prefix: str = ""
    broken: int | None = None

    def __len__(self) -> int:
        return self.count

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        return rng.integers(2**62, size=count)

    def sample(self, index: int, draw: Any) -> Sample:
        if index == self.broken:
            raise InputError(f"sample {index} cannot be read")
        noise = np.random.default_rng(int(draw)).standard_normal((2, 3)).astype(np.float32)
        values = {"image": noise + index, "label": index, "is_even": np.bool_(index % 2 == 0)}
        return {self.prefix + name: value for name, value in values.items()}


def batches_of(*piles: Pile, **options: Any) -> ReadAheadBatches:
    return ReadAheadBatches(piles=piles, **{"batch_size": 2, **options})


def identical(one: Iterator[Batch], other: Iterator[Batch]) -> bool:
    return all(
        x is not None and y is not None and x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
        for x, y in itertools.zip_longest(one, other)
    )


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


PILES = (Labelled(7), Labelled(5, "b_"), Labelled(2, "c_"))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_holds_every_tensor_of_every_pile_with_its_shape_and_type(count: int) -> None:
    batch = next(batches_of(*PILES[:count]).epoch(0, seed=0))
    assert len(batch) == 3 * count
    for prefix in ("", "b_", "c_")[:count]:
        image, label, is_even = (batch[prefix + name] for name in ("image", "label", "is_even"))
        assert (image.shape, image.dtype) == ((2, 2, 3), torch.float32)
        assert (label.shape, label.dtype) == ((2,), torch.int64)
        assert torch.equal(is_even, label % 2 == 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_epoch_that_is_entered_at_any_position_continues_bit_for_bit(count: int) -> None:
    batches = batches_of(*PILES[:count])
    all_of_it = list(batches.epoch(3, seed=5))
    assert len(all_of_it) == len(batches) == 3
    for start in range(len(batches) + 1):
        assert identical(iter(all_of_it[start:]), batches.epoch(3, seed=5, start=start))


def test_an_epoch_is_one_pass_over_the_largest_pile_and_the_others_are_shuffled_again_when_used_up() -> None:
    shown = list(batches_of(*PILES, batch_size=1).epoch(0, seed=0))
    labels = {name: [int(batch[name]) for batch in shown] for name in ("label", "b_label", "c_label")}
    assert sorted(labels["label"]) == list(range(7))
    assert sorted(labels["b_label"][:5]) == list(range(5))
    assert len(set(labels["b_label"][5:])) == 2
    assert [sorted(labels["c_label"][at : at + 2]) for at in (0, 2, 4)] == [[0, 1]] * 3


def test_a_pile_that_is_smaller_than_a_batch_still_fills_one() -> None:
    (batch,) = batches_of(Labelled(3), batch_size=8).epoch(0, seed=0)
    assert torch.bincount(batch["label"]).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_threads_and_reading_ahead_change_no_batch() -> None:
    expected = list(batches_of(*PILES, threads=1, ahead=0).epoch(1, seed=2))
    assert identical(iter(expected), batches_of(*PILES, threads=4, ahead=3).epoch(1, seed=2))


def test_epochs_seeds_and_piles_of_the_same_samples_differ() -> None:
    batches = batches_of(Labelled(20), Labelled(20, "b_"))
    shown = {key: list(batches.epoch(key[0], seed=key[1])) for key in ((0, 0), (1, 0), (0, 1))}
    assert not identical(iter(shown[0, 0]), iter(shown[1, 0]))
    assert not identical(iter(shown[0, 0]), iter(shown[0, 1]))
    assert any(not torch.equal(batch["label"], batch["b_label"]) for batch in shown[0, 0])


def test_two_piles_with_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="Two piles give image, is_even, label"):
        next(batches_of(Labelled(4), Labelled(4)).epoch(0, seed=0))


def test_no_more_batches_are_read_ahead_than_asked_for() -> None:
    begun = list[int]()

    def make(position: int) -> int:
        begun.append(position)
        return position

    batches = read_ahead(make, range(20), threads=2, ahead=3)
    assert [next(batches) for _ in range(2)] == [0, 1]
    batches.close()
    assert set(begun) <= set(range(5))


def test_an_error_in_a_reading_thread_is_raised_in_the_training_loop_at_its_position() -> None:
    order = [int(batch["label"]) for batch in batches_of(Labelled(6), batch_size=1).epoch(0, seed=0)]
    shown = list[int]()
    with pytest.raises(InputError, match="sample 2 cannot be read"):
        shown.extend(int(x["label"]) for x in batches_of(Labelled(6, broken=2), batch_size=1).epoch(0, seed=0))
    assert not reading_threads()
    batches = batches_of(Labelled(6, broken=2), batch_size=1).epoch(0, seed=0)
    assert [int(next(batches)["label"]) for _ in range(order.index(2))] == order[: order.index(2)]
    batches.close()


def test_leaving_an_epoch_early_ends_its_threads() -> None:
    batches = batches_of(Labelled(50), batch_size=1, threads=3).epoch(0, seed=0)
    next(batches)
    assert reading_threads()
    batches.close()
    assert not reading_threads()


def test_a_program_that_leaves_an_epoch_open_ends() -> None:
    program = (
        "import torch; from modtrain.data.unpaired import unpaired_batches\n"
        "x = torch.zeros((50, 3, 8, 8), dtype=torch.uint8)\n"
        "epoch = unpaired_batches(a=x, b=x, load_size=8, crop_size=8, batch_size=1).epoch(0, seed=0)\n"
        "next(epoch)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_unpaired_batches_are_those_that_earlier_versions_made() -> None:
    """A run of an earlier version that is resumed goes on with the data it would have seen."""
    a, b = (torch.arange(n * 3 * 100).remainder(251).to(torch.uint8).view(n, 3, 10, 10) for n in (13, 5))
    digest = hashlib.sha256()
    for epoch, start in ((0, 0), (3, 1)):
        batches = unpaired_batches(a=a, b=b, load_size=10, crop_size=7, batch_size=3)
        for batch in batches.epoch(epoch, seed=5, start=start):
            digest.update(batch["a"].numpy().tobytes() + batch["b"].numpy().tobytes())
    assert digest.hexdigest() == "6f4625432f470c609a366a4dd4fa83d315b05e1a7b373350f3868247e5c38495"
