"""Layouts of a data set's folder: the images of its subfolders, and the errors where they are not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modtrain.data.images import KINDS, Paths, find
from modtrain.errors import InputError, did_you_mean, shortened

LISTED = 12
"""Number of entries of a folder that an error lists."""


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """What a data set of one kind looks like."""

    kind: str
    """As in "an unpaired data set"."""
    needed: str
    """The subfolders without which there is nothing to train on, in words."""
    branches: Mapping[str, str]
    """Subfolders and what they hold, for the picture in an error."""

    def check_dataroot(self, dataroot: Path) -> None:
        """Raises InputError if it is no folder."""
        if dataroot.is_dir():
            return
        if dataroot.exists():
            raise InputError(
                f"--dataroot {dataroot} is a file, but must be a folder with {self.needed}: unpack it first."
            )
        siblings = [folder.name for folder in subfolders(dataroot.absolute().parent)]
        raise InputError(f"--dataroot {dataroot} does not exist.{did_you_mean(dataroot.name, siblings)}")

    def images(self, dataroot: Path, name: str, suggestion: str = "") -> Paths:
        """The images of a subfolder. Raises InputError if there are none; `suggestion` follows a missing folder."""
        folder = dataroot / name
        if not folder.is_dir():
            raise InputError(self.violation(dataroot, f"there is no folder {name}{suggestion}"))
        if files := find(folder):
            return files
        others = f"holds no image ({KINDS} are read), only {_listing(folder)}" if any(folder.iterdir()) else "is empty"
        raise InputError(self.violation(dataroot, f"{name} {others}"))

    def violation(self, dataroot: Path, reason: str) -> str:
        """An error's text, with the layout as it should be and the folder's content."""
        last = list(self.branches)[-1]
        branches = [f"  {'└' if name == last else '├'}── {name}/  {what}" for name, what in self.branches.items()]
        tree = "\n".join([f"  {dataroot.name or dataroot}/", *branches])
        return f"{dataroot} is not {self.kind}: {reason}. Expected:\n{tree}\nIt contains: {_listing(dataroot)}."


def subfolders(folder: Path) -> list[Path]:
    """Sorted; none if there is no such folder."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def suggested(dataroot: Path, name: str) -> str:
    """What was probably meant where there is no folder `name`; empty if nothing is like it."""
    folders = subfolders(dataroot)
    for folder in folders:
        if folder.name.lower() == name and folder.name != name:
            return f" (did you mean {folder.name}? rename it to {name})"
    for folder in folders:
        if (folder / "train").is_dir() and folder.name not in ("A", "B"):
            return f" (did you mean --dataroot {folder}?)"
    return ""


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return shortened(names, LISTED) or "nothing"
