"""Catalog: the runs and sweeps below a folder, kept current by reading only what changed.

A folder is listed again where its time of change is another one; a run or sweep is what holds a `run.json` or a
`sweep.json`, and nothing in it is searched. Links are not followed, so that nothing outside of the folder is ever
shown. What is broken has a line that says why, and never hides another; where there are too many folders, that is
said, and what lies near the root is found before what lies deep. Deliberately not here: what a line says
(`glance.py`), and what a single run's pages need.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modtrain.errors import InputError
from modtrain.monitoring.summary import ABSENT, Row, RunSummary, Signature, signature, sweep_row
from modtrain.storage import filesystem
from modtrain.storage.layout import RUN_FILE, STOP_FILE, SWEEP_FILE
from modtrain.storage.liveness import PATIENCE_S, launcher_pid
from modtrain.storage.run import Run
from modtrain.storage.stop_request import read_stop_request
from modtrain.sweeps.sweep import Sweep, check_trial

DEEPEST = 6
"""Folders within folders that are searched."""
MOST_FOLDERS = 20_000
"""Folders that are searched, so that a data set below the root does not keep anybody waiting."""
HOT_S = 3.0
"""A folder that changed is listed again for so long: another change may bear the same time."""
AGAIN_S = 1.0
"""Who asks for what is not there has all looked at anew, but not more often."""
CLOSELY_S = 0.1
"""Of a look that may go into curves and newest versions; the rest of the runs has its turn at the next one."""


class Catalog:
    """The runs and sweeps below a root, which may be a run or a sweep itself: its path is empty then."""

    def __init__(self, root: Path, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing is read yet; InputError where there is no such folder."""
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise InputError(f"There is no folder {root}; give the folder that holds your runs, such as runs.")
        self.revision = 0
        """Grows whenever a row says something else."""
        self._patience_s, self._closely_until = patience_s, 0.0
        self._missed, self._missing = set[str](), set[str]()
        """For whom there was no time to be looked at closely, at the last look and at this one."""
        self._lock = threading.RLock()
        self._looked_at = float("-inf")
        self._folders: dict[str, _Folder] = {}
        self._runs: dict[str, _Entry] = {}
        self._sweeps: dict[str, _Entry] = {}
        self._trials: dict[str, dict[int, str]] = {}
        """By sweep the paths of its trials that have begun, by their numbers."""
        self._unsearched = False
        """Whether there are more folders than are searched."""

    def refresh(self, *, thorough: bool = False) -> None:
        """Bring everything up to date; other threads wait meanwhile. If thorough, nothing is left for the next look."""
        with self._lock:
            self._looked_at = time.monotonic()
            self._closely_until = math.inf if thorough else self._looked_at + CLOSELY_S
            runs, sweeps, changed = dict[str, _Entry](), dict[str, _Entry](), False
            self._trials, unsearched = {}, self._unsearched
            folders, self._folders = self._folders, {}
            for path, folder in self._walk(folders):
                kept, entries = (self._sweeps, sweeps) if folder.kind == "sweep" else (self._runs, runs)
                entry = entries[path] = kept.get(path) or _Entry(f"{self.root}/{path}".rstrip("/"), path, folder.kind)
                changed |= self._bring_up(entry, folder, sweeps)
            gone = runs.keys() != self._runs.keys() or sweeps.keys() != self._sweeps.keys()
            self._runs, self._sweeps = runs, sweeps
            self._missed, self._missing = self._missing, set()
            self.revision += changed or gone or unsearched != self._unsearched

    def settle(self) -> None:
        """Look until we know of every worker on another machine whether it lives: for whoever looks once."""

        def sure() -> bool | None:
            self.refresh(thorough=True)
            summaries = [entry.summary for entry in self._runs.values() if entry.summary]
            return None if any(summary.liveness.uncertain() for summary in summaries) else True

        filesystem.wait_until(sure, timeout_s=2 * self._patience_s)

    def rows(self) -> dict[str, Any]:
        """What the page of all runs shows, as of the last look: trials stand in the rows of their sweeps.

        `unsearched` says that there are more folders than are searched, so that runs may be missing.
        """
        with self._lock:
            inside = {trial for trials in self._trials.values() for trial in trials.values()}
            rows = [self._sweep_row(path) for path in self._sweeps]
            rows += [entry.row() for path, entry in self._runs.items() if path not in inside]
            return {"root": self.root.name, "at": time.time(), "runs": rows, "unsearched": self._unsearched}

    def row(self, path: str) -> Row:
        """Of one run, trial or sweep; InputError where there is none."""
        with self._lock:
            if path in self._sweeps:
                return self._sweep_row(path)
            return self._entry(path, "run").row()

    def run(self, path: str) -> Run:
        """The run at a path below the root; InputError where there is none (a link is none), or why it is broken."""
        return self.summary(path).run

    def summary(self, path: str) -> RunSummary:
        """The summary of a run; InputError as for `run`."""
        summary = self._entry(path, "run").open()
        assert isinstance(summary, RunSummary)
        return summary

    def sweep(self, path: str) -> Sweep:
        """The sweep at a path; InputError as for a run."""
        sweep = self._entry(path, "sweep").open()
        assert isinstance(sweep, Sweep)
        return sweep

    def _entry(self, path: str, kind: str) -> _Entry:
        with self._lock:
            if path not in self._of(kind) and time.monotonic() - self._looked_at >= AGAIN_S:
                self.refresh()
            if path not in self._of(kind):
                raise InputError(f"There is no {kind} {path!r} below {self.root}.")
            return self._of(kind)[path]

    def _of(self, kind: str) -> dict[str, _Entry]:
        return self._sweeps if kind == "sweep" else self._runs

    def _walk(self, known: Mapping[str, _Folder]) -> Iterator[tuple[str, _Folder]]:
        """Every folder that is a run, a sweep, or cannot be looked into; a sweep comes before its trials.

        Those near the root come first, so that a data set that is many folders deep hides nothing beside it.
        """
        waiting = deque([("", 0, False)])
        while waiting and len(self._folders) < MOST_FOLDERS:
            path, depth, in_sweep = waiting.popleft()
            folder = known.get(path) or _Folder()
            folder.look(f"{self.root}/{path}" if path else str(self.root))
            self._folders[path] = folder
            if folder.kind and not (in_sweep and folder.kind == "sweep"):
                yield path, folder
            if folder.kind in ("run", "closed") or depth == DEEPEST or in_sweep:
                continue
            below = f"{path}/" if path else ""
            waiting += [(below + name, depth + 1, folder.kind == "sweep") for name in folder.folders]
        self._unsearched = bool(waiting)

    def _bring_up(self, entry: _Entry, folder: _Folder, sweeps: Mapping[str, _Entry]) -> bool:
        above, _, name = entry.path.rpartition("/")
        its = sweeps.get(above) if entry.path else None
        ranking: tuple[str | None, bool] = (None, True)
        if its and its.sweep and (number := its.sweep.number_of(name)) is not None:
            self._trials.setdefault(its.path, {})[number] = entry.path
            ranking = its.sweep.spec.metric, its.sweep.spec.maximize
        return entry.look(folder, ranking, self._patience_s, closely=self._has_its_turn(entry.path))

    def _has_its_turn(self, path: str) -> bool:
        """Whether there is time to look at it closely, and everybody who had none the last time comes first."""
        comes = not self._missed or path in self._missed
        has = comes and time.monotonic() < self._closely_until
        if comes and not has:
            self._missing.add(path)
        return has

    def _sweep_row(self, path: str) -> Row:
        its = self._sweeps[path]
        trials = {number: self._runs[trial] for number, trial in self._trials.get(path, {}).items()}
        return its.row(trials)


@dataclass
class _Folder:
    """What of a folder's listing matters, as long as its time of change is the same."""

    kind: str = ""
    """`run`, `sweep`, `closed` where it cannot be listed, or nothing."""
    folders: tuple[str, ...] = ()
    stop: bool = False
    trouble: str = ""
    _seen: Signature = ABSENT
    _hot_until: float = float("-inf")

    def look(self, path: str) -> None:
        found, now = signature(path), time.monotonic()
        if found != self._seen:
            self._seen, self._hot_until = found, now + HOT_S
        elif now > self._hot_until:
            return
        try:
            with os.scandir(path) as entries:
                self._take(list(entries))
        except OSError as error:
            gone = error.errno in filesystem.GONE
            self.kind, self.folders, self.trouble = "" if gone else "closed", (), error.strerror or str(error)

    def _take(self, entries: list[os.DirEntry[str]]) -> None:
        names = {entry.name for entry in entries}
        self.kind = "sweep" if SWEEP_FILE in names else "run" if RUN_FILE in names else ""
        self.stop, self.trouble = STOP_FILE in names, ""
        inside = [] if self.kind == "run" else entries
        self.folders = tuple(
            sorted(e.name for e in inside if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
        )


@dataclass
class _Entry:
    """A run or a sweep of the catalog, or why it cannot be shown."""

    where: str
    path: str
    kind: str
    summary: RunSummary | None = None
    sweep: Sweep | None = None
    problem: str | None = None
    stopped: bool = False
    _seen: Signature = field(default=ABSENT)

    def look(self, folder: _Folder, ranking: tuple[str | None, bool], patience_s: float, *, closely: bool) -> bool:
        """True where it says something else now. Whatever is wrong with one is said of this one alone."""
        before, self.stopped = (self.problem, self.sweep, self.stopped), folder.stop
        try:
            if folder.kind == "closed":
                self._seen = ABSENT
                raise InputError(f"It cannot be looked into: {folder.trouble}.")
            self._open(folder.kind, patience_s)
            changed = bool(
                self.summary and self.summary.refresh(has_stop_file=folder.stop, ranking=ranking, closely=closely)
            )
        except InputError as error:
            changed, self.problem, self.summary, self.sweep = False, str(error), None, None
            if isinstance(error.__cause__, OSError):
                self._seen = ABSENT  # the file is what it was, and can be read when storage answers again
        except Exception as error:  # a foreign file may hold anything
            changed, self.problem = False, _unreadable(error)
            self._seen, self.summary, self.sweep = ABSENT, None, None
        return changed or before != (self.problem, self.sweep, self.stopped)

    def open(self) -> RunSummary | Sweep:
        """What there is; InputError where it is broken."""
        found = self.summary or self.sweep
        if found is None:
            raise InputError(self.problem or "It cannot be read.")
        return found

    def row(self, trials: Mapping[int, _Entry] = MappingProxyType({})) -> Row:
        """As a line; of a sweep with the trials that have begun. What it holds costs no other line."""
        try:
            if self.problem is None and self.summary is not None:
                return self.summary.with_ages()
            if self.problem is None and self.sweep is not None:
                rows = {number: trial.row() for number, trial in trials.items()}
                results = {number: trial.result(self.sweep.spec.metric) for number, trial in trials.items()}
                stop = read_stop_request(self.sweep.path) if self.stopped else None
                is_launched = launcher_pid(self.sweep.path) is not None
                return sweep_row(self.sweep, self.path, rows, results, stop=stop, is_launched=is_launched)
        except Exception as error:  # a foreign file may hold anything
            return self._broken(_unreadable(error))
        return self._broken(self.problem or "It cannot be read.")

    def result(self, metric: str | None) -> float | None:
        """What its sweep ranks it by."""
        return self.summary.result(metric) if self.summary and metric is not None else None

    def _broken(self, why: str) -> Row:
        name = self.path.rpartition("/")[2] or self.where.rpartition("/")[2]
        empty = dict.fromkeys(("recipe", "state", "progress", "epoch", "epochs", "left_s", "metric", "created_at"))
        kind = "sweep" if self.kind == "sweep" else "run"
        lists = {"modules": []} if kind == "run" else {"trials": 0, "counts": {}}
        about = {"kind": kind, "path": self.path, "name": name}
        return {**about, **empty, **lists, "alarms": [], "problem": why}

    def _open(self, kind: str, patience_s: float) -> None:
        """Again only where its file is another one."""
        file = SWEEP_FILE if kind == "sweep" else RUN_FILE
        found = signature(f"{self.where}/{file}")
        if found == self._seen:
            if self.problem is not None:
                raise InputError(self.problem)
            return
        self._seen, self.problem, self.summary, self.sweep = found, None, None, None
        if not stat.S_ISREG(found[0]):
            raise InputError(f"{file} is not a regular file (a link, a folder or a pipe) and is not opened.")
        if kind == "sweep":
            self.sweep = Sweep.open(Path(self.where))
        else:
            self.summary = RunSummary(check_trial(Run.open(Path(self.where))), self.path, patience_s=patience_s)


def _unreadable(error: Exception) -> str:
    return f"It cannot be read ({type(error).__name__}: {error})."
