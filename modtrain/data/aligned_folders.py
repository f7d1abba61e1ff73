"""The folders of a paired data set, in the layouts of the pix2pix project: which image belongs to which, and to whom.

Either `train` holds one image for each pair, A in its left half and B in its right one, or `A/train` and `B/train` hold
files with equal names. Labels, such as persons, are the names of subfolders, or those of `labels.csv`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modtrain.data.folder_labels import NAMED, labels_of, read_labels, warn_unlabelled, without_suffix
from modtrain.data.folder_layout import FolderLayout, subfolders, suggested
from modtrain.data.images import Paths
from modtrain.errors import InputError, counted, shortened

log = logging.getLogger(__name__)

HeldOut = Literal["test", "val"]

LAYOUT = FolderLayout(
    kind="a paired data set",
    needed="train, or A/train and B/train",
    branches={
        "train": "pairs, each in one image: A left, B right; or A/train and B/train with equal names",
        "test": "to evaluate on; or val",
    },
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Pairs for training, or those to evaluate on."""

    pairs: tuple[Paths, ...]
    """Each is one file with both halves, or the files of A and B."""
    labels: tuple[str, ...] | None
    """One for each pair; None without labels."""


def aligned_folders(dataroot: Path, held_out: HeldOut = "test") -> tuple[Split, Split | None]:
    """The pairs for training, and those of `test` or `val`; without a folder `test`, `val` stands for it.

    A file without a partner is named in a warning and left out. Others name images to evaluate on that have no labels
    while those for training have, and rows of `labels.csv` without an image. Raises InputError where most files
    have no partner, where a pair has no label although others have one, or with the expected layout and the folder's
    content.
    """
    LAYOUT.check_dataroot(dataroot)
    sides = ("",) if (dataroot / "train").is_dir() or not _has_sides(dataroot) else ("A/", "B/")
    if dataroot.name in ("A", "B", "train", "test", "val") and sides == ("",) and not (dataroot / "train").is_dir():
        raise InputError(f"{dataroot} is one part of a data set: give the folder above, {dataroot.absolute().parent}.")
    labels = read_labels(dataroot)
    names = [held_out] if held_out == "val" else ["test", "val"]
    found = [name for name in names if any((dataroot / side / name).is_dir() for side in sides)]
    train = _split(dataroot, sides, "train", labels)
    held = _split(dataroot, sides, found[0], labels) if found else None
    if held and train.labels and not held.labels:
        warn_unlabelled(dataroot / sides[0] / found[0], [files[0] for files in held.pairs])
    return train, held


def has_both(dataroot: Path) -> bool:
    """Whether there are pairs to test on and others to validate on."""
    return all(any((dataroot / side / name).is_dir() for side in ("", "A", "B")) for name in ("test", "val"))


def _has_sides(dataroot: Path) -> bool:
    return any((dataroot / side).is_dir() for side in "AB")


def _split(dataroot: Path, sides: tuple[str, ...], name: str, labels: dict[str, str] | None) -> Split:
    suggestion = _suggestion(dataroot, name)
    files = [_by_name(LAYOUT.images(dataroot, side + name, suggestion), dataroot / (side + name)) for side in sides]
    alone = [file for one in files for place, file in one.items() if any(place not in other for other in files)]
    places = [place for place in files[0] if all(place in other for other in files)]
    if alone:
        _name_alone(dataroot, alone, len(places))
    pairs = tuple(tuple(one[place] for one in files) for place in places)
    first = [files[0] for files in pairs]
    return Split(pairs=pairs, labels=labels_of(dataroot, dataroot / sides[0] / name, first, labels))


def _by_name(files: Paths, folder: Path) -> dict[str, Path]:
    """Files by their place below the folder, without suffix: partners may differ in that."""
    named = dict[str, Path]()
    for file in files:
        other = named.setdefault(without_suffix(file.relative_to(folder).as_posix()), file)
        if other != file:
            raise InputError(f"{other} and {file} have the same name, so a partner would be one of two; rename one.")
    return named


def _name_alone(dataroot: Path, alone: list[Path], pairs: int) -> None:
    """A missing picture costs its pair; where most are missing, the names are not those of pairs."""
    count = f"{counted(len(alone), 'file')} of {len(alone) + 2 * pairs} in {dataroot}"
    has = "has" if len(alone) == 1 else "have"
    names = [file.relative_to(dataroot).as_posix() for file in alone]
    if len(alone) > 2 * pairs:
        raise InputError(
            f"{count} {has} no partner: the two files of a pair must have the same name in A and in B; "
            f"rename or remove {shortened(names, NAMED)}."
        )
    log.warning("%s %s no partner with the same name, left out: %s.", count, has, ", ".join(names))


def _suggestion(dataroot: Path, name: str) -> str:
    if {"trainA", "trainB"} <= {folder.name for folder in subfolders(dataroot)}:
        return " (trainA and trainB hold unpaired images, for the recipe cyclegan; pairs are in A/train and B/train)"
    return suggested(dataroot, name)
