"""The images of a labelled data set: `train/<class>/*` and `test/<class>/*`, folders without labels, or IDX files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modtrain.data.decoding import Resize, decode_square
from modtrain.data.folder_labels import label_numbers, labels_of, read_labels, warn_unlabelled
from modtrain.data.folder_layout import FolderLayout, subfolders, suggested
from modtrain.data.idx import FILES, has_idx, idx_images, idx_labels, load_grey
from modtrain.data.images import Paths, Pictures, find, load_sources
from modtrain.errors import InputError, counted, shortened

log = logging.getLogger(__name__)

HELD_OUT = ("test", "val")
NAMED = 12
"""Number of classes that a message names."""
LAYOUT = FolderLayout(
    kind="a labelled data set",
    needed="train",
    branches={
        "train/<class>": "images of each class, to train on; or <class> without train",
        "test/<class>": "to evaluate on; or val/<class>",
    },
)
UNLABELLED = FolderLayout(
    kind="a folder of images",
    needed="images",
    branches={
        "train": "images to train on, in folders of their classes or not; or these without train",
        "test": "to evaluate on; or val",
    },
)


Load = Callable[..., tuple[Pictures, list[int]]]
"""Makes pictures of a size of all sources that can be read, whose numbers it returns as well, as `_load_files`."""


@dataclass(frozen=True, kw_only=True)
class LabelledSplit:
    """Images for training, or those to evaluate on."""

    folder: Path
    sources: Sequence[Any]
    load: Load
    labels: tuple[str, ...] | None = None
    """One for each source; None without labels."""

    def only(self, numbers: Sequence[int]) -> LabelledSplit:
        """Some of the images."""
        labels = None if self.labels is None else tuple(self.labels[number] for number in numbers)
        return replace(self, sources=[self.sources[number] for number in numbers], labels=labels)

    def at_most(self, count: int) -> LabelledSplit:
        """All images, or of more than `count` every n-th one."""
        step = -(-len(self.sources) // count)
        return self.only(range(0, len(self.sources), step)) if step > 1 else self


Splits = Mapping[str, LabelledSplit]
"""`train`, and of `test` and `val` those that are there."""


def labelled_splits(dataroot: Path) -> Splits:
    """The images of each split with their labels, of at least two classes. Raises InputError for another layout."""
    splits = _labelled(dataroot, _splits(dataroot, LAYOUT))
    labels = splits["train"].labels
    if labels is None and has_idx(dataroot):
        raise InputError(f"{dataroot} has no {FILES['train'][1]}-idx1-ubyte, the labels of its images.")
    if labels is None:
        raise InputError(LAYOUT.violation(dataroot, "its images are not in folders of their classes"))
    if len(set(labels)) == 1:
        raise InputError(_one_class(splits["train"], labels[0]))
    if nested := _nested(splits["train"]):
        names = shortened(list(label_numbers(nested)), NAMED)
        log.warning("In %s images in folders of a class have the label of that class: %s.", dataroot, names)
    return _of_known_classes(splits)


def image_splits(dataroot: Path) -> Splits:
    """The images of each split, with their labels if there are at least two classes. Raises InputError."""
    splits = _splits(dataroot, UNLABELLED)
    try:
        labelled = _labelled(dataroot, splits)
        if len(set(labelled["train"].labels or ())) > 1:
            return _of_known_classes(labelled)
    except InputError as error:
        log.warning("The labels are not used: %s", error)
    return {name: replace(split, labels=None) for name, split in splits.items()}


def _splits(dataroot: Path, layout: FolderLayout) -> Splits:
    """The images; only those of IDX files have their labels."""
    layout.check_dataroot(dataroot)
    if has_idx(dataroot):
        return {name: split for name in FILES if (split := _idx(dataroot, name))}
    found = {name: dataroot / name for name in ("train", *HELD_OUT) if (dataroot / name).is_dir()}
    if "train" in found:
        return {name: _folder(folder, layout.images(dataroot, name)) for name, folder in found.items()}
    _refuse_others(dataroot, found, layout)
    if files := find(dataroot):
        return {"train": _folder(dataroot, files)}
    raise InputError(layout.violation(dataroot, "there is neither a folder train nor an image"))


def _folder(folder: Path, files: Paths) -> LabelledSplit:
    return LabelledSplit(folder=folder, sources=files, load=_load_files)


def _idx(dataroot: Path, name: str) -> LabelledSplit | None:
    images, labels = idx_images(dataroot, name), idx_labels(dataroot, name)
    if images is None:
        return None
    if labels is not None and len(labels) != len(images):
        raise InputError(
            f"The IDX files in {dataroot} have {counted(len(images), 'image')} and {counted(len(labels), 'label')} "
            f"for {name}; take both from the same data set."
        )
    return LabelledSplit(folder=dataroot, sources=list(images), load=_load_grey, labels=labels)


def _load_files(
    sources: Sequence[Path], size: int, grey_range: tuple[float, float] | None, *, resize: Resize = "bicubic"
) -> tuple[Pictures, list[int]]:
    return load_sources(sources, partial(decode_square, resize=resize), size, grey_range=grey_range)


def _load_grey(
    sources: Sequence[Any], size: int, grey_range: object, *, resize: Resize = "bicubic"
) -> tuple[Pictures, list[int]]:
    return load_grey(np.stack(sources), size, resize=resize), list(range(len(sources)))


def _refuse_others(dataroot: Path, held_out: Collection[str], layout: FolderLayout) -> None:
    """Without a folder `train` all images are for training, unless the folder is one of another kind."""
    names = {folder.name for folder in subfolders(dataroot)}
    reason = suggested(dataroot, "train")
    if {"trainA", "trainB"} <= names:
        reason = " (trainA and trainB hold unpaired images, for the recipe cyclegan)"
    elif {"A", "B"} <= names:
        reason = " (A and B hold pairs, for the recipe pix2pix)"
    if reason or held_out:
        raise InputError(layout.violation(dataroot, f"there is no folder train{reason}"))
    above = dataroot.absolute().parent
    if dataroot.name in ("train", *HELD_OUT) and all((above / name).is_dir() for name in ("train", dataroot.name)):
        raise InputError(f"{dataroot} is one part of a data set: give the folder above, {above}.")


def _labelled(dataroot: Path, splits: Splits) -> Splits:
    """The splits with the labels that folders or `labels.csv` give."""
    if has_idx(dataroot):
        return splits
    given, labelled = read_labels(dataroot), dict[str, LabelledSplit]()
    for name, split in splits.items():
        labelled[name] = replace(split, labels=labels_of(dataroot, split.folder, split.sources, given))
    return labelled


def _of_known_classes(splits: Splits) -> Splits:
    """The splits without the test images of classes that no training image has. Raises InputError if none is left."""
    return {name: split if name == "train" else _known(split, splits["train"]) for name, split in splits.items()}


def _known(split: LabelledSplit, train: LabelledSplit) -> LabelledSplit:
    known, found = set(train.labels or ()), set(split.labels or ())
    if split.labels is None:
        warn_unlabelled(split.folder, split.sources)
    if split.labels is None or known == found:
        return split
    added, lacking = (shortened(list(label_numbers(names)), NAMED) for names in (found - known, known - found))
    differs = [f"it also has {added}, left out"] * bool(added) + [f"it lacks {lacking}"] * bool(lacking)
    report = f"{split.folder} has other classes than {train.folder}: {', and '.join(differs)}."
    if not found & known:
        raise InputError(report)
    log.warning("%s", report)
    return split.only([number for number, label in enumerate(split.labels) if label in known])


def _one_class(train: LabelledSplit, label: str) -> str:
    """Most often the folders of the classes are one level too deep."""
    inner = _nested(train).get(label)
    remedy = f"move {shortened(sorted(inner), NAMED)} up from {train.folder / label}" if inner else "give two at least"
    return f"All images in {train.folder} have the same label, {label!r}: each folder in it is a class; {remedy}."


def _nested(train: LabelledSplit) -> dict[str, set[str]]:
    """The folders with images in the folder of each class, which may be meant as classes of their own."""
    nested = dict[str, set[str]]()
    for source, label in zip(train.sources, train.labels or (), strict=True):
        parts = source.relative_to(train.folder).parts if isinstance(source, Path) else ()
        if len(parts) > 2 and parts[0] == label:
            nested.setdefault(label, set()).add(parts[1])
    return nested
