"""Catalog: the runs and sweeps below a folder, kept current by reading only what changed. Links are not followed.

A broken run or sweep has a row with its problem and hides no other one.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from modtrain import plugins
from modtrain.errors import InputError, ModtrainError
from modtrain.monitoring.job_watch import JobWatch, Subject
from modtrain.monitoring.summary import ABSENT, Row, RunSummary, Signature, signature, sweep_row
from modtrain.storage import filesystem
from modtrain.storage.layout import RUN_FILE, STOP_FILE, SWEEP_FILE
from modtrain.storage.liveness import PATIENCE_S, launcher_pid
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import WorkerJob
from modtrain.storage.stop_request import read_stop_request
from modtrain.sweeps.sweep import Sweep, check_trial
from modtrain.sweeps.trials import submitted_trials

DEEPEST = 6
"""Levels of folders that are searched."""
MOST_FOLDERS = 20_000
"""Folders that are searched: a data set below the root must not delay the list."""
HOT_S = 3.0
"""Seconds for which a folder that changed is listed at each refresh: another change may have the same time."""
CHECKS_S = 0.1
"""A refresh checks newest versions and curves for as long as it has not taken these seconds, the others later."""


class Catalog:
    """The runs and sweeps below a root, which may be a run or a sweep itself: its path is empty then."""

    def __init__(self, root: Path, *, patience_s: float = PATIENCE_S, ask_every_s: float | None = None) -> None:
        """Nothing is read yet; InputError where there is no such folder.

        `ask_every_s`: schedulers are asked about jobs that wait, in the background, at most as often; None for never.
        """
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise InputError(f"There is no folder {root}; give the folder that holds your runs, such as runs.")
        self.revision = 0
        """Grows whenever a row changes, other than by ages."""
        self._patience_s = patience_s
        self._job_watch = None if ask_every_s is None else JobWatch(ask_every_s)
        self._lock = threading.RLock()
        self._folders: dict[str, _Folder] = {}
        self._entries: dict[tuple[str, str], _Entry] = {}
        """By kind and path."""
        self._unsearched = False

    def refresh(self, *, thorough: bool = False) -> None:
        """Bring everything up to date; other threads wait meanwhile.

        If not `thorough`, the newest versions and the curves of runs that there is no time for follow later.
        """
        with self._lock:
            until = math.inf if thorough else time.monotonic() + CHECKS_S
            known, self._entries, changed = self._entries, {}, False
            folders, self._folders, unsearched = self._folders, {}, self._unsearched
            for path, folder in self._walk(folders):
                kind = "sweep" if folder.kind == "sweep" else "run"
                entry = known.get((kind, path)) or _Entry(f"{self.root}/{path}".rstrip("/"), path, kind)
                self._entries[kind, path] = entry
                changed |= self._refresh_entry(entry, folder)
            changed |= self._check(until)
            if self._job_watch and not thorough:
                self._job_watch.ask_later(self._awaiting())
            self.revision += changed or known.keys() != self._entries.keys() or unsearched != self._unsearched

    def settle(self) -> None:
        """Refresh until it is known of every worker elsewhere whether it is alive; twice the patience at most.

        Then wait for the answers of schedulers, where they are asked.
        """

        def is_settled() -> bool | None:
            self.refresh(thorough=True)
            summaries = [entry.summary for entry in self._entries.values() if entry.summary]
            return None if any(summary.liveness.uncertain() for summary in summaries) else True

        filesystem.wait_until(is_settled, timeout_s=2 * self._patience_s)
        if self._job_watch:
            self._job_watch.ask(self._awaiting())
            self.refresh(thorough=True)

    def rows(self) -> dict[str, Any]:
        """The list of runs and sweeps as of the last refresh, as plain values; trials are part of their sweeps' rows.

        `unsearched` is true where there are more folders than are searched, so that runs may be missing; `silent` is a
        sentence where a scheduler does not answer.
        """
        silent = self._job_watch.silence if self._job_watch else ""
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda entry: entry.kind, reverse=True)  # sweeps first
            rows = [entry.row() for entry in entries if not entry.is_trial]
            return {
                "root": self.root.name,
                "at": time.time(),
                "runs": rows,
                "unsearched": self._unsearched,
                "silent": silent,
            }

    def row(self, path: str) -> Row:
        """The row of one run, trial or sweep; InputError where there is none."""
        with self._lock:
            return (self._entries.get(("sweep", path)) or self._entry(path, "run")).row()

    def run(self, path: str) -> Run:
        """The run at a path below the root; InputError where there is none (a link is none), or where it is broken."""
        return self.summary(path).run

    def summary(self, path: str) -> RunSummary:
        entry = self._entry(path, "run")
        return entry.summary or entry.fail()

    def sweep(self, path: str) -> Sweep:
        entry = self._entry(path, "sweep")
        return entry.sweep or entry.fail()

    def submitted_trials(self, path: str) -> set[int]:
        """The trials of a sweep that its arrays will begin, as far as is known."""
        return submitted_trials(self.sweep(path), self._entry(path, "sweep").jobs)

    def _entry(self, path: str, kind: str) -> _Entry:
        with self._lock:
            if (entry := self._entries.get((kind, path))) is None:
                raise InputError(f"There is no {kind} {path!r} below {self.root}.")
            return entry

    def _walk(self, known: Mapping[str, _Folder]) -> Iterator[tuple[str, _Folder]]:
        """Every folder that is a run, a sweep, or cannot be listed; a sweep comes before its trials.

        Breadth first, so that a deep data set hides nothing beside it.
        """
        waiting = deque([("", 0, False)])
        while waiting and len(self._folders) < MOST_FOLDERS:
            path, depth, in_sweep = waiting.popleft()
            folder = known.get(path) or _Folder()
            folder.refresh(f"{self.root}/{path}" if path else str(self.root))
            self._folders[path] = folder
            if (folder.kind or folder.error) and not (in_sweep and folder.kind == "sweep"):
                yield path, folder
            if folder.kind == "run" or depth == DEEPEST or in_sweep:
                continue
            below = f"{path}/" if path else ""
            waiting += [(below + name, depth + 1, folder.kind == "sweep") for name in folder.folders]
        self._unsearched = bool(waiting)

    def _refresh_entry(self, entry: _Entry, folder: _Folder) -> bool:
        """Whether its row changed. A trial is ranked by the metric of its sweep."""
        parent, _, name = entry.path.rpartition("/")
        of = self._entries.get(("sweep", parent)) if entry.path else None
        number = of.sweep.number_of(name) if of and of.sweep else None
        entry.is_trial, entry.trials = number is not None, {}
        ranking: tuple[str | None, bool] = (None, True)
        if of and of.sweep and number is not None:
            of.trials[number] = entry
            ranking = of.sweep.spec.metric, of.sweep.spec.maximize
        jobs = self._jobs_of(entry, of, number)
        return entry.attempt(lambda: entry.refresh(folder, ranking, self._patience_s, jobs))

    def _jobs_of(self, entry: _Entry, of: _Entry | None, number: int | None) -> Mapping[int, WorkerJob]:
        """What schedulers said about the jobs of a run, or the tasks of a sweep; of a trial also as tasks of arrays."""
        if self._job_watch is None:
            return {}
        jobs = self._job_watch.jobs(Path(entry.folder))
        if of and of.sweep and number is not None and not jobs:
            workers = of.sweep.workers
            return {task % workers: job for task, job in of.jobs.items() if task // workers == number}
        return jobs

    def _awaiting(self) -> list[Subject]:
        """The runs and trials of which a scheduler may know more than their folders."""
        subjects: list[Subject] = []
        for entry in self._entries.values():
            over = frozenset(n for n, each in entry.trials.items() if not (each.summary and each.summary.awaits_jobs))
            if entry.summary and entry.summary.awaits_jobs:
                subjects.append((entry.summary.run, over))
            elif entry.sweep and len(over) < entry.sweep.spec.trials:
                subjects.append((entry.sweep, over))
        return subjects

    def _check(self, until: float) -> bool:
        """Check the runs that are due, first those checked longest ago; whether a row changed."""
        due = [(entry.summary, entry) for entry in self._entries.values() if entry.summary]
        changed = False
        for summary, entry in sorted(due, key=lambda each: each[0].checked_at):
            if summary.is_due and time.monotonic() < until:
                changed |= entry.attempt(summary.check)
        return changed


@dataclass
class _Folder:
    """The listing of a folder, kept while the folder's time of change is the same."""

    kind: str = ""
    """`run`, `sweep` or empty."""
    folders: tuple[str, ...] = ()
    """The names of the folders to search in it, none in a run."""
    has_stop_file: bool = False
    error: OSError | None = None
    """Why it cannot be listed."""
    _signature: Signature = ABSENT
    _hot_until: float = float("-inf")

    def refresh(self, path: str) -> None:
        current, now = signature(path), time.monotonic()
        if current != self._signature:
            self._signature, self._hot_until = current, now + HOT_S
        elif now > self._hot_until:
            return
        try:
            with os.scandir(path) as entries:
                self._read(list(entries))
        except OSError as error:
            self.kind, self.folders, self.error = "", (), None if error.errno in filesystem.GONE else error
            self._hot_until = math.inf  # until it can be listed: its time of change need not tell
        else:
            self._hot_until = min(self._hot_until, now + HOT_S)

    def _read(self, entries: list[os.DirEntry[str]]) -> None:
        names = {entry.name for entry in entries}
        self.kind = "sweep" if SWEEP_FILE in names else "run" if RUN_FILE in names else ""
        self.has_stop_file, self.error = STOP_FILE in names, None
        below = [] if self.kind == "run" else entries
        self.folders = tuple(
            sorted(e.name for e in below if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
        )


@dataclass
class _Entry:
    """A run or a sweep of the catalog, or the problem with it."""

    folder: str
    path: str
    """Below the root."""
    kind: str
    summary: RunSummary | None = None
    sweep: Sweep | None = None
    problem: str | None = None
    has_stop_file: bool = False
    is_trial: bool = False
    trials: dict[int, _Entry] = field(default_factory=dict)
    """Of a sweep those that have begun."""
    is_launched: bool = False
    """Whether a process of this machine runs the sweep."""
    jobs: Mapping[int, WorkerJob] = field(default_factory=dict)
    """What a scheduler said about them."""
    _signature: Signature = ABSENT
    """Of its manifest."""

    def attempt(self, read: Callable[[], bool]) -> bool:
        """Call `read`; whether the row changed. Whatever is wrong with it concerns no other entry."""
        before, changed = self._facts(), False
        try:
            changed = read()
        except ModtrainError as error:
            self._close(str(error))
            if isinstance(error.__cause__, OSError):
                self._signature = ABSENT  # read again when storage answers: the manifest need not have changed
        except Exception as error:  # a foreign file may hold anything
            self._close(_unreadable(error))
            self._signature = ABSENT
        return changed or before != self._facts()

    def refresh(
        self,
        folder: _Folder,
        ranking: tuple[str | None, bool],
        patience_s: float,
        jobs: Mapping[int, WorkerJob],
    ) -> bool:
        """Bring it up to date; whether the row of a run changed."""
        self.has_stop_file, self.jobs = folder.has_stop_file, jobs
        if folder.error:
            raise InputError(f"The folder cannot be listed: {folder.error.strerror or folder.error}.") from folder.error
        self._open(patience_s)
        self.is_launched = self.sweep is not None and launcher_pid(self.sweep.path) is not None
        return self.summary is not None and self.summary.refresh(
            has_stop_file=self.has_stop_file, ranking=ranking, jobs=jobs
        )

    def fail(self) -> NoReturn:
        raise InputError(self.problem or "It cannot be read.")

    def row(self) -> Row:
        """The row; of a sweep with the trials that have begun. An error in it costs no other row."""
        try:
            if self.summary:
                return self.summary.with_ages()
            if self.sweep:
                rows = {number: trial.row() for number, trial in self.trials.items()}
                metric = self.sweep.spec.metric
                results = {n: each.summary.result(metric) for n, each in self.trials.items() if each.summary and metric}
                stop = read_stop_request(self.sweep.path) if self.has_stop_file else None
                is_begun = len(self.trials) == self.sweep.spec.trials
                submitted = set() if is_begun else submitted_trials(self.sweep, self.jobs)
                return sweep_row(
                    self.sweep, self.path, rows, results, stop=stop, is_launched=self.is_launched, submitted=submitted
                )
        except Exception as error:  # a foreign file may hold anything
            return self._broken(_unreadable(error))
        return self._broken(self.problem or "It cannot be read.")

    def _facts(self) -> tuple[object, ...]:
        return self.problem, self.sweep, self.has_stop_file, self.is_launched, self.jobs

    def _close(self, problem: str | None) -> None:
        self.problem, self.summary, self.sweep = problem, None, None

    def _broken(self, problem: str) -> Row:
        name = self.path.rpartition("/")[2] or self.folder.rpartition("/")[2]
        empty = dict.fromkeys(("recipe", "state", "progress", "epoch", "epochs", "left_s", "metric", "created_at"))
        lists = {"modules": []} if self.kind == "run" else {"trials": 0, "counts": {}}
        identity = {"kind": self.kind, "path": self.path, "name": name}
        return {**identity, **empty, **lists, "alarms": [], "problem": problem}

    def _open(self, patience_s: float) -> None:
        """Read the manifest where it is another one than at the last refresh; InputError where it is broken."""
        file = SWEEP_FILE if self.kind == "sweep" else RUN_FILE
        current = signature(f"{self.folder}/{file}")
        if current == self._signature:
            if self.problem is not None:
                self.fail()
            return
        self._close(None)
        self._signature = current
        if not stat.S_ISREG(current[0]):
            raise InputError(f"{file} is not a regular file (a link, a folder or a pipe) and is not opened.")
        if self.kind == "sweep":
            self.sweep = Sweep.open(Path(self.folder))
        else:
            self.summary = RunSummary(check_trial(Run.open(Path(self.folder))), self.path, patience_s=patience_s)


def _unreadable(error: Exception) -> str:
    return f"It cannot be read ({plugins.summary(error)})."
