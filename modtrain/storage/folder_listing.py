"""Folder listing: a checksum by which the data of a run is recognised at another place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from modtrain.storage.filesystem import fault_of

MOST_FILES = 2000
"""Files that the checksum covers: a data set of millions of files on a network file system is not read as a whole."""


def listing_sha256(folder: Path) -> str:
    """Checksum over relative names and sizes of the first files, in sorted order; hidden files do not count."""
    listing = hashlib.sha256()
    for path in islice(_files(folder), MOST_FILES):
        listing.update(os.fsencode(path.relative_to(folder)) + b"\0%d\n" % path.stat().st_size)
    return listing.hexdigest()


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    if fault_of(error):
        raise error


def _files(folder: Path) -> Iterator[Path]:
    seen = set[str]()
    for path, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(path)) in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = (Path(path, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in below if file.is_file())
