"""The checkpoint page's data: the files of one version of a module, its lineage, and the result of verifying it.

No weights are loaded; only `meta.json` is read, until a reader verifies the version.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modtrain.dashboard import safe_files
from modtrain.dashboard.urls import is_name, quoted, shown
from modtrain.errors import CorruptCheckpoint, MissingCheckpoint
from modtrain.storage.checkpoint import META
from modtrain.storage.history import History
from modtrain.storage.layout import CHECKPOINTS, MODULES
from modtrain.storage.run import Run

Values = dict[str, Any]
_META = ("epoch", "step", "full", "final", "writer", "published_at", "metrics")


def checkpoint_page(run: Run, path: str, module: str, version: int, history: History) -> Values:
    """A version that is present, or was; NotThere where it was never published."""
    published = {each.version: vars(each) for each in history.versions(module)}
    problem = None
    try:
        meta = vars(run.store(module).meta(version, follow=False))
    except CorruptCheckpoint as error:
        meta, problem = published.get(version, {}), str(error)
    except MissingCheckpoint:
        if version not in published:
            raise safe_files.NotThere(f"{module} of {shown(run.name)} has no version {version}.") from None
        meta = published[version]
    others = {*published, *run.store(module).versions()}
    parts = _folder(run, module, version)
    files = {name: (expected, safe_files.lies(run.path, *parts, name)) for name, expected in _files(meta).items()}
    return {
        "run": {"path": quoted(path), "name": shown(run.name)},
        "modules": run.modules,
        "module": module,
        "version": version,
        "present": safe_files.lies(run.path, *parts, META),
        "meta": {name: meta.get(name) for name in _META},
        "files": [
            {"name": name, "size": expected.get("size"), "sha256": expected.get("sha256")}
            | {"present": is_present, "download": is_present and may_download(name)}
            for name, (expected, is_present) in files.items()
        ],
        "trained_against": [{"peer": peer, **used} for peer, used in (meta.get("peers") or {}).items()],
        "used_by": [
            {"module": other, "version": checkpoint.version, "epoch": checkpoint.epoch}
            for other in run.modules
            for checkpoint in history.versions(other)
            if module in checkpoint.peers and version in checkpoint.peers[module]["versions"]
        ],
        "previous": max((other for other in others if other < version), default=None),
        "next": min((other for other in others if other > version), default=None),
        "problem": problem,
    }


def may_download(name: str) -> bool:
    """Weights run no code when they are loaded; a `state.pt` is only for its worker."""
    return name.endswith(".safetensors")


def verify(run: Run, module: str, version: int) -> Values:
    """Read every file of a version and compare it with `meta.json`; NotThere."""
    try:
        meta = run.store(module).meta(version, follow=False)
    except CorruptCheckpoint as error:
        return {"files": [{"name": META, "ok": False, "says": str(error)}]}
    except MissingCheckpoint:
        raise safe_files.NotThere(f"{module} version {version} is no longer on disk.") from None
    checked = [{"name": META, "ok": True, "says": "its checksum is right"}]
    for name, expected in _files(vars(meta)).items():
        problem = _problem(run.path, (*_folder(run, module, version), name), expected)
        checked.append({"name": name, "ok": not problem, "says": problem or "its sha256 is right"})
    return {"files": checked}


def _folder(run: Run, module: str, version: int) -> tuple[str, ...]:
    return MODULES, module, CHECKPOINTS, run.store(module).folder(version).name


def _files(meta: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    files = meta.get("files")
    items = files.items() if isinstance(files, dict) else ()
    return {name: of for name, of in items if isinstance(of, dict) and is_name(os.fsencode(name))}


def _problem(root: Path, parts: tuple[str, ...], expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, read block by block; nothing is read where the size is wrong."""
    try:
        with safe_files.open_file(root, *parts) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected.get("size"):
                return f"it has {size} bytes instead of {expected.get('size')}"
            digest = hashlib.file_digest(file, "sha256")
    except safe_files.NotThere:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if digest.hexdigest() == expected.get("sha256") else "its content is not what was published"
