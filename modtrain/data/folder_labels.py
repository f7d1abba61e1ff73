"""Labels of images in folders: the names of subfolders, or those of a file `labels.csv`."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from modtrain.data.images import SUFFIXES
from modtrain.errors import InputError, counted, shortened
from modtrain.storage.folder_listing import data_files

LABELS = "labels.csv"
NAMED = 100
"""Number of files that an error names."""
WARNED = 12
"""Number of files that a warning names."""

log = logging.getLogger(__name__)


def labels_of(
    dataroot: Path, folder: Path, files: Sequence[Path], given: Mapping[str, str] | None
) -> tuple[str, ...] | None:
    """The label of each file in a folder of the data set: that of `given`, else the name of its first subfolder.

    None where no file has a label. Raises InputError where some have one and others have none.
    """
    name, places = folder.relative_to(dataroot).name, [file.relative_to(folder).as_posix() for file in files]
    if given is None:
        found = [place.partition("/")[0] if "/" in place else None for place in places]
    else:
        names = [without_suffix(place) for place in places]
        prefixes = (f"{name}/", "", f"A/{name}/", f"B/{name}/")
        found = [next((given[p + place] for p in prefixes if p + place in given), None) for place in names]
    if not any(found) and (given is None or name != "train"):
        return None
    if lacking := [file for file, label in zip(files, found, strict=True) if label is None]:
        where = "are in a folder named after theirs" if given is None else f"have theirs in {LABELS}"
        raise InputError(
            f"{counted(len(lacking), 'image')} of {dataroot} without a label, while others {where}: "
            f"{shortened([file.relative_to(dataroot).as_posix() for file in lacking], NAMED)}."
        )
    return tuple(label for label in found if label is not None)


def warn_unlabelled(folder: Path, files: Sequence[object]) -> None:
    """Log that images to evaluate on have no labels, although those for training have."""
    places = shortened([str(file.relative_to(folder)) for file in files if isinstance(file, Path)], WARNED)
    log.warning(
        "%s in %s without a label, while those for training have one, so metrics that need labels are not measured%s.",
        counted(len(files), "image"),
        folder,
        f": {places}" if places else "",
    )


def read_labels(dataroot: Path) -> dict[str, str] | None:
    """What `labels.csv` says, by place without suffix; None if there is no such file. Raises InputError.

    Rows that name no image of the data set are logged.
    """
    path = dataroot / LABELS
    if not path.is_file():
        return None
    labels, named = dict[str, str](), dict[str, str]()
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            head = ",".join(rows.fieldnames or ())
            raise InputError(f"{path} begins with {head!r}; its first line must be file,label.")
        for row in rows:
            place, label = without_suffix((row["file"] or "").strip()), (row["label"] or "").strip()
            named.setdefault(place, (row["file"] or "").strip())
            if not label or labels.setdefault(place, label) != label:
                problem = f"a second label, {label!r}" if label else "no label"
                raise InputError(f"{path}, line {rows.line_num}, gives {place} {problem}; each image has one.")
    _warn_of_strays(path, named)
    return labels


def _warn_of_strays(path: Path, named: Mapping[str, str]) -> None:
    """Log the rows that name no image, from the folder of the data set or from that of a split on."""
    known = set[str]()
    for file in data_files(path.parent):
        if file.suffix.lower() in SUFFIXES:
            place = without_suffix(file.relative_to(path.parent).as_posix())
            below = re.sub("^[AB]/(?=(train|test|val)/)", "", place)
            known |= {place, below, re.sub("^(train|test|val)/", "", below)}
    if strays := [name for place, name in named.items() if place not in known]:
        log.warning("%s of %s without an image: %s.", counted(len(strays), "row"), path, shortened(strays, WARNED))


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
