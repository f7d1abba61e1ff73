"""Folder listing: a checksum by which the data of a run is recognised at another place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

MOST_FILES = 2000
"""Files that the checksum covers: a data set of millions of files on a network file system is not read as a whole."""


NOT_DATA = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)
"""Names, in small letters, of what systems and archivers put into folders; what begins with a dot is none either."""


def listing_sha256(folder: Path) -> str:
    """Checksum over relative names and sizes of the first files, in sorted order, as `data_files` lists them."""
    listing = hashlib.sha256()
    for path in islice(data_files(folder), MOST_FILES):
        size = path.stat().st_size if path.exists() else 0
        listing.update(os.fsencode(path.relative_to(folder)) + b"\0%d\n" % size)
    return listing.hexdigest()


def data_files(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its subfolders that a person put there; links are followed, or lead nowhere.

    The files of a folder are sorted, and come before those of its subfolders. OSError where a folder cannot be read.
    """
    seen = set[str]()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        if (real := os.path.realpath(path)) in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(_is_data, folders))
        below = (Path(path, name) for name in sorted(filter(_is_data, names)))
        yield from (file for file in below if file.is_file() or (file.is_symlink() and not file.exists()))


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in NOT_DATA


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    if not isinstance(error, FileNotFoundError):
        raise error
