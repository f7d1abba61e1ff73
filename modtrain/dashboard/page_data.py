"""Source: the data of each page, read from the folders; what is read again and again is read incrementally."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from modtrain.dashboard import run_page, safe_files, sweep_page
from modtrain.dashboard.checkpoint_page import checkpoint_page, verify
from modtrain.dashboard.safe_files import NotThere
from modtrain.dashboard.urls import quoted, shown
from modtrain.dashboard.viewed_sweep import ViewedSweep
from modtrain.errors import InputError
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.catalog import Catalog
from modtrain.monitoring.status import build_status
from modtrain.storage.history import History
from modtrain.storage.layout import SWEEP_FILE
from modtrain.storage.run import Run

MOST_RUNS = 32
"""Runs whose histories are in memory at the same time."""
MOST_SWEEPS = 8
_RUN_LISTS = (
    "modules", "workers", "lanes", "curves", "staleness", "time", "grids", "evaluations", "config", "logs", "alarms",
)  # fmt: skip
_SWEEP_LISTS = ("varies", "trials", "curves")

Values = dict[str, Any]
T = TypeVar("T")


class ViewedRun:
    """A run that is viewed, with its history and its curves."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet."""
        self.run, self.history = run, History(run)
        self.curves: list[Values] = []
        self.lock = threading.Lock()

    def refresh(self) -> None:
        """Read what is new."""
        with self.lock:
            if self.history.refresh():
                self.curves = run_page.all_curves(self.run, self.history)


class Source:
    """The folder of runs, read for pages."""

    def __init__(self, root: Path, *, refresh_s: float = 0.0) -> None:
        """Nothing is read yet. The catalog is refreshed at most every `refresh_s`."""
        self.root = root.resolve()
        self.catalog = Catalog(root)
        self.viewed_runs = _Recent[ViewedRun](MOST_RUNS)
        self.viewed_sweeps = _Recent[ViewedSweep](MOST_SWEEPS)
        self._refresh_s = refresh_s
        self._refreshed_at = float("-inf")
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Drop what is in memory of single runs and sweeps."""
        self.viewed_runs.clear()
        self.viewed_sweeps.clear()

    def data(self, kind: str, path: str) -> Values:
        """Of the page of all runs, of a run or of a sweep; InputError where there is none."""
        return {"runs": self.runs, "run": self.run, "sweep": self.sweep}[kind](path)

    def runs(self, path: str = "") -> Values:
        """Every run and sweep; OSError where the root is gone."""
        self._refresh()
        table = self.catalog.rows()
        return {
            "root": shown(table["root"]),
            "runs": [_row(row) for row in table["runs"]],
            "unsearched": table["unsearched"],
        }

    def viewed_run(self, path: str) -> ViewedRun:
        """The run at a path, read up to now; InputError with the reason why it cannot be shown."""
        self._refresh()
        run = self.catalog.run(path)
        self._check_place(run.path, path)
        if problem := safe_files.strange(run.path, run.modules):
            raise InputError(f"{shown(run.name)} is not shown: {problem}")
        viewed = self.viewed_runs.get(path, run, lambda: ViewedRun(run))
        viewed.refresh()
        return viewed

    def run(self, path: str) -> Values:
        """One run; a broken one is a page with the reason."""
        return self._or_problem("run", path, lambda: self._run(path, self.viewed_run(path)))

    def _run(self, path: str, viewed: ViewedRun) -> Values:
        """All from one snapshot, the catalog's, so that the page agrees with the list and with itself."""
        with viewed.lock:
            row, summary = _row(self.catalog.row(path)), self.catalog.summary(path)
            snapshot = summary.snapshot()
            status = build_status(snapshot)
            head = run_page.head(row, status, viewed.run, self._sweep_of(viewed.run, path))
            beats = {module: server_time(summary.liveness.silent_s(module)) for module in viewed.run.modules}
            page = run_page.run_page(snapshot, status, viewed.history, row["modules"], beats)
            alarms = [vars(alarm) for alarm in find_alarms(status, viewed.history)]
            return {"run": head, **page, "curves": viewed.curves, "alarms": alarms, "pages": None, "problem": None}

    def sweep(self, path: str) -> Values:
        """One sweep; a broken one is a page with the reason."""
        self._refresh()
        return self._or_problem("sweep", path, lambda: self._sweep(path))

    def _sweep(self, path: str) -> Values:
        sweep = self.catalog.sweep(path)
        self._check_place(sweep.path, path)
        row = _row(self.catalog.row(path))
        below = f"{path}/" if path else ""
        identity = (sweep.path, sweep.spec.created_at, sweep.spec.metric)
        viewed = self.viewed_sweeps.get(path, identity, lambda: ViewedSweep(sweep))
        trials, curves = viewed.read(
            lambda name: self.catalog.row(below + name), lambda name: self.catalog.summary(below + name)
        )
        page = sweep_page.sweep_page(sweep, path, trials, curves)
        return {"sweep": {**row, **sweep_page.facts(sweep)}, **page, "problem": None}

    def checkpoint(self, path: str, module: str, version: int, *, fresh: bool = True) -> Values:
        """One version of a module; InputError where it never was. If not `fresh`, the run is as it was read last."""
        viewed = (None if fresh else self.viewed_runs.peek(path)) or self.viewed_run(path)
        if module not in viewed.run.modules:
            raise InputError(
                f"{shown(viewed.run.name)} has no module {module!r}; it has {', '.join(viewed.run.modules)}."
            )
        with viewed.lock:
            try:
                return {**checkpoint_page(viewed.run, path, module, version, viewed.history), "pages": None}
            except InputError:
                raise
            except Exception as error:  # a foreign file may hold anything
                raise self._read_error(error, f"Version {version} of {module}") from error

    def verify(self, path: str, module: str, version: int) -> Values:
        """Read all of a version; InputError where it never was."""
        self.checkpoint(path, module, version)
        try:
            return verify(self.viewed_run(path).run, module, version)
        except InputError:
            raise
        except Exception as error:  # a foreign file may hold anything
            raise self._read_error(error, f"Version {version} of {module}") from error

    def _refresh(self) -> None:
        with self._lock:  # other requests wait for this refresh and need none of their own
            if time.monotonic() - self._refreshed_at < self._refresh_s:
                return
            if not self.root.is_dir():
                raise FileNotFoundError(
                    errno.ENOENT, f"{shown(self.root.name)} does not exist any more", str(self.root)
                )
            self.catalog.refresh()
            self._refreshed_at = time.monotonic()

    def _check_place(self, place: Path, path: str) -> None:
        """A folder that was a link for a moment may have led elsewhere."""
        if place != self.root / path:
            raise NotThere(f"There is no plain folder {shown(path) or 'here'}.")

    def _read_error(self, error: Exception, what: str = "It") -> InputError:
        """What is wrong with one run or version, in a sentence. An error of the whole storage is raised."""
        if not isinstance(error, OSError):
            return InputError(f"{what} cannot be read ({type(error).__name__}: {error}).")
        try:
            os.listdir(self.root)
        except OSError:
            raise error from None
        where = f" ({error.filename})" if error.filename else ""
        return InputError(f"{what} cannot be read: {error.strerror or error}{where}.")

    def _or_problem(self, kind: str, path: str, read: Callable[[], Values]) -> Values:
        try:
            return read()
        except InputError as error:
            return self._broken(kind, path, error)
        except Exception as error:  # a foreign file may hold anything
            return self._broken(kind, path, self._read_error(error))

    def _broken(self, kind: str, path: str, error: InputError) -> Values:
        """The page of what exists and cannot be shown; NotThere where nothing exists."""
        try:
            row = _row(self.catalog.row(path))
        except InputError:
            row = {"kind": ""}
        except Exception:  # the row itself holds what is foreign
            name = path.rpartition("/")[2] or self.root.name
            row = _row({"kind": kind, "path": path, "name": name, "problem": str(error)})
        if row["kind"] != kind:
            raise NotThere(f"There is no {kind} {shown(path) or 'here'} in this folder.") from error
        empty: dict[str, list[Any]] = {name: [] for name in (_RUN_LISTS if kind == "run" else _SWEEP_LISTS)}
        return {kind: row, **empty, "pages": None, "problem": shown(str(error))}

    def _sweep_of(self, run: Run, path: str) -> str | None:
        """The path of the sweep that a run is a trial of."""
        above = path.rpartition("/")[0]
        return above if run.spec.trial is not None and path and safe_files.lies(self.root, above, SWEEP_FILE) else None


class _Recent(Generic[T]):
    """The values used last, by path; one is built anew where its subject is another one."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[str, tuple[object, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, path: str, subject: object, build: Callable[[], T]) -> T:
        with self._lock:
            if path not in self._values or self._values[path][0] != subject:
                self._values[path] = subject, build()
            self._values.move_to_end(path)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
            return self._values[path][1]

    def peek(self, path: str) -> T | None:
        return self._values[path][1] if path in self._values else None

    def clear(self) -> None:
        with self._lock:
            self._values.clear()


def _row(row: Values) -> Values:
    """A row of the catalog with its path as an address, names as text, and times in place of ages.

    An age is another one at each reading; the time by this machine's clock when a version appeared is not.
    """
    texts = {name: shown(row[name]) for name in ("name", "problem") if row.get(name)}
    modules = [
        {**{key: value for key, value in module.items() if key != "age_s"}, "newest_at": server_time(module["age_s"])}
        for module in row.get("modules", ())
    ]
    return {**row, "path": quoted(row["path"]), **texts, **({"modules": modules} if "modules" in row else {})}


def server_time(age_s: float | None) -> int | None:
    """The time of something so old, by this machine's clock."""
    return None if age_s is None else round(time.time() - age_s)
