"""Source: the data of each page, read from the folders; what is read again and again is read incrementally."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modtrain import plugins
from modtrain.dashboard import run_page, safe_files, sweep_page, timeline
from modtrain.dashboard.checkpoint_page import checkpoint_page, verify
from modtrain.dashboard.safe_files import NotThere
from modtrain.dashboard.urls import quoted, shown
from modtrain.errors import InputError, StorageError
from modtrain.monitoring.catalog import Catalog
from modtrain.monitoring.summary import RunSummary
from modtrain.storage.history import History
from modtrain.storage.layout import SWEEP_FILE
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial

MOST_RUNS = 32
"""Runs whose histories are in memory at the same time."""
MOST_SWEEPS = 8
JOBS_S = 60.0
"""Seconds between two requests to a scheduler, at least, however many browsers poll."""

Values = dict[str, Any]


class ViewedRun:
    """A run that is viewed, with its history and its curves."""

    def __init__(self, summary: RunSummary) -> None:
        """Nothing is read yet."""
        self.summary, self.run = summary, summary.run
        self.history = History(self.run)
        self.curves: list[Values] = []
        self.lock = threading.Lock()


class Source:
    """The folder of runs, read for pages."""

    def __init__(self, root: Path, *, refresh_s: float = 0.0) -> None:
        """Nothing is read yet. The catalog is refreshed at most every `refresh_s`."""
        self.root = root.resolve()
        self.catalog = Catalog(root, ask_every_s=JOBS_S)
        # The catalog's summary is another object where `run.json` has changed.
        self.viewed_runs = functools.lru_cache(MOST_RUNS)(ViewedRun)
        self.viewed_sweeps = functools.lru_cache(MOST_SWEEPS)(sweep_page.ViewedSweep)
        self._refresh_s = refresh_s
        self._refreshed_at = float("-inf")
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Drop what is in memory of single runs and sweeps."""
        self.viewed_runs.cache_clear()
        self.viewed_sweeps.cache_clear()

    def data(self, kind: str, path: str) -> Values:
        """Of a page: of all runs, of a run, a sweep, or a checkpoint (RUN/MODULE/VERSION); InputError if none."""
        if kind == "checkpoint":
            *run, module, version = ("", *path.rsplit("/", 2))
            return self.checkpoint("".join(run), module, int(version) if re.fullmatch("[0-9]{1,12}", version) else -1)
        return {"runs": self.runs, "run": self.run, "sweep": self.sweep}[kind](path)

    def runs(self, path: str = "") -> Values:
        """Every run and sweep; OSError where the root is gone."""
        self._refresh()
        table = self.catalog.rows()
        rows = [_row(row) for row in table["runs"]]
        return {"root": shown(table["root"]), "runs": rows, **{key: table[key] for key in ("unsearched", "silent")}}

    def shown_run(self, path: str) -> RunSummary:
        """The run at a path; InputError with the reason why it cannot be shown."""
        self._refresh()
        summary = self.catalog.summary(path)
        run = summary.run
        self._check_place(run.path, path)
        if problem := safe_files.strange(run.path, run.modules):
            raise InputError(f"{shown(run.name)} is not shown: {problem}")
        return summary

    @contextlib.contextmanager
    def viewed_run(self, path: str) -> Iterator[ViewedRun]:
        """The run with its history, read up to now, for one thread at a time; InputError as `shown_run`."""
        viewed = self.viewed_runs(self.shown_run(path))
        with viewed.lock:
            if viewed.history.refresh():
                viewed.curves = run_page.all_curves(viewed.run, viewed.history)
            yield viewed

    def run(self, path: str) -> Values:
        """One run; a broken one is a page with the reason."""
        return self._or_problem("run", path, self._run)

    def _run(self, path: str) -> Values:
        with self.viewed_run(path) as viewed:
            above = path.rpartition("/")[0]
            is_trial = viewed.run.spec.trial is not None and path and safe_files.lies(self.root, above, SWEEP_FILE)
            view, sweep = viewed.summary.view, above if is_trial else None
            row = _row(viewed.summary.with_ages(view))
            page = run_page.run_page(view, viewed.summary.liveness, viewed.history, row, sweep)
            return {**page, "curves": viewed.curves, "problem": None}

    def lanes(self, path: str, within: timeline.Range) -> Values:
        """The lanes of a run within a range of time, where its page cannot hold all versions; InputError."""
        with self.viewed_run(path) as viewed, self._readable():
            lanes = run_page.read_lanes(viewed.summary.view.snapshot, viewed.history)
            return {"lanes": timeline.build_lanes(lanes, within)}

    def sweep(self, path: str) -> Values:
        """One sweep; a broken one is a page with the reason."""
        return self._or_problem("sweep", path, self._sweep)

    def _sweep(self, path: str) -> Values:
        sweep, begun, pending = self._read_sweep(path)
        page = sweep_page.sweep_page(sweep, path, begun, pending)
        settings = {name: getattr(sweep.spec, name) for name in ("maximize", "sampler", "prune", "seed")}
        row = {**_row(self.catalog.row(path)), **settings, "metric_name": sweep.spec.metric}
        return {"sweep": row, **page, "problem": None}

    def _read_sweep(self, path: str) -> tuple[Sweep, list[sweep_page.Begun], list[Trial]]:
        """A sweep, its trials that have begun, and the next ones; InputError where it cannot be shown."""
        self._refresh()
        sweep = self.catalog.sweep(path)
        self._check_place(sweep.path, path)
        viewed = self.viewed_sweeps(sweep.path, sweep.spec.created_at, sweep.spec.metric)
        return sweep, *viewed.read(sweep, path, self.catalog)

    def scalar_curves(self, path: str, name: str) -> list[Values]:
        """The curves of a scalar of training in the trials of a sweep; InputError where it has none."""
        with self._readable():
            _, begun, _ = self._read_sweep(path)
            if not (curves := sweep_page.scalar_curves(begun, name)):
                raise InputError(f"No trial of {shown(path)} has {name!r}.")
            return curves

    def checkpoint(self, path: str, module: str, version: int) -> Values:
        """One version of a module; InputError where it never was."""
        with self.viewed_run(path) as viewed, self._readable(f"Version {version} of {module}"):
            run = viewed.run
            if module not in run.modules:
                raise InputError(f"{shown(run.name)} has no module {module!r}; it has {', '.join(run.modules)}.")
            return checkpoint_page(run, path, module, version, viewed.history)

    def verify(self, path: str, module: str, version: int) -> Values:
        """Read all of a version; InputError where it never was."""
        self.checkpoint(path, module, version)
        with self._readable(f"Version {version} of {module}"):
            return verify(self.shown_run(path).run, module, version)

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

    @contextlib.contextmanager
    def _readable(self, what: str = "It") -> Iterator[None]:
        """Whatever is wrong with one run or version becomes an InputError; an error of the whole storage is raised."""
        try:
            yield
        except InputError:
            raise
        except StorageError as error:
            raise InputError(str(error)) from error
        except OSError as error:
            try:
                os.listdir(self.root)
            except OSError:
                raise error from None
            where = f" ({error.filename})" if error.filename else ""
            raise InputError(f"{what} cannot be read: {error.strerror or error}{where}.") from error
        except Exception as error:  # a foreign file may hold anything
            raise InputError(f"{what} cannot be read ({plugins.summary(error)}).") from error

    def _or_problem(self, kind: str, path: str, read: Callable[[str], Values]) -> Values:
        """The page, or that of what exists and cannot be shown; NotThere where nothing exists."""
        try:
            with self._readable():
                return read(path)
        except InputError as problem:
            error = problem
        try:
            row = _row(self.catalog.row(path))
        except InputError:
            row = {"kind": ""}
        except Exception:  # the row itself holds what is foreign
            name = path.rpartition("/")[2] or self.root.name
            row = _row({"kind": kind, "path": path, "name": name, "problem": str(error)})
        if row["kind"] != kind:
            raise NotThere(f"There is no {kind} {shown(path) or 'here'} in this folder.") from error
        return {kind: row, "modules": [], "problem": shown(str(error))}


def _row(row: Values) -> Values:
    """A row of the catalog with its path as an address, names as text, and times in place of ages.

    An age is another one at each reading; the time by this machine's clock when a version appeared is not.
    """
    row = {**row, "path": quoted(row["path"]), **{key: shown(row[key]) for key in ("name", "problem") if row.get(key)}}
    if "modules" in row:
        newest_at = [run_page.server_time(module["age_s"]) for module in row["modules"]]
        modules = [{key: value for key, value in module.items() if key != "age_s"} for module in row["modules"]]
        row["modules"] = [module | {"newest_at": at} for module, at in zip(modules, newest_at, strict=True)]
    return row
