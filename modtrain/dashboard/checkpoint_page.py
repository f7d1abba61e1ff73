"""The checkpoint page's data: what is in one version of a module, what it saw and what saw it, and whether it is
sound.

Deliberately not here: loading weights. Nothing is read but `meta.json`, until somebody asks to verify.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modtrain.dashboard import safe_files
from modtrain.dashboard.urls import is_name, quoted, shown
from modtrain.errors import CorruptCheckpoint
from modtrain.storage.checkpoint import META, Checkpoint
from modtrain.storage.history import History
from modtrain.storage.run import Run

Values = dict[str, Any]
_TOLD = ("epoch", "step", "full", "final", "writer", "published_at", "metrics")


def checkpoint_page(run: Run, path: str, module: str, version: int, history: History) -> Values:
    """Of a version that is there, or was; NotThere where nobody published it."""
    published = {each.version: vars(each) for each in history.versions(module)}
    meta, problem = _meta(run, module, version, published)
    others = sorted({*published, *run.store(module).versions()})
    parts = ("modules", module, "checkpoints", run.store(module).folder(version).name)
    return {
        "run": {"path": quoted(path), "name": shown(run.name)},
        "modules": run.modules,
        "module": module,
        "version": version,
        "present": safe_files.lies(run.path, *parts, META),
        "meta": {name: meta.get(name) for name in _TOLD},
        "files": [_file(run.path, parts, name, of) for name, of in _files(meta).items()],
        "saw": [{"peer": peer, **used} for peer, used in (meta.get("peers") or {}).items()],
        "seen_by": _seen_by(run, module, version, history),
        "previous": max((other for other in others if other < version), default=None),
        "next": min((other for other in others if other > version), default=None),
        "problem": problem,
    }


def _meta(run: Run, module: str, version: int, published: Mapping[int, Values]) -> tuple[Values, str | None]:
    """What the version says of itself, else what its line said; and what is wrong with it."""
    try:
        return vars(_unsealed(run, module, version)), None
    except CorruptCheckpoint as error:
        return published.get(version, {}), str(error)
    except safe_files.NotThere:
        if version not in published:
            raise safe_files.NotThere(f"{module} of {shown(run.name)} has no version {version}.") from None
        return published[version], None


def _unsealed(run: Run, module: str, version: int) -> Checkpoint:
    """What a version says of itself, as its store reads it; CorruptCheckpoint, NotThere."""
    path = run.store(module).folder(version) / META
    content = safe_files.read(run.path, "modules", module, "checkpoints", path.parent.name, META)
    try:
        checkpoint = Checkpoint.unseal(content, path)
    except RecursionError as error:
        raise CorruptCheckpoint(f"{path} is damaged: {error}.") from error
    if (checkpoint.version, checkpoint.module) != (version, module):
        raise CorruptCheckpoint(f"{path} belongs to {checkpoint.module} version {checkpoint.version}.")
    return checkpoint


def _files(meta: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    files = meta.get("files")
    if not isinstance(files, dict):
        return {}
    return {name: of for name, of in files.items() if isinstance(of, dict) and is_name(os.fsencode(name))}


def _file(root: Path, parts: tuple[str, ...], name: str, of: Mapping[str, Any]) -> Values:
    present = safe_files.lies(root, *parts, name)
    told = {"name": name, "size": of.get("size"), "sha256": of.get("sha256"), "present": present}
    return {**told, "download": present and may_download(name)}


def may_download(name: str) -> bool:
    """Weights run no code when they are loaded; a state.pt is its owner's alone."""
    return name.endswith(".safetensors")


def _seen_by(run: Run, module: str, version: int, history: History) -> list[Values]:
    return [
        {"module": other, "version": checkpoint.version, "epoch": checkpoint.epoch}
        for other in run.modules
        for checkpoint in history.versions(other)
        if module in checkpoint.peers and version in checkpoint.peers[module]["versions"]
    ]


def verify(run: Run, module: str, version: int) -> Values:
    """Read every file of a version and say of each whether it is what `meta.json` names; NotThere."""
    parts = ("modules", module, "checkpoints", run.store(module).folder(version).name)
    try:
        meta = _unsealed(run, module, version)
    except CorruptCheckpoint as error:
        return {"files": [{"name": META, "ok": False, "says": str(error)}]}
    checked = [_checked(run.path, parts, name, expected) for name, expected in _files(vars(meta)).items()]
    return {"files": [{"name": META, "ok": True, "says": "its seal is right"}, *checked]}


def _checked(root: Path, parts: tuple[str, ...], name: str, expected: Mapping[str, Any]) -> Values:
    """By blocks, and nothing where the size is wrong already."""
    try:
        with safe_files.opened(root, *parts, name) as descriptor:
            size = os.fstat(descriptor).st_size
            if size != expected.get("size"):
                return {"name": name, "ok": False, "says": f"it has {size} bytes instead of {expected.get('size')}"}
            digest = hashlib.sha256()
            for block in safe_files.blocks(descriptor, size):
                digest.update(block)
    except safe_files.NotThere:
        return {"name": name, "ok": False, "says": "it is not there"}
    except OSError as error:
        return {"name": name, "ok": False, "says": f"it cannot be read: {error.strerror}"}
    ok = digest.hexdigest() == expected.get("sha256")
    return {"name": name, "ok": ok, "says": "its sha256 is right" if ok else "its content is not what was published"}
