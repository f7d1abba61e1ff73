"""A run or a sweep as one line of a list, kept current by reading only what changed. No link is followed.

A run that has ended costs a stat of each file that could show a new worker. The heartbeats of a live run are opened at
each refresh, since a network file system may show an old `stat` for a minute.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from modtrain.errors import StorageError
from modtrain.monitoring.alarms import Alarm, find_alarms, in_order
from modtrain.monitoring.status import Status, build_status
from modtrain.storage.checkpoint import Checkpoint, newest_published
from modtrain.storage.checkpoint_store import Newest
from modtrain.storage.evaluations import EvaluationFailure, EvaluationRecord, EvaluationSummary, read_failure
from modtrain.storage.heartbeat import NO_REPORT, read_report
from modtrain.storage.history import RecentHistory
from modtrain.storage.json_lines import JsonLines
from modtrain.storage.layout import JOBS_FILE, STOP_FILE
from modtrain.storage.liveness import PATIENCE_S, Liveness, launcher_path, read_launcher
from modtrain.storage.process_identity import NO_PROCESS
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import (
    ModuleSnapshot,
    Runner,
    RunSnapshot,
    WorkerJob,
    is_submitted,
    journal_path,
    last_refusal,
    module_snapshots,
    preempted_workers,
    read_runner,
)
from modtrain.storage.run_state import ENDED, LIVE
from modtrain.storage.stop_request import StopRequest, parse_stop_file
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import metric_value, ranking_value
from modtrain.sweeps.trials import count_pending, sweep_state

Signature = tuple[int, int, int, int]
"""Mode, time of change, size and inode of a file: equal for an unchanged one."""
ABSENT: Signature = (0, 0, 0, 0)

CURVES_S = 10.0
"""Seconds between two readings of a run's curves."""
MOST_ALARMS = 5
"""Alarms of its trials that a sweep repeats."""

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run at one moment: its row was built from this snapshot, so that whatever is shown of both agrees."""

    snapshot: RunSnapshot
    row: Row
    evaluation: EvaluationRecord | None
    """The newest one that was read."""


class RunSummary:
    """One run as a line of a list."""

    def __init__(self, run: Run, path: str, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing is read yet. `path` is the run's path below the root of the list."""
        self.run, self.path = run, path
        self.liveness = Liveness(patience_s=patience_s)
        self.newest: dict[str, Newest] = {module: Newest(None) for module in run.modules}
        self.checked_at = float("-inf")
        self._unchecked: set[str] = set()
        self._files = _Files()
        self._evaluations = JsonLines(run.evaluations_path, EvaluationSummary, EvaluationSummary.add)
        self._recent: RecentHistory | None = None
        self._recent_at = float("-inf")
        self._of_curves: list[Alarm] = []
        self._is_judged = False
        self._stop: StopRequest | None = None
        self._failure: EvaluationFailure | None = None
        self._launcher_pid: int | None = None
        self._runner: Runner = None
        self._is_submitted = False
        self._jobs: Mapping[int, WorkerJob] = {}
        self._refusals: dict[int, str] = {}
        self._alive: set[str] = set()
        self._ranking: tuple[str | None, bool] = (None, True)
        self._facts: tuple[object, ...] = ()
        self.view = RunView(snapshot=self._read_snapshot(), row={}, evaluation=None)
        """As of the last refresh; `with_ages` adds the ages of the checkpoints to its row."""
        self._heartbeats = {module: run.heartbeat_path(module) for module in run.modules}
        self._published = {module: run.published_path(module) for module in run.modules}

    def refresh(
        self,
        *,
        has_stop_file: bool,
        ranking: tuple[str | None, bool] = (None, True),
        jobs: Mapping[int, WorkerJob] = MappingProxyType({}),
    ) -> bool:
        """Bring the row up to date; whether it changed.

        `jobs` is what a scheduler said about the workers, if one was asked.
        `ranking` is the metric that a sweep ranks this trial by, and whether more of it is better.
        """
        is_evaluated, run, read = self._evaluations.refresh(), self.run, self._files.read
        for module, path in self._heartbeats.items():
            report = read(path, functools.partial(read_report, path), NO_REPORT, again=module in self._alive)
            self.liveness.observe(module, report)
        self._stop = read(run.path / STOP_FILE, lambda: parse_stop_file(run.path), None) if has_stop_file else None
        if self.view.row.get("state") != "finished":  # else neither matters
            launcher = read(launcher_path(run.path), lambda: read_launcher(run.path), NO_PROCESS)
            self._launcher_pid = launcher.pid if launcher.is_running() else None
            self._runner = read(run.jobs_path / JOBS_FILE, lambda: read_runner(run), None)
            self._is_submitted = is_submitted(self._runner, launcher)
            self._refusals = {
                number: read(journal_path(run, number), functools.partial(last_refusal, run, number), "")
                for number in preempted_workers(self.liveness, run.spec.placement)
            }
        path = run.evaluation_failure_path
        self._failure = read(path, functools.partial(read_failure, path), None)
        self._alive = {module for module in run.modules if self.liveness.is_alive(module)}
        facts = (self._files.reads, self._alive, self._launcher_pid, self._is_submitted, has_stop_file, ranking, jobs)
        if facts == self._facts and not is_evaluated and not self._alive:
            return False
        for module, path in self._published.items():
            read(path, functools.partial(self._read_newest, module), None)
        self._facts, self._ranking, self._jobs = (self._files.reads, *facts[1:]), ranking, jobs
        self._is_judged = False
        return self._build_row()

    @property
    def awaits_jobs(self) -> bool:
        """Whether a scheduler may know more than the folder: a worker has not begun, or has left before its end."""
        if self._runner == "launcher" or self.view.row.get("state") == "finished":
            return False
        states = {module["state"] for module in self.view.row.get("modules", ())}
        return not states <= LIVE | {"finished"}

    @property
    def is_due(self) -> bool:
        """Whether it is time for a `check`."""
        if self._alive:
            return bool(self._unchecked) or time.monotonic() - self._recent_at >= CURVES_S
        return bool(self._unchecked) or not self._is_judged

    def check(self) -> bool:
        """Check the newest versions, and read the ends of the curves if it is time for that; whether the row changed.

        The curves of a run that has ended do not change: they are read once.
        """
        self.checked_at = time.monotonic()
        for module in sorted(self._unchecked):
            with contextlib.suppress(OSError):  # it is due again
                self._check_newest(module)
        is_time = self.checked_at - self._recent_at >= CURVES_S
        if is_time if self._alive else not self._is_judged:
            self._recent, self._is_judged, self._recent_at = RecentHistory(self.run), not self._alive, self.checked_at
        changed = self._build_row()
        if not self._alive:
            self._recent = None  # what it said stays
        return changed

    def with_ages(self, view: RunView | None = None) -> Row:
        """The row of a view, of the last one if none is given, with the age of the newest version of each module."""
        of = view or self.view
        ages = {name: self._age_s(name, module) for name, module in of.snapshot.modules.items()}
        return {**of.row, "modules": [{**module, "age_s": ages[module["name"]]} for module in of.row["modules"]]}

    def _read_snapshot(self) -> RunSnapshot:
        """Everything that decides the state of the run, as it was read last."""
        return RunSnapshot(
            run=self.run,
            modules=module_snapshots(self.run, self.liveness, self.newest),
            stop=self._stop,
            evaluation_failure=self._failure,
            launcher=self._launcher_pid,
            is_submitted=self._is_submitted,
            jobs=self._jobs,
            refusals=self._refusals,
        )

    def result(self, metric: str) -> float | None:
        """The value by which a sweep ranks this trial: of the newest evaluation, or `module.scalar` of training."""
        newest = self._checkpoints()
        is_over = not self._alive and all(map(self.run.spec.is_last, newest.values()))
        return ranking_value(self.run, metric, self._evaluations.content.newest, newest.get, is_over=is_over)

    def best(self) -> Row | None:
        """The best value of the sweep's metric for a trial, else of the one by which the run is compared.

        A scalar of training (`module.scalar`) has only its newest value.
        """
        name, maximize = self._ranking
        newest = self._evaluations.content.newest
        if name is None:
            measured = self._evaluations.content.measured
            name = self.run.spec.compared_by(newest.metrics if newest else (), measured)
            maximize = name not in self.run.spec.lower_is_better
        if name is None:
            return None
        lowest, highest = self._evaluations.content.ranges.get(name, (None, None))
        value = highest if maximize else lowest
        value = metric_value(self.run, name, newest, self._checkpoints().get) if value is None else value
        return None if value is None else {"name": name, "value": value}

    def _checkpoints(self) -> dict[str, Checkpoint | None]:
        return {module: newest.checkpoint for module, newest in self.newest.items()}

    def _read_newest(self, module: str) -> None:
        path, before = self._published[module], self.newest[module]
        self.newest[module] = Newest(newest_published(path, module) or before.checkpoint, before.damaged)
        self._unchecked.add(module)

    def _check_newest(self, module: str) -> None:
        """Replace the newest version by the newest intact one; OSError where storage does not answer.

        A listing that an NFS client remembers may lack the newest version, and a killed writer its line in the log.
        """
        newest, logged = self.run.store(module).newest_intact(), self.newest[module].checkpoint
        is_newer = newest.checkpoint and (logged is None or newest.checkpoint.version > logged.version)
        self.newest[module] = newest if newest.damaged or is_newer else Newest(logged)
        self._unchecked.discard(module)

    def _build_row(self) -> bool:
        """Build the row anew; whether it is another one."""
        snapshot = self._read_snapshot()
        status = build_status(snapshot)
        before, shown = self.view.row, ("state", "version", "epoch", "step")
        modules = [{"name": n, **{key: module[key] for key in shown}} for n, module in status["modules"].items()]
        row = {
            "kind": "run",
            "path": self.path,
            "name": self.run.name,
            **{
                key: status[key]
                for key in ("recipe", "state", "progress", "epoch", "epochs", "stage", "left_s", "stop")
            },
            "modules": modules,
            "metric": self.best(),
            "alarms": [vars(alarm) for alarm in self._find_alarms(status)],
            "created_at": self.run.spec.created_at,
            "problem": None,
        }
        self.view = RunView(snapshot=snapshot, row=row, evaluation=self._evaluations.content.newest)
        return before != row

    def _find_alarms(self, status: Status) -> list[Alarm]:
        """With those of the curves: as they are now, or as they were read last."""
        without = find_alarms(status)
        if self._recent is None:
            return in_order([*without, *self._of_curves])
        alarms = find_alarms(status, self._recent)
        self._of_curves = [alarm for alarm in alarms if alarm not in without]
        return alarms

    def _age_s(self, name: str, module: ModuleSnapshot) -> float | None:
        """Of a live worker by its own clock, plus its silence by ours; else by the wall clock."""
        if module.newest is None:
            return None
        if module.is_alive and module.report.at is not None:
            return max(0.0, module.report.at - module.newest.published_at) + (self.liveness.silent_s(name) or 0.0)
        return max(0.0, time.time() - module.newest.published_at)


class _Files:
    """What was read from files; each is read again when its signature is another one."""

    def __init__(self) -> None:
        self._values: dict[Path | str, tuple[Signature, Any]] = {}
        self.reads = 0

    def read(self, path: Path | str, read: Callable[[], T], default: T, *, again: bool = False) -> T:
        """The value of a file, `default` if there never was one; `again` reads it in any case.

        Where storage does not answer the value stays, and the file is read at the next call.
        """
        current = signature(path)
        known: tuple[Signature, T] = self._values.get(path, (ABSENT, default))
        before, value = known
        if again or current != before:
            try:
                value = read()
            except (OSError, StorageError):
                current = ABSENT
            self._values[path] = current, value
            self.reads += 1
        return value


def signature(path: str | os.PathLike[str]) -> Signature:
    """The signature of a file, of a link itself; `ABSENT` where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return ABSENT
    return status.st_mode, status.st_mtime_ns, status.st_size, status.st_ino


def sweep_row(
    sweep: Sweep,
    path: str,
    rows: Mapping[int, Row],
    results: Mapping[int, float | None],
    *,
    stop: StopRequest | None,
    is_launched: bool,
    submitted: Collection[int],
) -> Row:
    """A sweep as one line, from the rows and results of the trials that have begun; `submitted` as `count_pending`."""
    counts = Counter("failed" if row["problem"] else row["state"] for row in rows.values())
    counts += count_pending(sweep, rows, submitted, stop, is_launched=is_launched)
    done = sum(1.0 if row["problem"] or row["state"] in ENDED else row["progress"] or 0.0 for row in rows.values())
    return {
        "kind": "sweep",
        "path": path,
        "name": sweep.name,
        "recipe": sweep.spec.config["recipe"],
        "state": sweep_state(counts, stop, is_launched=is_launched),
        "trials": sweep.spec.trials,
        "counts": {state: count for state, count in counts.items() if count},
        "progress": min(1.0, done / sweep.spec.trials),
        "metric": _best_trial(sweep, results),
        "alarms": _alarms_of_trials(sweep, rows.values()),
        "created_at": sweep.spec.created_at,
        "problem": None,
    }


def _alarms_of_trials(sweep: Sweep, rows: Iterable[Row]) -> list[Row]:
    messages = [f"{row['name']}: {alarm['says']}" for row in rows for alarm in row["alarms"] if alarm["level"] == "bad"]
    do = f"See `modtrain sweep-status {sweep.path}`."
    if len(messages) > MOST_ALARMS:
        messages[MOST_ALARMS:] = [f"{len(messages) - MOST_ALARMS} more of its trials."]
    return [{"module": None, "level": "bad", "says": message, "do": do} for message in messages]


def _best_trial(sweep: Sweep, results: Mapping[int, float | None]) -> Row | None:
    sign = -1 if sweep.spec.maximize else 1
    ranked = [(sign * value, number) for number, value in results.items() if value is not None]
    return {"name": sweep.spec.metric, "value": sign * min(ranked)[0], "trial": min(ranked)[1]} if ranked else None
