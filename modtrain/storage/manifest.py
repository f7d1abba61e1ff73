"""What runs and sweeps have in common as folders: how one appears, the one file that says what it is, the stop file.

Deliberately not here: what the file says (`run.py`, `trials.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from modtrain.errors import InputError, did_you_mean
from modtrain.storage import filesystem

Spec = TypeVar("Spec", bound=BaseModel)

RUN_FILE, SWEEP_FILE, STOP_FILE = "run.json", "sweep.json", "stop"
MOST_NAMED = 5
"""Folders that are named where another one was asked for."""


def check_name(name: str) -> None:
    """A run's name is one folder name: no slash, no leading dot or dash, nothing that cannot be shown."""
    if not name or name.startswith((".", "-")) or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise InputError(f"A run cannot be called {name!r}; take a short name without slashes, such as apples-1.")


def create_folder(path: Path, kind: str, file: str, spec: BaseModel) -> None:
    """Make the folder of a new run or sweep appear, complete; InputError where the name is taken or not allowed."""
    check_name(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.publish_folder(path.parent, path.name, {file: written(spec)})
    except FileExistsError:
        is_one = file in filesystem.names(path)  # it was not there when we looked: somebody else was quicker
        again = "the same command again goes on with it, or" if is_one else f"and is no {kind};"
        raise InputError(f"{path} exists already: {again} choose another --name.") from None
    except OSError as error:
        raise InputError(f"The {kind}'s folder {path} cannot be made: {error.strerror}.") from error


def written(spec: BaseModel) -> bytes:
    """What `run.json` or `sweep.json` holds."""
    return spec.model_dump_json(indent=2).encode() + b"\n"


def read_folder(path: Path, kind: str, file: str, form: type[Spec]) -> Spec:
    """What the one file of a run's or a sweep's folder says; InputError where there is none, or a damaged one."""
    try:
        return form.model_validate_json(filesystem.read_small(path / file))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_none_there(path, kind, file)) from None
    except OSError as error:
        raise InputError(f"{path / file} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path / file} is damaged or of another version: {where}: {first['msg']}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        return dict(json.loads(filesystem.read_file(path, most=1 << 28)))  # a sweep names each of its tasks
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def stop_reason(folder: Path) -> str | None:
    """Of a stop request of a run or a sweep. The folder is listed: a polled missing name stays missing on NFS."""
    return said_in_stop(folder) if STOP_FILE in filesystem.names(folder) else None


def said_in_stop(folder: Path) -> str | None:
    """The same where it was listed already. Whatever is called so asks; a link, a pipe or a whole book is not read."""
    said = filesystem.read_note(folder / STOP_FILE)
    return None if said is None else said.decode(errors="replace") or "no reason given"


def _none_there(path: Path, kind: str, file: str) -> str:
    """Why not, and what there is instead; of folders that others have closed nothing is said."""
    for other, its in (("run", RUN_FILE), ("sweep", SWEEP_FILE)):
        if other != kind and _is_file(path / its):
            return f"{path} is a {other}, and no {kind}; `modtrain status {path}` shows it."
    why = f"no {file}" if path.is_dir() else "no such folder"
    for place in (path, path.parent):
        there = [name for name in filesystem.names(place) if _is_file(place / name / file)] if place.is_dir() else []
        if there:
            others = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
            near = did_you_mean(path.name, there) if place != path else ""
            return f"There is no {kind} in {path} ({why}); {place} has {', '.join(there[-MOST_NAMED:])}{others}.{near}"
    return f"There is no {kind} in {path} ({why}); give the folder of a {kind}, such as runs/apples."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
