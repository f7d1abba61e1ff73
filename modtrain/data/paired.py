"""Paired data for recipes that translate an image into its partner: folders of pairs, or the built-in thermal ones."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from modtrain.data.aligned_folders import HeldOut, Split, aligned_folders, has_both
from modtrain.data.base import Data
from modtrain.data.crops import CroppedPictures, check_sizes, cropped_batches
from modtrain.data.decoding import Resize, decode_pair
from modtrain.data.folder_labels import label_numbers
from modtrain.data.fruits.cultivars import CULTIVARS
from modtrain.data.fruits.thermal import thermal, thermal_candidates
from modtrain.data.images import Pictures, TwoDomains, as_float, in_memory, load_sources
from modtrain.data.read_ahead import ReadAheadBatches
from modtrain.errors import InputError, counted

Direction = Literal["AtoB", "BtoA"]
Labels = NDArray[np.int64]
LabelledPairs = tuple[Pictures, Labels | None]
Truth = Mapping[str, Tensor]
"""What is known of pairs beside their labels: fields of a PairedTest."""
LoadValid = Callable[[], tuple[LabelledPairs, Truth]]
Loaded = tuple[LabelledPairs, LabelledPairs | None, int, Truth, LoadValid | None]
"""Training pairs, test pairs, the number of labels, what else a `PairedTest` has, and how to load the validation."""
UNKNOWN = -1
"""Label of a test image that no training image has."""
AVERAGED = 512
"""Training images of which `PairedTest.mean` is the mean, at most: those of a folder may have to be decoded."""
CANDIDATES_SIZE = 64
"""Largest edge of `PairedTest.candidates`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PairedTest(TwoDomains):
    """Test images: `b[i]` is the true translation of `a[i]`."""

    pixels_mean: Tensor
    """uint8 (1, 3, size, size): the mean of the training images of `b`, the best guess that is blind to `a`."""
    labels: Tensor | None = None
    """int64 (M,), as in training; -1 where no training image has that label."""
    mask: Tensor | None = None
    """bool (M, 1, size, size), true on the fruit, where the data is built in."""
    candidates: Tensor | None = None
    """uint8 (M, labels, 3, s, s): `b` as it would be with each label, where that is known."""

    @property
    def mean(self) -> Tensor:
        """`pixels_mean` for each test image, float32 in [-1, 1]."""
        return as_float(self.pixels_mean).expand(self.pixels_b.shape)


@dataclass(frozen=True, kw_only=True)
class PairedData(Data):
    """What `paired` returns."""

    labels: int
    """How many different labels the training images have; 0 where there are none."""


def paired(
    dataroot: Path | None,
    *,
    load_size: int,
    crop_size: int,
    batch_size: int,
    flip: bool = True,
    direction: Direction = "AtoB",
    held_out: HeldOut = "test",
    grey_range: tuple[float, float] | None = None,
    resize: Resize = "bicubic",
    check_labels: Callable[[int], object] = bool,
) -> PairedData:
    """Training batches and a `PairedTest`, of the folders `aligned_folders` finds or, without `dataroot`, of `thermal`.

    `a` is the image that is given, `b` the one that is wanted: with "BtoA" the data set's A is `b`. Training images are
    resized to `load_size` and cropped at random to `crop_size`; test images are resized to `crop_size`. They are those
    of `held_out`; without any `test` is None. Where these are of `test`, those of `val` are for validation.
    `grey_range` as of `read_rgb`; `resize` is the filter. `check_labels` is called with the number of labels before an
    image is decoded. Raises InputError, also its own.
    """
    check_sizes(load_size, crop_size, batch_size)
    if direction not in get_args(Direction):
        raise InputError(f"direction must be AtoB or BtoA: got {direction!r}.")
    if dataroot is None:
        check_labels(len(CULTIVARS))
        train, other, labels, truth, valid = _thermal(load_size, crop_size, held_out, direction)
    else:
        train, other, labels, truth, valid = _folders(
            dataroot,
            held_out,
            functools.partial(_load, grey_range=grey_range, resize=resize),
            load_size,
            crop_size,
            check_labels,
        )
    batches = paired_batches(
        *train, load_size=load_size, crop_size=crop_size, batch_size=batch_size, flip=flip, direction=direction
    )
    test = validation = None
    if other:
        mean = _mean(train[0], crop_size, flip=flip)
        test = _test(other, mean, direction, truth)
        validation = functools.partial(_validation, valid, mean, direction) if valid else None
    counts = f"{counted(len(train[0]), 'pair')} for training, {len(other[0]) if other else 'none'} for testing"
    labelled = f", {counted(labels, 'label')}" if labels else ""
    name = "thermal" if dataroot is None else str(dataroot)
    description = f"{name} {crop_size}x{crop_size}: {counts}{labelled}"
    return PairedData(train=batches, test=test, valid=validation, description=description, labels=labels)


def paired_batches(
    pairs: Pictures,
    labels: Labels | None = None,
    *,
    load_size: int,
    crop_size: int,
    batch_size: int,
    flip: bool = True,
    direction: Direction = "AtoB",
) -> ReadAheadBatches:
    """Batches `{"a": ..., "b": ...}` of float32 (batch_size, 3, crop_size, crop_size) in [-1, 1], cropped alike.

    `pairs` have 6 channels, A first, and the side `load_size`. With `flip` half of the pairs are mirrored. With
    `labels` a batch has `label`, int64 (batch_size,), too.
    """
    names = ("a", "b") if direction == "AtoB" else ("b", "a")
    pile = CroppedPictures(
        names=names, pictures=pairs, labels=labels, load_size=load_size, crop_size=crop_size, flip=flip
    )
    return cropped_batches(pile, batch_size=batch_size)


def _thermal(load_size: int, crop_size: int, held_out: HeldOut, direction: Direction) -> Loaded:
    train = thermal(load_size, "train")
    other, truth = _thermal_split(crop_size, held_out, direction)
    valid = functools.partial(_thermal_split, crop_size, "val", direction) if held_out == "test" else None
    return (train.pairs, train.labels.numpy()), other, len(CULTIVARS), truth, valid


def _thermal_split(size: int, split: HeldOut, direction: Direction) -> tuple[LabelledPairs, Truth]:
    other = thermal(size, split)
    truth = {"mask": other.masks.bool()}
    if direction == "AtoB":  # only in colour does a cultivar differ in all that it has
        truth["candidates"] = thermal_candidates(min(size, CANDIDATES_SIZE), split)
    return (other.pairs, other.labels.numpy()), truth


def _folders(
    dataroot: Path,
    held_out: HeldOut,
    read: Callable[..., LabelledPairs],
    load_size: int,
    crop_size: int,
    check_labels: Callable[[int], object],
) -> Loaded:
    train, other = aligned_folders(dataroot, held_out)
    numbers = label_numbers(train.labels or ())
    check_labels(len(numbers))
    if len(numbers) == 1:
        log.warning("All training images of %s have the same label, %s.", dataroot, *numbers)
    pairs = read(train, numbers, load_size)
    load = functools.partial(read, numbers=numbers, size=crop_size)

    def valid() -> tuple[LabelledPairs, Truth]:
        split = aligned_folders(dataroot, "val")[1]
        assert split
        return load(split), {}

    held_out_pairs = load(other) if other else None
    return pairs, held_out_pairs, len(numbers), {}, valid if held_out == "test" and has_both(dataroot) else None


def _load(
    split: Split, numbers: dict[str, int], size: int, *, grey_range: tuple[float, float] | None, resize: Resize
) -> LabelledPairs:
    read = functools.partial(decode_pair, resize=resize)
    pairs, kept = load_sources(split.pairs, read, size, channels=6, grey_range=grey_range)
    if split.labels is None or not numbers:
        return pairs, None
    return pairs, np.array([numbers.get(split.labels[number], UNKNOWN) for number in kept], np.int64)


def _mean(pairs: Pictures, size: int, *, flip: bool) -> Tensor:
    """The mean of pairs, uint8 (1, 6, size, size), as they are in training."""
    chosen = range(0, len(pairs), -(-len(pairs) // AVERAGED))
    total = sum((pairs[number].int() for number in chosen[1:]), start=pairs[0].int())
    mean = F.interpolate(total[None] / len(chosen), (size, size), mode="bilinear", antialias=True)
    return ((mean + mean.flip(-1)) / 2 if flip else mean).round().to(torch.uint8)


def _test(held_out: LabelledPairs, mean: Tensor, direction: Direction, truth: Truth) -> PairedTest:
    pairs, labels = in_memory(held_out[0]), held_out[1]
    (a, b), (mean_a, mean_b) = ((images[:, :3], images[:, 3:]) for images in (pairs, mean))
    given, wanted, blind = (a, b, mean_b) if direction == "AtoB" else (b, a, mean_a)
    known = None if labels is None else torch.from_numpy(labels)
    return PairedTest(pixels_a=given, pixels_b=wanted, pixels_mean=blind, labels=known, **truth)


def _validation(load: LoadValid, mean: Tensor, direction: Direction) -> PairedTest:
    held_out, truth = load()
    return _test(held_out, mean, direction, truth)
