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
    meta, problem = _meta(run, module, version, published)
    others = sorted({*published, *run.store(module).versions()})
    parts = _folder(run, module, version)
    return {
        "run": {"path": quoted(path), "name": shown(run.name)},
        "modules": run.modules,
        "module": module,
        "version": version,
        "present": safe_files.lies(run.path, *parts, META),
        "meta": {name: meta.get(name) for name in _META},
        "files": [_file(run.path, parts, name, expected) for name, expected in _files(meta).items()],
        "trained_against": [{"peer": peer, **used} for peer, used in (meta.get("peers") or {}).items()],
        "used_by": _used_by(run, module, version, history),
        "previous": max((other for other in others if other < version), default=None),
        "next": min((other for other in others if other > version), default=None),
        "problem": problem,
    }


def _folder(run: Run, module: str, version: int) -> tuple[str, ...]:
    return MODULES, module, CHECKPOINTS, run.store(module).folder(version).name


def _meta(run: Run, module: str, version: int, published: Mapping[int, Values]) -> tuple[Values, str | None]:
    """The meta.json of a version, else its line of `published.jsonl`; and what is wrong with it."""
    try:
        return vars(run.store(module).meta(version, follow=False)), None
    except CorruptCheckpoint as error:
        return published.get(version, {}), str(error)
    except MissingCheckpoint:
        if version not in published:
            raise safe_files.NotThere(f"{module} of {shown(run.name)} has no version {version}.") from None
        return published[version], None


def _files(meta: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    files = meta.get("files")
    if not isinstance(files, dict):
        return {}
    return {name: of for name, of in files.items() if isinstance(of, dict) and is_name(os.fsencode(name))}


def _file(root: Path, parts: tuple[str, ...], name: str, expected: Mapping[str, Any]) -> Values:
    present = safe_files.lies(root, *parts, name)
    return {
        "name": name,
        "size": expected.get("size"),
        "sha256": expected.get("sha256"),
        "present": present,
        "download": present and may_download(name),
    }


def may_download(name: str) -> bool:
    """Weights run no code when they are loaded; a `state.pt` is only for its worker."""
    return name.endswith(".safetensors")


def _used_by(run: Run, module: str, version: int, history: History) -> list[Values]:
    return [
        {"module": other, "version": checkpoint.version, "epoch": checkpoint.epoch}
        for other in run.modules
        for checkpoint in history.versions(other)
        if module in checkpoint.peers and version in checkpoint.peers[module]["versions"]
    ]


def verify(run: Run, module: str, version: int) -> Values:
    """Read every file of a version and compare it with `meta.json`; NotThere."""
    parts = _folder(run, module, version)
    try:
        meta = run.store(module).meta(version, follow=False)
    except CorruptCheckpoint as error:
        return {"files": [{"name": META, "ok": False, "says": str(error)}]}
    except MissingCheckpoint:
        raise safe_files.NotThere(f"{module} version {version} is no longer on disk.") from None
    checked = [_checked(run.path, parts, name, expected) for name, expected in _files(vars(meta)).items()]
    return {"files": [{"name": META, "ok": True, "says": "its checksum is right"}, *checked]}


def _checked(root: Path, parts: tuple[str, ...], name: str, expected: Mapping[str, Any]) -> Values:
    """Read block by block; nothing is read where the size is wrong."""
    try:
        with safe_files.opened(root, *parts, name) as descriptor:
            size = os.fstat(descriptor).st_size
            if size != expected.get("size"):
                return {"name": name, "ok": False, "says": f"it has {size} bytes instead of {expected.get('size')}"}
            digest = hashlib.sha256()
            for block in safe_files.blocks(descriptor, size):
                digest.update(block)
    except safe_files.NotThere:
        return {"name": name, "ok": False, "says": "it is missing"}
    except OSError as error:
        return {"name": name, "ok": False, "says": f"it cannot be read: {error.strerror}"}
    ok = digest.hexdigest() == expected.get("sha256")
    return {"name": name, "ok": ok, "says": "its sha256 is right" if ok else "its content is not what was published"}
