"""The data of each page, read from the folders: what is looked at again and again is read incrementally.

Deliberately not here: when to look (`watch.py`), and what the pages say of what was read (`run_page.py`, ...).
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modtrain.dashboard import run_page, safe_files, sweep_page
from modtrain.dashboard.checkpoint_page import checkpoint_page, verify
from modtrain.dashboard.safe_files import NotThere
from modtrain.dashboard.trial_cache import TrialsSeen
from modtrain.dashboard.trial_curves import Curves
from modtrain.dashboard.urls import quoted, shown
from modtrain.errors import InputError
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.catalog import Catalog
from modtrain.monitoring.status import build_status
from modtrain.monitoring.summary import RunSummary
from modtrain.storage.history import History
from modtrain.storage.layout import SWEEP_FILE
from modtrain.storage.run import Run
from modtrain.storage.run_state import LIVE
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial

MOST_RUNS = 32
"""Runs whose histories are in memory at the same time."""
_RUN_LISTS = (
    "modules",
    "workers",
    "lanes",
    "curves",
    "staleness",
    "time",
    "grids",
    "evaluations",
    "config",
    "logs",
    "alarms",
)
_SWEEP_LISTS = ("varies", "trials", "curves")

Values = dict[str, Any]


@dataclass
class Looked:
    """A run that is looked at, with what was read of it so far."""

    run: Run
    history: History
    drawn: run_page.Drawn = field(default_factory=run_page.Drawn)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Source:
    """The folder of runs, read for pages."""

    def __init__(self, root: Path, *, refresh_s: float = 0.0) -> None:
        """Nothing is read yet. The folder of all runs is looked through at most every `refresh_s`, whoever asks."""
        self.root = root.resolve()
        self.catalog = Catalog(root)
        self.trials = TrialsSeen()
        self._refresh_s = refresh_s
        self._looked_at = float("-inf")
        self._looked: OrderedDict[str, Looked] = OrderedDict()
        self._lock, self._looking = threading.Lock(), threading.Lock()

    @property
    def at_hand(self) -> int:
        """Runs whose histories are in memory."""
        return len(self._looked)

    def forget(self) -> None:
        """Drop what is in memory of single runs."""
        with self._lock:
            self._looked.clear()

    def data(self, kind: str, path: str) -> Values:
        """Of the page of all runs, of a run or of a sweep; InputError where there is none."""
        return {"runs": self.runs, "run": self.run, "sweep": self.sweep}[kind](path)

    def runs(self, path: str = "") -> Values:
        """Every run and sweep; OSError where the folder of them all is gone."""
        self._bring_up()
        found = self.catalog.rows()
        runs = [_row(row) for row in found["runs"]]
        return {"root": shown(found["root"]), "runs": runs, "unsearched": found["unsearched"]}

    def looked(self, path: str) -> Looked:
        """The run of a path, read up to now; InputError, with why it cannot be shown."""
        self._bring_up()
        run = self.catalog.run(path)
        self._check_place(run.path, path)
        if said := safe_files.strange(run.path, run.modules):
            raise InputError(f"{shown(run.name)} is not shown: {said}")
        with self._lock:
            looked = self._looked.get(path)
            if looked is None or looked.run != run:
                looked = self._looked[path] = Looked(run, History(run))
            self._looked.move_to_end(path)
            while len(self._looked) > MOST_RUNS:
                self._looked.popitem(last=False)
        with looked.lock:
            looked.history.refresh()
        return looked

    def run(self, path: str) -> Values:
        """One run; one that is broken is a page that says why."""
        return self._or_why("run", path, lambda: self._run(path, self.looked(path)))

    def _run(self, path: str, looked: Looked) -> Values:
        run, history = looked.run, looked.history
        with looked.lock:
            row = self.catalog.row(path)
            summary = self.catalog.summary(path)
            snapshot = summary.snapshot()
            found = build_status(snapshot)
            reports = {module: each.report for module, each in snapshot.modules.items()}
            # Of a worker that has ended it is not known for how long its heartbeat has not changed.
            silent = {
                m: summary.liveness.silent_s(m) if found["modules"][m]["state"] in LIVE else None for m in run.modules
            }
            page = run_page.run_page(run, found, history, reports, silent, looked.drawn)
            said = [vars(alarm) for alarm in find_alarms(found, history)]
        facts = run_page.facts(run, found, self._sweep_of(run, path))
        return {"run": {**_row(row), **facts}, **page, "alarms": said, "pages": None, "problem": None}

    def sweep(self, path: str) -> Values:
        """One sweep; one that is broken is a page that says why."""
        self._bring_up()
        return self._or_why("sweep", path, lambda: self._sweep(path))

    def _sweep(self, path: str) -> Values:
        sweep = self.catalog.sweep(path)
        self._check_place(sweep.path, path)
        row = _row(self.catalog.row(path))
        below = f"{path}/" if path else ""
        page = sweep_page.sweep_page(sweep, path, *self._trials(sweep, below))
        return {"sweep": {**row, **sweep_page.facts(sweep)}, **page, "problem": None}

    def _trials(self, sweep: Sweep, below: str) -> tuple[list[Trial], dict[int, Curves]]:
        def row(name: str) -> Values:
            return self.catalog.row(below + name)

        def summary(name: str) -> RunSummary:
            return self.catalog.summary(below + name)

        return self.trials.look(sweep, row, summary)

    def checkpoint(self, path: str, module: str, version: int, *, fresh: bool = True) -> Values:
        """One version of a module; InputError where it never was. If not `fresh`, the run is as it was read last."""
        looked = (None if fresh else self._looked.get(path)) or self.looked(path)
        if module not in looked.run.modules:
            raise InputError(
                f"{shown(looked.run.name)} has no module {module!r}; it has {', '.join(looked.run.modules)}."
            )
        with looked.lock:
            try:
                return {**checkpoint_page(looked.run, path, module, version, looked.history), "pages": None}
            except InputError:
                raise
            except Exception as error:  # a foreign file may hold anything
                raise self._its_own(error, f"Version {version} of {module}") from error

    def verify(self, path: str, module: str, version: int) -> Values:
        """Read all of a version; InputError where it never was."""
        self.checkpoint(path, module, version)
        try:
            return verify(self.looked(path).run, module, version)
        except InputError:
            raise
        except Exception as error:  # a foreign file may hold anything
            raise self._its_own(error, f"Version {version} of {module}") from error

    def _bring_up(self) -> None:
        with self._looking:  # who comes meanwhile waits for this look, and needs none of his own
            if time.monotonic() - self._looked_at < self._refresh_s:
                return
            if not self.root.is_dir():
                raise FileNotFoundError(errno.ENOENT, f"{shown(self.root.name)} is not there any more", str(self.root))
            self.catalog.refresh()
            self._looked_at = time.monotonic()

    def _check_place(self, found: Path, path: str) -> None:
        """Who looked while it was a link for a moment may have been led elsewhere."""
        if found != self.root / path:
            raise NotThere(f"There is no plain folder {shown(path) or 'here'}.")

    def _its_own(self, error: Exception, what: str = "It") -> InputError:
        """What is wrong with one run or version alone, in a sentence. What is wrong with all storage is raised."""
        if not isinstance(error, OSError):
            return InputError(f"{what} cannot be read ({type(error).__name__}: {error}).")
        try:
            os.listdir(self.root)
        except OSError:
            raise error from None
        where = f" ({error.filename})" if error.filename else ""
        return InputError(f"{what} cannot be read: {error.strerror or error}{where}.")

    def _or_why(self, kind: str, path: str, read: Callable[[], Values]) -> Values:
        try:
            return read()
        except InputError as error:
            return self._broken(kind, path, error)
        except Exception as error:  # a foreign file may hold anything
            return self._broken(kind, path, self._its_own(error))

    def _broken(self, kind: str, path: str, error: InputError) -> Values:
        """What is there and cannot be shown is said on its page; what is not there is no page."""
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
        above = path.rpartition("/")[0]
        return above if run.spec.trial is not None and path and safe_files.lies(self.root, above, SWEEP_FILE) else None


def _row(row: Values) -> Values:
    """A row of the catalog with its path as an address, and its words as text."""
    words = {name: shown(row[name]) for name in ("name", "problem") if row.get(name)}
    return {**row, "path": quoted(row["path"]), **words}
