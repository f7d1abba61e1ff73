"""Opening files below ROOT: only regular files in real folders. No link is followed, no pipe or device is opened.

Each component is opened relative to the one before it (`filesystem.open_regular`), so that no link can be put in
between. Files that the readers of `storage` open are checked first with `strange`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.layout import (
    CHECKPOINTS,
    EVALUATION,
    HEARTBEAT_FILE,
    METRICS_FILE,
    MODULES,
    PUBLISHED_FILE,
    RUN_FILE,
    STOP_FILE,
    WORKERS_FILE,
)

BLOCK_BYTES = 1 << 18
_OF_RUN = (RUN_FILE, STOP_FILE, MODULES, EVALUATION, f"{EVALUATION}/{METRICS_FILE}")
_OF_MODULE = (HEARTBEAT_FILE, METRICS_FILE, PUBLISHED_FILE, WORKERS_FILE, CHECKPOINTS)
_FOLDERS = (MODULES, EVALUATION, CHECKPOINTS)


class NotThere(InputError):
    """There is no regular file or folder of that name."""


@contextlib.contextmanager
def opened(root: Path, *parts: str) -> Iterator[int]:
    """A read-only descriptor of the regular file at `root/parts...`; NotThere. `root` is a resolved path."""
    descriptor = open_file(root, *parts)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(root: Path, *parts: str) -> int:
    """The same; the caller closes it."""
    names = [name for part in parts for name in part.split("/") if name]
    if {".", ".."} & {*names}:
        raise NotThere(f"There is no {'/'.join(names)!r} here that can be shown.")
    try:
        return filesystem.open_regular(root.joinpath(*names))
    except (OSError, ValueError):
        raise NotThere(f"There is no {names[-1]!r} here that can be shown.") from None


def lies(root: Path, *parts: str) -> bool:
    """Whether there is a regular file."""
    try:
        os.close(open_file(root, *parts))
    except NotThere:
        return False
    return True


def read(root: Path, *parts: str, most: int = 1 << 24) -> bytes:
    """The content of a small regular file; NotThere, also where it is longer than `most` bytes."""
    with opened(root, *parts) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > most:
            raise NotThere(f"{parts[-1]!r} has {size} bytes, more than can be shown.")
        return b"".join(blocks(descriptor, size))


def blocks(descriptor: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file, or what there is of them, piece by piece."""
    while size > 0 and (block := os.read(descriptor, min(BLOCK_BYTES, size))):
        size -= len(block)
        yield block


def last_lines(root: Path, *parts: str, lines: int, most: int = 1 << 16) -> tuple[list[str], int]:
    """The last lines of a text file, at most `most` bytes of them, and the file's size; it may be huge."""
    with opened(root, *parts) as descriptor:
        size = os.fstat(descriptor).st_size
        begin = max(0, size - most)
        content = os.pread(descriptor, most, begin)
    if begin:
        content = content.partition(b"\n")[2] or content
    text = content.replace(b"\0", b"").decode("utf-8", "replace")
    return text.splitlines()[-lines:], size


def strange(run: Path, modules: list[str]) -> str | None:
    """A sentence about the first link, pipe or device among the files of a run; None where there is none.

    Such a run is not shown.
    """
    if Path(os.path.realpath(run)) != run:
        return "its folder is a link, and links are not followed; put the real folder in its place."
    for name in _OF_RUN:
        if problem := _strange(run / name):
            return problem
    for module in modules:
        folder = run / MODULES / module
        if problem := _strange(folder, is_folder=True):
            return problem
        for name in _OF_MODULE:
            if problem := _strange(folder / name):
                return problem
    return None


def _strange(path: Path, *, is_folder: bool = False) -> str | None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if (stat.S_ISDIR if is_folder or path.name in _FOLDERS else stat.S_ISREG)(mode):
        return None
    kind = "a link" if stat.S_ISLNK(mode) else "not a regular file or folder"
    return f"{path.name!r} in it is {kind}, which is not opened; put the real file or folder in its place."
