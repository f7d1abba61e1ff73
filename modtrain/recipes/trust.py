"""Trust: whether the code that a run or a sweep names may be executed. Its folder may come from another user.

A recipe or tracker of the package, of an entry point or of an importable module was installed, and is trusted. A file
is trusted where it belongs to this user and not every user can write to it, or where the run belongs to this user and
the file is elsewhere: then it was chosen, and not found in the folder. A recipe file must also have the checksum of the
run. `--trust-recipe` trusts any file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from modtrain import plugins
from modtrain.errors import InputError

ROOT = 0
"""User id whose files every user trusts."""
HOW = "read it, then trust it with --trust-recipe (in Python with trusted=True)"


def check_files(manifest: Path, recipe: str, trackers: Iterable[str]) -> None:
    """InputError where the recipe or a tracker that a `run.json` or `sweep.json` names is a file that is not trusted.

    Nothing is executed, and checksums are not compared. A manifest that does not exist yet is this user's own.
    """
    for kind, name in (("recipe", recipe), *(("tracker", tracker) for tracker in trackers)):
        path = Path(name).expanduser()
        if plugins.is_file(name) and path.is_file() and (problem := _problem(path.resolve(), manifest.resolve())):
            raise InputError(f"The {kind} {path} {problem}; {HOW}.")


def is_own(path: Path) -> bool:
    """Whether a file belongs to this user or to root, and not every user can write to it; true where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return True
    return status.st_uid in (os.geteuid(), ROOT) and not status.st_mode & stat.S_IWOTH


def _problem(path: Path, manifest: Path) -> str:
    """Why a file is not trusted; empty where it is."""
    folder = manifest.parent
    if is_own(path):
        return ""
    why = "every user can write to it" if path.stat().st_mode & stat.S_IWOTH else "it belongs to another user"
    if path.is_relative_to(folder):
        return f"is in the folder of {folder.name}, and {why}"
    if path.parent == folder.parent:
        return f"is beside the folder of {folder.name}, and {why}"
    return "" if is_own(manifest) else f"is named by {manifest}, which may be another user's, and {why}"
