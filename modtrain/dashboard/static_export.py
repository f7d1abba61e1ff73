"""Export: the same pages as files that open from disk, with the data in each page and no weights.

A page appears whole. The folder records what an export wrote, so that the next one replaces only that.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modtrain.dashboard import safe_files
from modtrain.dashboard.assets import STATIC, plotly
from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import build_version
from modtrain.dashboard.routes import html
from modtrain.dashboard.urls import base_of, is_name, quoted, shown, unquoted
from modtrain.errors import InputError
from modtrain.storage.layout import EVALUATION

MARK = "modtrain-export.json"
MOST_CHECKPOINTS = 5
"""Of each module, the newest versions present; each has a page."""
MOST_GRIDS = 24
"""Of each run, the newest."""

Values = dict[str, Any]


@dataclass
class Written:
    """What an export wrote."""

    target: Path
    files: set[str] = field(default_factory=set)
    """Relative to the folder, as addresses."""
    pages: int = 0

    def write(self, address: str, content: bytes) -> None:
        """Write or replace a file; its folders are created."""
        path = self.target / _place(address)
        if address not in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
        self.files.add(address)


def export(root: Path, target: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> Written:
    """Write every page; `progress(done, all)` counts runs and sweeps. InputError for a foreign target."""
    before = _check(root, target)
    written, source = Written(target.resolve()), Source(root.resolve(), refresh_s=math.inf)
    written.target.mkdir(parents=True, exist_ok=True)
    _note(written, before)
    for file in sorted(STATIC.iterdir()):
        if file.is_file():
            written.write(f"static/{file.name}", file.read_bytes())
    written.write("static/plotly.min.js", plotly())
    source.catalog.settle()
    data = source.runs()
    rows = data["runs"]
    for number, row in enumerate(rows):
        progress(number, len(rows))
        with suppress(InputError):  # removed meanwhile
            _subject(written, source, row["kind"], unquoted(row["path"]) or "")
    progress(len(rows), len(rows))
    _page(written, "runs", "Runs", "", ".", data)
    _remove(written, before - written.files)
    _note(written, set())
    return written


def _subject(written: Written, source: Source, kind: str, path: str) -> None:
    """Write the page of a run or a sweep, and those of its trials or checkpoints."""
    data = source.data(kind, path)
    if kind == "sweep":
        for trial in data["trials"]:
            if trial["state"] in ("created", "queued"):
                continue  # it has no run yet, and nothing leads to one
            with suppress(InputError):  # removed meanwhile
                _subject(written, source, "run", unquoted(trial["path"]) or "")
    elif data["problem"] is None:
        data["grids"] = [grid for grid in data["grids"][-MOST_GRIDS:] if _grid(written, source, path, grid["file"])]
        data["pages"] = {lane["module"]: _present(lane) for lane in data["lanes"]}
        for module, versions in data["pages"].items():
            for version in versions:
                _checkpoint(written, source, path, module, version, data["pages"])
    _page(written, kind, shown(path or source.root.name), f"{kind}/{_folder(path)}", quoted(path), data)


def _present(lane: Values) -> list[int]:
    present = set(lane["present"])
    return [version["version"] for version in lane["versions"] if version["version"] in present][-MOST_CHECKPOINTS:]


def _checkpoint(written: Written, source: Source, path: str, module: str, version: int, pages: Values) -> None:
    with suppress(InputError):
        data = {**source.checkpoint(path, module, version, fresh=False), "pages": pages}
        for file in data["files"]:
            file["download"] = False
        address = f"checkpoint/{_folder(path)}{quoted(module)}/{version}/"
        _page(written, "checkpoint", f"{module} v{version} of {shown(path)}", address, quoted(path), data)


def _grid(written: Written, source: Source, path: str, file: str) -> bool:
    try:
        content = safe_files.read(source.root, path, EVALUATION, file)
    except (safe_files.NotThere, OSError):
        return False
    written.write(f"grid/{_folder(path)}{quoted(file)}", content)
    return True


def _page(written: Written, kind: str, title: str, address: str, path: str, data: Values) -> None:
    text = html(kind, title, build_version(data).payload, base=base_of(address), path=path, live=False)
    written.write(f"{address}index.html", text.encode())
    written.pages += 1


def _folder(path: str) -> str:
    return f"{quoted(path)}/" if path else ""


def _place(address: str) -> Path:
    """The path of an address: a browser reads it percent-decoded from disk."""
    path = unquoted(address)
    if path is None:
        raise InputError(f"{address!r} cannot be written.")
    return Path(path)


def _check(root: Path, target: Path) -> set[str]:
    """The files of an earlier export in the folder; InputError where it contains anything else."""
    if target.resolve().is_relative_to(root.resolve()):
        raise InputError(f"--export {target} lies in {root}, where nothing is written; take a folder elsewhere.")
    if not os.path.lexists(target):
        return set()
    if not target.is_dir():
        raise InputError(f"--export {target} is a file; take a new folder.")
    if not (target / MARK).is_file():
        if any(target.iterdir()):
            raise InputError(f"--export {target} is not empty and no earlier export; take a new folder.")
        return set()
    try:
        return {str(file) for file in json.loads((target / MARK).read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{target / MARK} is damaged; remove {target}, or take a new folder.") from None


def _note(written: Written, more: set[str]) -> None:
    """Also before the first page, so that an interrupted export can be repeated."""
    content = json.dumps({"what": "written by modtrain dashboard --export", "files": sorted(written.files | more)})
    _replace(written.target / MARK, content.encode())


def _remove(written: Written, old: set[str]) -> None:
    """Remove what an earlier export wrote and this one did not, with folders that become empty."""
    for address in old:
        path = unquoted(address)
        if path is None or not all(is_name(os.fsencode(part)) for part in path.split("/")):
            continue
        place = written.target / path
        if place.parent.resolve().is_relative_to(written.target):
            with suppress(OSError):
                place.unlink()
            for folder in _above(place, written.target):
                with suppress(OSError):
                    folder.rmdir()


def _above(place: Path, top: Path) -> Iterator[Path]:
    yield from (folder for folder in place.parents if folder != top and folder.is_relative_to(top))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".tmp-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
