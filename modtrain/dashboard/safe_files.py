"""Opening files below ROOT: only regular files in real folders. No link is followed, no pipe or device is opened.

Each component is opened relative to the one before it (`filesystem.open_regular`), so that no link can be put in
between. Files that the readers of `storage` open are checked first with `strange`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from io import BufferedReader
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


class NotThere(InputError):
    """There is no regular file or folder of that name."""


def open_file(root: Path, *parts: str) -> BufferedReader:
    """The regular file at `root/parts...`, open to be read; NotThere. `root` is a resolved path."""
    names = [name for part in parts for name in part.split("/") if name]
    try:
        if {".", ".."} & {*names}:
            raise ValueError
        return filesystem.opened(root.joinpath(*names))
    except (OSError, ValueError):
        raise NotThere(f"There is no {names[-1]!r} here that can be shown.") from None


def lies(root: Path, *parts: str) -> bool:
    """Whether there is a regular file."""
    try:
        open_file(root, *parts).close()
    except NotThere:
        return False
    return True


def read(root: Path, *parts: str, most: int = 1 << 24) -> bytes:
    """The content of a small regular file; NotThere, also where it is longer than `most` bytes."""
    with open_file(root, *parts) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise NotThere(f"{parts[-1]!r} has more than {most} bytes, which is more than can be shown.")
    return content


def last_lines(root: Path, *parts: str, lines: int, most: int = 1 << 16) -> tuple[list[str], int]:
    """The last lines of a text file, at most `most` bytes of them, and its size; none and 0 where it is not there."""
    try:
        file = open_file(root, *parts)
    except NotThere:
        return [], 0
    with file:
        size = os.fstat(file.fileno()).st_size
        begin = max(0, size - most)
        content = os.pread(file.fileno(), most, begin)
    if begin:
        content = content.partition(b"\n")[2] or content
    text = content.replace(b"\0", b"").decode("utf-8", "replace")
    return text.splitlines()[-lines:], size


def strange(run: Path, modules: Iterable[str]) -> str | None:
    """A sentence about the first link, pipe or device among the files of a run; None where there is none.

    Such a run is not shown.
    """
    if Path(os.path.realpath(run)) != run:
        return "its folder is a link, and links are not followed; put the real folder in its place."
    folders = [run / MODULES, run / EVALUATION]
    files = [run / RUN_FILE, run / STOP_FILE, run / EVALUATION / METRICS_FILE]
    for folder in (run / MODULES / module for module in modules):
        folders += [folder, folder / CHECKPOINTS]
        files += [folder / name for name in (HEARTBEAT_FILE, METRICS_FILE, PUBLISHED_FILE, WORKERS_FILE)]
    for path in (*folders, *files):
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if not (stat.S_ISDIR if path in folders else stat.S_ISREG)(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "not a regular file or folder"
            return f"{path.name!r} in it is {kind}, which is not opened; put the real file or folder in its place."
    return None
