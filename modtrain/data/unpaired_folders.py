"""The folders of an unpaired data set in the layout of the CycleGAN project, and the errors where they differ."""

from __future__ import annotations

import re
from pathlib import Path

from modtrain.data.images import SUFFIXES, Paths, find
from modtrain.errors import InputError, did_you_mean

LAYOUT = {
    "trainA": "images of domain A",
    "trainB": "images of domain B, other ones",
    "testA": "to evaluate on; or valA",
    "testB": "to evaluate on; or valB",
}
TEST = (("testA", "testB"), ("valA", "valB"))
EXPECTED = (*LAYOUT, "valA", "valB")
LISTED = 12
"""Number of entries of a folder that an error lists."""


def unpaired_folders(dataroot: Path) -> list[Paths]:
    """The images of trainA, trainB and, where there are test images, of testA and testB.

    Raises InputError, which shows the expected layout and the folder's content.
    """
    if not dataroot.is_dir():
        if dataroot.exists():
            raise InputError(
                f"--dataroot {dataroot} is a file, but must be a folder with trainA and trainB: unpack it first."
            )
        siblings = [folder.name for folder in _subfolders(dataroot.absolute().parent)]
        raise InputError(f"--dataroot {dataroot} does not exist.{did_you_mean(dataroot.name, siblings)}")
    if dataroot.name in EXPECTED and not (dataroot / "trainA").is_dir():
        raise InputError(
            f"{dataroot} is one domain of a data set: give the folder above, {dataroot.absolute().parent}."
        )
    test = [pair for pair in TEST if any((dataroot / name).is_dir() for name in pair)]
    return [_images(dataroot, name) for pair in (("trainA", "trainB"), *test[:1]) for name in pair]


def _images(dataroot: Path, name: str) -> Paths:
    folder = dataroot / name
    if not folder.is_dir():
        raise InputError(_wrong_layout(dataroot, f"there is no folder {name}{_suggestion(dataroot, name)}"))
    files = find(folder)
    if not files:
        allowed = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise InputError(_wrong_layout(dataroot, f"{name} holds no image ({allowed}), only {_listing(folder)}"))
    return files


def _suggestion(dataroot: Path, name: str) -> str:
    """A folder with a similar name, or a data set one level below; empty if there is none."""
    folders = _subfolders(dataroot)
    for folder in folders:
        if _letters(folder.name) in (_letters(name), _letters(name[-1] + name[:-1])) and folder.name not in EXPECTED:
            return f" (did you mean {folder.name}? rename it to {name})"
    for folder in folders:
        if (folder / "trainA").is_dir():
            return f" (did you mean --dataroot {folder}?)"
    return ""


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _wrong_layout(dataroot: Path, reason: str) -> str:
    branches = [f"  {'└' if name == list(LAYOUT)[-1] else '├'}── {name}/  {what}" for name, what in LAYOUT.items()]
    tree = "\n".join([f"  {dataroot.name or dataroot}/", *branches])
    return f"{dataroot} is not an unpaired data set: {reason}. Expected:\n{tree}\nIt contains: {_listing(dataroot)}."


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = [f"and {len(names) - LISTED} more"] * (len(names) > LISTED)
    return ", ".join(names[:LISTED] + more) or "nothing"


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
