"""The folders of an unpaired data set in the layout of the CycleGAN project, and the errors where they differ."""

from __future__ import annotations

import re
from pathlib import Path

from modtrain.data.folder_layout import FolderLayout, subfolders
from modtrain.data.images import Paths
from modtrain.errors import InputError

LAYOUT = FolderLayout(
    kind="an unpaired data set",
    needed="trainA and trainB",
    branches={
        "trainA": "images of domain A",
        "trainB": "images of domain B, other ones",
        "testA": "to evaluate on; or valA",
        "testB": "to evaluate on; or valB",
    },
)
TEST = (("testA", "testB"), ("valA", "valB"))
EXPECTED = (*LAYOUT.branches, "valA", "valB")


def unpaired_folders(dataroot: Path) -> list[Paths]:
    """The images of trainA, trainB and, where there are test images, of testA and testB.

    Raises InputError, which shows the expected layout and the folder's content.
    """
    LAYOUT.check_dataroot(dataroot)
    if dataroot.name in EXPECTED and not (dataroot / "trainA").is_dir():
        raise InputError(
            f"{dataroot} is one domain of a data set: give the folder above, {dataroot.absolute().parent}."
        )
    test = [pair for pair in TEST if any((dataroot / name).is_dir() for name in pair)]
    names = [name for pair in (("trainA", "trainB"), *test[:1]) for name in pair]
    return [LAYOUT.images(dataroot, name, _suggestion(dataroot, name)) for name in names]


def _suggestion(dataroot: Path, name: str) -> str:
    """A folder with a similar name, or a data set one level below; empty if there is none."""
    folders = subfolders(dataroot)
    if any(folder.name == "train" for folder in folders):
        return " (a folder train is that of a paired data set, for the recipe pix2pix)"
    for folder in folders:
        if _letters(folder.name) in (_letters(name), _letters(name[-1] + name[:-1])) and folder.name not in EXPECTED:
            return f" (did you mean {folder.name}? rename it to {name})"
    for folder in folders:
        if (folder / "trainA").is_dir():
            return f" (did you mean --dataroot {folder}?)"
    return ""


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
