"""Images of classes, for recipes that make images: folders with or without labels, IDX files, or `orchard`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.base import Data
from modtrain.data.crops import CroppedPictures, check_sizes, cropped_batches
from modtrain.data.decoding import Resize
from modtrain.data.folder_labels import label_numbers
from modtrain.data.fruits.orchard import CLASSES, orchard
from modtrain.data.images import Pictures, as_float, in_memory
from modtrain.data.labelled_folders import LabelledSplit, Splits, image_splits, labelled_splits
from modtrain.data.read_ahead import ReadAheadBatches
from modtrain.errors import counted, shortened

Labels = NDArray[np.int64]
Labelled = tuple[Pictures, Labels | None]
LoadTest = Callable[[], "LabelledTest"]
Loaded = tuple[Labelled, "LabelledTest", LoadTest | None, LoadTest, tuple[str, ...]]
"""Training pictures, test images, how to load those for validation and for training so, and the classes' names."""

MOST_TESTED = 10_000
"""Test images at most; of more, every n-th one is taken."""
CLASSES_SHOWN = 12
"""Number of classes that the description names."""


@dataclass(frozen=True, kw_only=True)
class LabelledTest:
    """Real images, with which those that a recipe makes are compared."""

    pixels: Tensor
    """uint8 (M, 3, size, size)."""
    labels: Tensor | None
    """int64 (M,); None without labels."""
    split: str
    """Where they are from: "test", "val" or "train"."""
    classes: tuple[str, ...] = ()
    """Names, in the order of the labels; empty without labels."""

    @property
    def images(self) -> Tensor:
        """float32 (M, 3, size, size) in [-1, 1]."""
        return as_float(self.pixels)


@dataclass(frozen=True, kw_only=True)
class LabelledData(Data):
    """What `labelled` returns."""

    train: ReadAheadBatches
    classes: tuple[str, ...]
    """Names, in the order of the labels; empty without labels."""
    train_images: LoadTest
    """Loads the training images, neither cropped nor mirrored, in the form of `test`."""

    def at_size(self, size: int, batch_size: int) -> LabelledData:
        """The same images, of which those for training are shrunk to this edge: means of the pixels of a crop.

        `size` divides the edge of the crops. Test images stay as they are.
        """
        piles = [pile for pile in self.train.piles if isinstance(pile, CroppedPictures)]
        small = tuple(replace(pile, shrink=pile.crop_size // size) for pile in piles)
        return replace(self, train=replace(self.train, piles=small, batch_size=batch_size))


def labelled(
    dataroot: Path | None,
    *,
    load_size: int,
    crop_size: int,
    batch_size: int,
    flip: bool = True,
    grey_range: tuple[float, float] | None = None,
    resize: Resize = "bicubic",
    needs_labels: bool = True,
    check_classes: Callable[[int], object] = bool,
) -> LabelledData:
    """Training batches and a `LabelledTest`, of the images in `dataroot` or, without one, of `orchard`.

    Of each training image the square in its middle is resized to `load_size` and cropped at random to `crop_size`; test
    images are resized to `crop_size`. Without labels, which is an error with `needs_labels`, a batch has no `label`.
    Without test images the training images stand for them. `grey_range` as of `read_rgb`; `resize` is the filter.
    `check_classes` is called with the number of classes before an image is decoded. Raises InputError, also its own.
    """
    check_sizes(load_size, crop_size, batch_size)
    if dataroot is None:
        check_classes(len(CLASSES))
        train, test, valid, train_images, classes = _orchard(load_size, crop_size)
    else:
        found = labelled_splits(dataroot) if needs_labels else image_splits(dataroot)
        check_classes(len(label_numbers(found["train"].labels or ())))
        splits = {
            name: replace(split, load=functools.partial(split.load, resize=resize)) for name, split in found.items()
        }
        train, test, valid, train_images, classes = _folders(splits, load_size, crop_size, grey_range)
    name = "orchard" if dataroot is None else str(dataroot)
    return LabelledData(
        train=labelled_batches(*train, load_size=load_size, crop_size=crop_size, batch_size=batch_size, flip=flip),
        test=test,
        valid=valid,
        description=f"{name} {crop_size}x{crop_size}: {_counts(train, test, classes)}",
        classes=classes,
        train_images=train_images,
    )


def labelled_batches(
    pictures: Pictures,
    labels: Labels | None = None,
    *,
    load_size: int,
    crop_size: int,
    batch_size: int,
    flip: bool = True,
) -> ReadAheadBatches:
    """Batches `{"image": ...}` of float32 (batch_size, 3, crop_size, crop_size) in [-1, 1], randomly cropped.

    With `labels` a batch has `label`, int64 (batch_size,), too. `load_size` is the side of the pictures in pixels. With
    `flip` half of them are mirrored.
    """
    pile = CroppedPictures(
        names=("image",), pictures=pictures, labels=labels, load_size=load_size, crop_size=crop_size, flip=flip
    )
    return cropped_batches(pile, batch_size=batch_size)


def _orchard(load_size: int, crop_size: int) -> Loaded:
    train, test = orchard(load_size, "train"), functools.partial(_fruits, crop_size)
    return (train.images, train.labels.numpy()), test("test"), None, functools.partial(test, "train"), CLASSES


def _fruits(size: int, split: Literal["train", "test"]) -> LabelledTest:
    fruits = orchard(size, split)
    return LabelledTest(pixels=fruits.images, labels=fruits.labels, split=split, classes=CLASSES)


def _folders(splits: Splits, load_size: int, crop_size: int, grey_range: tuple[float, float] | None) -> Loaded:
    numbers = label_numbers(splits["train"].labels or ())
    test = functools.partial(_test, splits, numbers, crop_size, grey_range)
    valid = functools.partial(test, "val") if {"test", "val"} <= splits.keys() else None
    held_out = next(name for name in ("test", "val", "train") if name in splits)
    train = _load(splits["train"], numbers, load_size, grey_range)
    return train, test(held_out), valid, functools.partial(test, "train"), tuple(numbers)


def _load(
    split: LabelledSplit, numbers: Mapping[str, int], size: int, grey_range: tuple[float, float] | None
) -> Labelled:
    pictures, kept = split.load(split.sources, size, grey_range)
    if split.labels is None:
        return pictures, None
    return pictures, np.array([numbers[split.labels[number]] for number in kept], np.int64)


def _test(
    splits: Splits, numbers: Mapping[str, int], size: int, grey_range: tuple[float, float] | None, name: str
) -> LabelledTest:
    split = splits[name].at_most(MOST_TESTED)
    pictures, labels = _load(split, numbers, size, grey_range)
    known = None if labels is None else torch.from_numpy(labels)
    return LabelledTest(pixels=in_memory(pictures), labels=known, split=name, classes=tuple(numbers))


def _counts(train: Labelled, test: LabelledTest, classes: Sequence[str]) -> str:
    """How many images there are of each split, and of each class to train on."""
    pictures, labels = train
    tested = "which test images are taken from" if test.split == "train" else f"{len(test.pixels)} for testing"
    counts = f"{counted(len(pictures), 'image')} for training, {tested}"
    if labels is None:
        return f"{counts}, no labels"
    each = zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True)
    named = shortened([f"{name} {count}" for name, count in each], CLASSES_SHOWN)
    return f"{counts}, {len(classes)} classes ({named})"
