"""Export: the same pages as files that open from disk, with the data in each page and no weights.

A page appears whole. The folder records what an export wrote, so that the next one replaces only that.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from modtrain.dashboard import safe_files
from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import build_version
from modtrain.dashboard.routes import PLOTLY, STATIC, asset, html
from modtrain.dashboard.thinning import evenly
from modtrain.dashboard.urls import base_of, quoted, unquoted
from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.layout import EVALUATION
from modtrain.storage.manifest import create_output

MARK = "modtrain-export.json"
MOST_CHECKPOINTS = 5
"""Of each module, the newest versions present; each has a page."""
MOST_GRIDS = 24
"""Of each run; of more, evenly some."""


class Exported(NamedTuple):
    """What an export holds; the trials of a sweep are part of it."""

    runs: int
    sweeps: int
    pages: int


def export(root: Path, target: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> Exported:
    """Write every page; `progress(done, all)` counts runs and sweeps.

    InputError for a target that is not a new or empty folder or an earlier export.
    """
    before = _check(root, target)
    writing = _Export(root, target)
    writing.record(before)
    for file in (PLOTLY, *filesystem.names(STATIC)):
        writing.write(f"static/{file}", asset(file).content)
    writing.source.catalog.settle()
    data = writing.source.runs()
    for number, row in enumerate(data["runs"]):
        progress(number, len(data["runs"]))
        writing.subject(row["kind"], row["path"])
    progress(len(data["runs"]), len(data["runs"]))
    writing.page("runs", "", data)
    writing.remove(before - writing.files)
    writing.record(set())
    kinds = [row["kind"] for row in data["runs"]]
    return Exported(kinds.count("run"), kinds.count("sweep"), writing.pages)


class _Export:
    """An export under way: pages of a root, written below a target."""

    def __init__(self, root: Path, target: Path) -> None:
        self.source, self.target = Source(root.resolve(), refresh_s=math.inf), target.resolve()
        self.files = set[str]()
        """Written so far, as addresses below the target."""
        self.pages = 0
        create_output(self.target, "--export")

    def subject(self, kind: str, address: str) -> None:
        """Write the page of a run or a sweep, and those of its trials or checkpoints; none if it was removed."""
        path = unquoted(address) or ""
        with suppress(InputError):
            data = self.source.data(kind, path)
            if kind == "sweep":
                self.losses(path, data)
                for trial in data.get("trials", ()):
                    if trial["state"] not in ("created", "queued"):  # those have no run yet, and nothing leads to one
                        self.subject("run", trial["path"])
            elif data["problem"] is None:
                data["grids"] = [each for each in evenly(data["grids"], MOST_GRIDS) if self.grid(path, each["file"])]
                data["pages"] = {lane["module"]: _with_page(lane) for lane in data["lanes"]}
                for module, versions in data["pages"].items():
                    for version in versions:
                        self.checkpoint(path, module, version, data["pages"])
            self.page(kind, quoted(path), data)

    def losses(self, path: str, data: dict[str, Any]) -> None:
        """Add the curves of the losses to the page of a sweep, which cannot load them later."""
        measured = {curve["name"] for curve in data.get("curves", ())}
        data["scalars"] = [each for each in data.get("scalars", ()) if each.endswith(".loss")]
        for name in data["scalars"]:
            if name not in measured:
                with suppress(InputError):
                    data["curves"] = [*data["curves"], *self.source.scalar_curves(path, name)]

    def checkpoint(self, path: str, module: str, version: int, pages: dict[str, list[int]]) -> None:
        """Write the page of a version, without downloads; `pages` are the versions that have one."""
        with suppress(InputError):
            data = {**self.source.checkpoint(path, module, version), "pages": pages}
            data["files"] = [{**file, "download": False} for file in data["files"]]
            self.page("checkpoint", f"{quoted(path)}/{quoted(module)}/{version}", data)

    def grid(self, path: str, file: str) -> bool:
        """Write a sample grid; False where it cannot be read."""
        try:
            content = safe_files.read(self.source.root, path, EVALUATION, file)
        except (safe_files.NotThere, OSError):
            return False
        self.write(f"grid/{quoted(path)}/{quoted(file)}", content)
        return True

    def page(self, kind: str, path: str, data: dict[str, Any]) -> None:
        """Write a page; `path` is its address below the kind, `.` that of a root that is a run or a sweep."""
        address = f"{kind}/{path}/".replace("/./", "/") if path else ""
        text = html(kind, build_version(data).data, base=base_of(address), path=path or ".", live=False)
        self.write(f"{address}index.html", text.encode())
        self.pages += 1

    def write(self, address: str, content: bytes) -> None:
        """Write or replace a file; its folders are created."""
        address = address.replace("/./", "/")
        path = unquoted(address)  # a browser reads it percent-decoded from disk
        if path is None:
            raise InputError(f"{address!r} cannot be written.")
        (self.target / path).parent.mkdir(parents=True, exist_ok=True)
        _replace(self.target / path, content)
        self.files.add(address)

    def record(self, more: set[str]) -> None:
        """Write which files are an export's; also before the first page, so that it can be repeated if interrupted."""
        content = {"what": "written by modtrain dashboard --export", "files": sorted(self.files | more)}
        _replace(self.target / MARK, json.dumps(content).encode())

    def remove(self, old: set[str]) -> None:
        """Remove what an earlier export wrote and this one did not, with folders that become empty."""
        for address in old:
            place = self.target / (unquoted(address) or MARK)
            if place.parent.resolve().is_relative_to(self.target) and place != self.target / MARK:
                place.unlink(missing_ok=True)
                with suppress(OSError):  # as soon as a folder is not empty
                    for folder in place.relative_to(self.target).parents[:-1]:
                        (self.target / folder).rmdir()


def _with_page(lane: dict[str, Any]) -> list[int]:
    return sorted({*lane["present"]} & {each["version"] for each in lane["versions"]})[-MOST_CHECKPOINTS:]


def _check(root: Path, target: Path) -> set[str]:
    """The files of an earlier export in the folder; InputError where it contains anything else."""
    if target.resolve().is_relative_to(root.resolve()):
        raise InputError(f"--export {target} lies in {root}, where nothing is written; take a folder elsewhere.")
    if os.path.lexists(target) and not target.is_dir():
        raise InputError(f"--export {target} is a file; take a new folder.")
    if not (target / MARK).is_file():
        if filesystem.names(target):
            raise InputError(f"--export {target} is not empty and no earlier export; take a new folder.")
        return set()
    try:
        return {str(file) for file in json.loads((target / MARK).read_bytes())["files"]}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{target / MARK} is damaged; remove {target}, or take a new folder.") from None


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".tmp-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
