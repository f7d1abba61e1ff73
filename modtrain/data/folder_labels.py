"""Labels of images in folders: the names of subfolders, or those of a file `labels.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from modtrain.data.images import SUFFIXES
from modtrain.errors import InputError, counted

LABELS = "labels.csv"
NAMED = 100
"""Number of files that an error names."""


def labels_of(
    dataroot: Path, name: str, places: Sequence[str], given: Mapping[str, str] | None
) -> tuple[str, ...] | None:
    """The label of each place in the folder `name`: that of `given`, else the name of its first subfolder.

    Places have no suffix. None where no place has a label. Raises InputError where some have one and others have none.
    """
    if given is None:
        found = [place.partition("/")[0] if "/" in place else None for place in places]
    else:
        prefixes = (f"{name}/", "", f"A/{name}/", f"B/{name}/")
        found = [next((given[p + place] for p in prefixes if p + place in given), None) for place in places]
    if not any(found) and (given is None or name != "train"):
        return None
    if lacking := [place for place, label in zip(places, found, strict=True) if label is None]:
        named = ", ".join([str(PurePosixPath(name, place)) for place in lacking[:NAMED]])
        named += ", ..." * (len(lacking) > NAMED)
        where = "are in a folder named after theirs" if given is None else f"have theirs in {LABELS}"
        raise InputError(
            f"{counted(len(lacking), 'image')} of {dataroot} without a label, while others {where}: {named}."
        )
    return tuple(label for label in found if label is not None)


def read_labels(dataroot: Path) -> dict[str, str] | None:
    """What `labels.csv` says, by place without suffix; None if there is no such file. Raises InputError."""
    path = dataroot / LABELS
    if not path.is_file():
        return None
    labels = dict[str, str]()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            head = ",".join(rows.fieldnames or ())
            raise InputError(f"{path} begins with {head!r}; its first line must be file,label.")
        for row in rows:
            place, label = without_suffix((row["file"] or "").strip()), (row["label"] or "").strip()
            if not label or labels.setdefault(place, label) != label:
                problem = f"a second label, {label!r}" if label else "no label"
                raise InputError(f"{path}, line {rows.line_num}, gives {place} {problem}; each image has one.")
    return labels


def without_suffix(place: str) -> str:
    """A place without the suffix of an image; a dot elsewhere stays."""
    path = PurePosixPath(place)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else str(path)


def label_numbers(labels: Iterable[str]) -> dict[str, int]:
    """Labels are counted from 0 in their order: of whole numbers, else of the alphabet."""
    names = set(labels)
    are_numbers = all(name.isdecimal() for name in names)
    ordered = sorted(names, key=lambda name: (int(name) if are_numbers else 0, name))
    return {name: number for number, name in enumerate(ordered)}
