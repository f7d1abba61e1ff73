"""The folders of a super-resolution data set: large images to train on, others to evaluate on, and small ones of these.

Without small images they are made by bicubic downsampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modtrain.data.folder_layout import FolderLayout, subfolders, suggested
from modtrain.data.images import Paths, find
from modtrain.errors import InputError, shortened

LAYOUT = FolderLayout(
    kind="a super-resolution data set",
    needed="train",
    branches={
        "train": "large images, to train on",
        "test": "to evaluate on; or val",
        "test_LR/X4": "small ones of these with the same names, or with x4 at their end; bicubic ones without it",
    },
)
HELD_OUT = ("test", "val")
NAMED = 8
"""Number of images that an error names."""


@dataclass(frozen=True, kw_only=True)
class HrSplit:
    """Large images for training, or those to evaluate on."""

    images: Paths
    small: Paths | None = None
    """The small image of each; None where there are none."""


Splits = Mapping[str, HrSplit]
"""`train`, and of `test` and `val` those that are there."""


def hr_folders(dataroot: Path, scale: int | None = None) -> Splits:
    """The images of each split, with a scale also the small ones of those to evaluate on.

    Raises InputError with the expected layout, or where large images lack a small one.
    """
    LAYOUT.check_dataroot(dataroot)
    if dataroot.name in ("train", *HELD_OUT) and not (dataroot / "train").is_dir():
        raise InputError(f"{dataroot} is one part of a data set: give the folder above, {dataroot.absolute().parent}.")
    found = [name for name in HELD_OUT if (dataroot / name).is_dir()]
    return {name: _split(dataroot, name, scale) for name in ("train", *found)}


def _split(dataroot: Path, name: str, scale: int | None) -> HrSplit:
    images = LAYOUT.images(dataroot, name, suggested(dataroot, name) if name == "train" else "")
    small = dataroot / f"{name}_LR"
    if scale is None or name == "train" or not small.is_dir():
        return HrSplit(images=images)
    folder = next((each for each in subfolders(small) if each.name.lower() == f"x{scale}"), None)
    if folder is None:
        raise InputError(
            f"{small} has no folder X{scale}, the images for a scale of {scale}; add it, or remove {small}."
        )
    return HrSplit(images=images, small=_small(images, dataroot / name, folder, scale))


def _small(images: Paths, large: Path, folder: Path, scale: int) -> Paths:
    """The small image of each large one."""
    stems = {path.relative_to(folder).with_suffix("").as_posix(): path for path in find(folder)}
    names = [path.relative_to(large).with_suffix("").as_posix() for path in images]
    found = [stems.get(name) or stems.get(f"{name}x{scale}") for name in names]
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        raise InputError(
            f"{folder} lacks the small images of {shortened(missing, NAMED)}; add them, or remove {folder}."
        )
    return tuple(path for path in found if path is not None)
