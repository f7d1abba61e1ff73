"""Manifest: the one file that says what a folder is, `run.json` of a run or `sweep.json` of a sweep."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from modtrain.errors import InputError, ModtrainError, StorageError, did_you_mean, message_of
from modtrain.storage import filesystem
from modtrain.storage.layout import RUN_FILE, SWEEP_FILE

Spec = TypeVar("Spec", bound=BaseModel)
log = logging.getLogger(__name__)

_is_file = os.path.isfile
"""Unlike `Path.is_file` false where a folder on the way cannot be read."""
DEFAULT_ROOT = Path("runs")
MOST_NAMED = 5
"""Folders named in an error where another one was asked for."""
MOST_JSON_BYTES = 1 << 28
"""`jobs.json` of a sweep names each of its tasks."""

Module = Annotated[str, Field(pattern=r"^[^/\x00.][^/\x00]*$", max_length=200)]
"""A module's name is the name of a folder, and cannot lead elsewhere."""


def _check_distinct(placement: list[list[str]]) -> list[list[str]]:
    modules = [module for worker in placement for module in worker]
    if twice := next((module for module in modules if modules.count(module) > 1), None):
        raise ValueError(f"the module {twice!r} is placed twice")
    return placement


Placement = Annotated[
    list[Annotated[list[Module], Field(min_length=1)]],
    Field(min_length=1, max_length=1000),
    AfterValidator(_check_distinct),
]
"""The modules of each worker."""

Count = Annotated[int, Field(gt=0, lt=2**53)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=-1e11, le=1e11, allow_inf_nan=False)]
"""Unix time that has a date."""


def check_name(name: str) -> None:
    """InputError unless the name of a run is one folder name: no slash, no leading dot or dash, all printable."""
    if not name or name.startswith((".", "-")) or "/" in name or not name.isprintable() or len(name.encode()) > 200:
        raise InputError(f"A run cannot be called {name!r}; take a short name without slashes, such as apples-1.")


def create_folder(path: Path, kind: str, file: str, spec: BaseModel, sources: Mapping[str, Path] | None = None) -> None:
    """Create the folder of a new run or sweep with its manifest, and with the content of `sources` under these names.

    InputError where the name is taken or not allowed or a source is gone, StorageError where storage fails.
    """
    sources = sources or {}
    check_name(path.name)
    content = as_json(spec)
    try:
        filesystem.make_folder(path.parent)
        filesystem.publish_folder(path.parent, path.name, {file: content}, sources)
    except FileExistsError:
        is_one = file in filesystem.names(path)  # created by another process meanwhile
        then = ": run the same command again to resume it, or" if is_one else f" and is not a {kind};"
        raise InputError(f"{path} exists already{then} choose another --name.") from None
    except OSError as error:
        if holds(path / file, content):
            log.warning("Creating %s reported an error, but succeeded: %s", path, message_of(error))
            return
        if error.errno == errno.ENOENT and error.filename in map(str, sources.values()):
            raise InputError(f"{error.filename} is gone meanwhile; name another version.") from error
        why = filesystem.why_not_created(error)
        raise refused(f"The {kind}'s folder {path} cannot be created", error, why) from error


def create_output(path: Path, option: str) -> None:
    """Create the folder that an option such as `--out` names; InputError where it cannot be, StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = filesystem.why_not_created(error)
        raise refused(f"{option} {path} cannot be created", error, why) from error


def as_json(spec: BaseModel) -> bytes:
    """The content of a manifest."""
    values = json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return values.encode(errors="backslashreplace") + b"\n"  # JSON's escape of a byte of a name that is not UTF-8


def parse(content: bytes, form: type[Spec]) -> Spec:
    """The values of a manifest; ValueError, such as pydantic's ValidationError, where they are not allowed."""
    if b"\\ud" in content.lower():  # pydantic's parser refuses such an escape
        return form.model_validate(json.loads(content))
    return form.model_validate_json(content)


def read_manifest(path: Path, kind: str, file: str, form: type[Spec]) -> Spec:
    """The manifest of a folder; InputError where there is none or a damaged one, StorageError where storage fails."""
    try:
        return parse(filesystem.read_file(path / file, most=filesystem.SMALL_BYTES), form)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_missing(path, kind, file)) from None
    except OSError as error:
        raise refused(f"{path / file} cannot be read", error) from error
    except ValidationError as error:
        first = error.errors()[0]
        says = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path / file} is damaged or of another version: {where}: {says}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path / file} is damaged: {error}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where the file does not exist.

    StorageError where it cannot be read, InputError where it is not a JSON object: neither means that it is empty.
    """
    try:
        values = json.loads(filesystem.read_file(path, most=MOST_JSON_BYTES, follow=False))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Try again when storage answers.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is damaged: it does not hold a JSON object.")
    return values


def holds(path: Path, content: bytes) -> bool:
    """Whether a file can be read and has this content."""
    try:
        return filesystem.read_file(path, most=len(content)) == content
    except OSError:
        return False


def refused(what: str, error: OSError, why: str | None = None) -> ModtrainError:
    """StorageError for a failure of storage, InputError for an answer of it."""
    sentence = f"{what}: {why or error.strerror}."
    if filesystem.fault_of(error) is None:
        return InputError(sentence)
    return StorageError(f"{sentence} Try again when storage answers.")


def _missing(path: Path, kind: str, file: str) -> str:
    """Why there is no such folder, and which ones there are instead; unreadable folders are not mentioned."""
    for other, manifest in (("run", RUN_FILE), ("sweep", SWEEP_FILE)):
        if other != kind and _is_file(path / manifest):
            return f"{path} is a {other}, not a {kind}; `modtrain status {path}` shows it."
    why = f"no {file}" if path.is_dir() else "a file" if path.exists() else "no such folder"
    if not path.is_absolute() and _is_file(DEFAULT_ROOT / path / file):
        return f"There is no {kind} in {path} ({why}). Did you mean {DEFAULT_ROOT / path}?"
    for place in (path, path.parent):
        there = [name for name in filesystem.names(place) if _is_file(place / name / file)] if place.is_dir() else []
        if there:
            others = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
            near = did_you_mean(path.name, there) if place != path else ""
            says = f"There is no {kind} in {path} ({why}); {place} has {', '.join(there[-MOST_NAMED:])}{others}.{near}"
            return f"{says} `modtrain watch {path}` shows all." if place == path else says
    return f"There is no {kind} in {path} ({why}); give the folder of a {kind}, such as runs/apples."
