"""RunSummary and sweep_row: a run or a sweep as one line of a list, kept current by reading only what changed.

A run that has ended costs a stat of each file that could show a new worker. The heartbeats of a live run are opened at
each refresh, since a network file system may show an old `stat` for a minute. No link is followed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.status import build_status
from modtrain.storage import layout
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.checkpoint_store import Newest
from modtrain.storage.evaluations import EvaluationSummary
from modtrain.storage.history import RecentHistory
from modtrain.storage.liveness import PATIENCE_S, Liveness, launcher_path, read_launcher
from modtrain.storage.process_identity import NO_PROCESS
from modtrain.storage.published_log import newest_published
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import RunSnapshot, build_snapshot, has_submitted_jobs
from modtrain.storage.run_state import ENDED
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

Row = dict[str, Any]


class RunSummary:
    """One run as a line of a list."""

    def __init__(self, run: Run, path: str, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing is read yet. `path` is the run's path below the root of the list."""
        self.run, self.path = run, path
        self.liveness = Liveness(patience_s=patience_s)
        self.row: Row = {}
        """As of the last refresh; `with_ages` adds the ages of the checkpoints."""
        self.newest: dict[str, Newest] = {module: Newest(None) for module in run.modules}
        self.evaluations = EvaluationSummary(run.evaluations_path)
        self._unchecked: set[str] = set()
        self._recent: RecentHistory | None = None
        self._recent_at = float("-inf")
        self._heartbeats = {module: str(run.heartbeat_path(module)) for module in run.modules}
        self._signatures: dict[str, Signature] = {}
        """Of files, by path, at the last refresh."""
        self._stop: StopRequest | None = None
        self._launcher, self._is_submitted = NO_PROCESS, False
        self._launcher_pid: int | None = None
        self._alive: set[str] = set()
        self._ranking: tuple[str | None, bool] = (None, True)

    def refresh(
        self, *, has_stop_file: bool, ranking: tuple[str | None, bool] = (None, True), closely: bool = True
    ) -> bool:
        """Bring the row up to date; whether it changed.

        `ranking` is the metric that a sweep ranks this trial by, and whether more of it is better. If `closely`, the
        newest versions are checked, and now and then the ends of a live run's curves are read.
        """
        changed = [self._read_heartbeat(module) for module in self.run.modules]
        alive = {module for module in self.run.modules if self.liveness.is_alive(module)}
        changed += [self.evaluations.refresh(), self._read_stop(has_stop_file), self._read_launch()]
        changed += [ranking != self._ranking, alive != self._alive, not self.row]
        if not any(changed) and not alive and not (closely and self._unchecked):
            return False
        for module in self.run.modules:
            self._read_newest(module)
        if closely:
            self._check_newest()
        self._read_curves(closely, live=bool(alive))
        self._alive, self._ranking = alive, ranking
        before, self.row = self.row, self._build_row()
        return before != self.row

    def with_ages(self) -> Row:
        """The row with the age of each module's newest version."""
        modules = [{**module, "age_s": self._age_s(module["name"])} for module in self.row["modules"]]
        return {**self.row, "modules": modules}

    def snapshot(self) -> RunSnapshot:
        """Everything that decides the state of the run, as it was read last."""
        return build_snapshot(
            self.run,
            self.liveness,
            self.newest,
            self._stop,
            launcher=self._launcher_pid,
            is_submitted=self._is_submitted,
        )

    def result(self, metric: str) -> float | None:
        """The value by which a sweep ranks this trial: of the newest evaluation, or `module.scalar` of training."""
        newest = self._checkpoints()
        is_over = not self._alive and all(checkpoint and checkpoint.final for checkpoint in newest.values())
        return ranking_value(self.run, metric, self.evaluations.newest, newest.get, is_over=is_over)

    def best(self) -> Row | None:
        """The best value over all evaluations of the metric that the run is judged by.

        That is the sweep's metric for a trial, else the first metric of the newest evaluation with the recipe's
        direction. A scalar of training (`module.scalar`) has only its newest value.
        """
        name, maximize = self._ranking
        newest = self.evaluations.newest
        if name is None:
            name = next(iter(newest.metrics), None) if newest else None
            maximize = name not in self.run.spec.lower_is_better
        if name is None:
            return None
        lowest, highest = self.evaluations.ranges.get(name, (None, None))
        value = highest if maximize else lowest
        value = metric_value(self.run, name, newest, self._checkpoints().get) if value is None else value
        return None if value is None else {"name": name, "value": value}

    def _checkpoints(self) -> dict[str, Checkpoint | None]:
        return {module: newest.checkpoint for module, newest in self.newest.items()}

    def _read_heartbeat(self, module: str) -> bool:
        """Whether the heartbeat changed."""
        path = self._heartbeats[module]
        if not self._is_new(path) and not self.liveness.is_alive(module):
            return False
        before = self.liveness.report(module)
        if not self.liveness.refresh(self.run, [module]):
            self._signatures[path] = ABSENT  # read again when storage answers
        return self.liveness.report(module) != before

    def _read_newest(self, module: str) -> None:
        path, before = self.run.published_path(module), self.newest[module]
        if self._is_new(str(path)):
            self.newest[module] = Newest(newest_published(path, module) or before.checkpoint, before.damaged)
            self._unchecked.add(module)

    def _check_newest(self) -> None:
        """Replace versions by intact ones; storage that does not answer is asked again at the next refresh.

        A listing that an NFS client remembers may lack the newest version, and a killed writer its line in the log.
        """
        for module in sorted(self._unchecked):
            with contextlib.suppress(OSError):
                newest, logged = self.run.store(module).newest_intact(), self.newest[module].checkpoint
                is_newer = newest.checkpoint and (logged is None or newest.checkpoint.version > logged.version)
                self.newest[module] = newest if newest.damaged or is_newer else Newest(logged)
                self._unchecked.discard(module)

    def _read_curves(self, may_read: bool, *, live: bool) -> None:
        """The curves of a run that has ended do not change; what is in memory of them is dropped."""
        if not live:
            self._recent = None
        elif may_read and time.monotonic() - self._recent_at >= CURVES_S:
            self._recent_at = time.monotonic()
            self._recent = self._recent or RecentHistory(self.run)
            self._recent.refresh()

    def _read_stop(self, has_file: bool) -> bool:
        """Whether the stop request changed."""
        if not has_file and self._stop is None:
            return False
        before, path = self._stop, str(self.run.path / layout.STOP_FILE)
        if not has_file:
            self._signatures[path], self._stop = ABSENT, None
        elif self._is_new(path):
            try:
                self._stop = parse_stop_file(self.run.path)
            except OSError:
                self._signatures[path] = ABSENT  # read again when storage answers
        return self._stop != before

    def _read_launch(self) -> bool:
        """Whether the launcher or the jobs of a run changed; of a finished run neither matters."""
        if self.row.get("state") == "finished":
            return False
        before = self._launcher_pid, self._is_submitted
        if self._is_new(str(launcher_path(self.run.path))):
            self._launcher = read_launcher(self.run.path)
        if self._is_new(str(self.run.jobs_path / layout.JOBS_FILE)):
            self._is_submitted = has_submitted_jobs(self.run)
        self._launcher_pid = self._launcher.pid if self._launcher.is_running() else None
        return before != (self._launcher_pid, self._is_submitted)

    def _is_new(self, path: str) -> bool:
        """Whether a file is another one than at the last refresh."""
        current = signature(path)
        if current == self._signatures.get(path, ABSENT):
            return False
        self._signatures[path] = current
        return True

    def _build_row(self) -> Row:
        status = build_status(self.snapshot())
        modules = [
            {"name": name, **{key: module[key] for key in ("state", "version", "epoch", "step")}}
            for name, module in status["modules"].items()
        ]
        return {
            "kind": "run",
            "path": self.path,
            "name": self.run.name,
            **{key: status[key] for key in ("recipe", "state", "progress", "epoch", "epochs", "left_s")},
            "modules": modules,
            "metric": self.best(),
            "alarms": [vars(alarm) for alarm in find_alarms(status, self._recent)],
            "created_at": self.run.spec.created_at,
            "problem": None,
        }

    def _age_s(self, module: str) -> float | None:
        """Of a live worker by its own clock, plus its silence by ours; else by the wall clock."""
        checkpoint, report = self.newest[module].checkpoint, self.liveness.report(module)
        if checkpoint is None:
            return None
        if module in self._alive and report.at is not None:
            return max(0.0, report.at - checkpoint.published_at) + (self.liveness.silent_s(module) or 0.0)
        return max(0.0, time.time() - checkpoint.published_at)


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
) -> Row:
    """A sweep as one line, from the rows and results of the trials that have begun."""
    counts = Counter("failed" if row["problem"] else row["state"] for row in rows.values())
    counts += count_pending(sweep, rows, stop, is_launched=is_launched)
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
    """The bad alarms of its trials."""
    messages = [f"{row['name']}: {alarm['says']}" for row in rows for alarm in row["alarms"] if alarm["level"] == "bad"]
    do = f"See `modtrain sweep-status {sweep.path}`."
    if len(messages) > MOST_ALARMS:
        messages[MOST_ALARMS:] = [f"{len(messages) - MOST_ALARMS} more of its trials."]
    return [{"module": None, "level": "bad", "says": message, "do": do} for message in messages]


def _best_trial(sweep: Sweep, results: Mapping[int, float | None]) -> Row | None:
    sign = -1 if sweep.spec.maximize else 1
    ranked = [(sign * value, number) for number, value in results.items() if value is not None]
    return {"name": sweep.spec.metric, "value": sign * min(ranked)[0], "trial": min(ranked)[1]} if ranked else None
