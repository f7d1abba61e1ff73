"""What came of the trials of a sweep, and their curves, read again only where their files changed.

Nothing is waited for, and no link is followed: what a module has published, its `published.jsonl` tells. A trial that
cannot be read says why, and costs no other one. Deliberately not here: what came of one trial (`outcome.py`).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modtrain.dashboard import safe_files
from modtrain.dashboard.trial_curves import ByEpoch, Curves
from modtrain.errors import InputError
from modtrain.monitoring.summary import RunSummary
from modtrain.storage import filesystem
from modtrain.storage.layout import HEARTBEAT_FILE, LAUNCHER_FILE, PUBLISHED_FILE, RUN_FILE, STOP_FILE
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.sweep_jobs import submitted_trials
from modtrain.sweeps.sweep_state import pending_state
from modtrain.sweeps.trial import Trial, build_trial

MOST_WAITING = 200
"""Trials that have not begun, shown with their values."""
MOST_SWEEPS = 8
_FILES = (HEARTBEAT_FILE, PUBLISHED_FILE)

Row = Callable[[str], dict[str, Any]]
"""The row of the trial in a folder, by the catalog."""
Summary = Callable[[str], RunSummary]
"""Its summary."""


@dataclass
class _Seen:
    """One trial as of the last time that its files changed."""

    run: Run
    metrics: ByEpoch
    stamp: tuple[object, ...] = ()
    trial: Trial | None = None
    curves: Curves = field(default_factory=dict)


class TrialsSeen:
    """The trials of the sweeps that are looked at."""

    def __init__(self) -> None:
        self._sweeps: OrderedDict[tuple[object, ...], dict[int, _Seen]] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, sweep: Sweep, row: Row, summary: Summary) -> tuple[list[Trial], dict[int, Curves]]:
        """Every trial that has begun, the next ones that have not, and by trial its metrics by epoch."""
        with self._lock:
            # Another sweep may have taken the place of one, or the same may want to know something else now.
            key = sweep.path, sweep.spec.created_at, sweep.spec.metric
            seen = self._sweeps.setdefault(key, {})
            self._sweeps.move_to_end(key)
            while len(self._sweeps) > MOST_SWEEPS:
                self._sweeps.popitem(last=False)
        numbers = [number for name in filesystem.names(sweep.path) if (number := sweep.number_of(name)) is not None]
        found = {number: each for number in numbers if (each := _of(sweep, number, seen, row, summary)) is not None}
        for number in set(seen) - set(found):
            del seen[number]
        trials = [trial for trial, _ in found.values()]
        curves = {number: its for number, (_, its) in found.items() if its}
        return [*trials, *_waiting(sweep, set(found))], curves


def _of(sweep: Sweep, number: int, seen: dict[int, _Seen], row: Row, summary: Summary) -> tuple[Trial, Curves] | None:
    """A trial and its metrics by epoch; None where there is none that the catalog knows, such as a link."""
    try:
        told = row(sweep.run_path(number).name)
    except InputError:
        return None
    try:
        if told["problem"]:
            raise InputError(told["problem"])
        states = [str(module["state"]) for module in told["modules"]]
        return _look(sweep, number, seen, states, summary)
    except InputError as error:
        why = str(error)
    except Exception as error:  # a foreign file may hold anything
        why = f"It cannot be read ({type(error).__name__}: {error})."
    return sweep.trial_without_run(number, "failed" if told["problem"] else told["state"], why), {}


def _look(
    sweep: Sweep, number: int, seen: dict[int, _Seen], states: list[str], summary: Summary
) -> tuple[Trial, Curves]:
    each = seen.get(number)
    if each is None:
        path = sweep.run_path(number)
        if not safe_files.lies(path, RUN_FILE):
            raise InputError(f"{RUN_FILE} is no plain file.")
        run = Run.open(path)
        each = seen[number] = _Seen(run, ByEpoch(run, sweep.spec.metric))
    run = each.run
    stamp = (*_stamps(run), *states)
    if each.trial is None or stamp != each.stamp:
        if said := safe_files.strange(run.path, run.modules):
            raise InputError(f"It is not shown: {said}")
        trial = build_trial(summary(run.name).snapshot(), sweep.spec.metric)
        each.trial, each.curves = replace(trial, number=number), each.metrics.look()
        each.stamp = stamp
    return each.trial, each.curves


def _stamps(run: Run) -> list[object]:
    paths = [run.evaluations_path, run.path / STOP_FILE, run.jobs_path / LAUNCHER_FILE]
    paths += [run.module_path(module) / name for module in run.modules for name in _FILES]
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> object:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _waiting(sweep: Sweep, begun: set[int]) -> list[Trial]:
    """The next ones, by their number."""
    numbers = (number for number in range(sweep.spec.trials) if number not in begun)
    found = [number for number, _ in zip(numbers, range(MOST_WAITING), strict=False)]
    submitted, stop = submitted_trials(sweep), sweep.stop_request()
    is_launched = launcher_pid(sweep.path) is not None
    states = {number: pending_state(number, submitted, stop, is_launched=is_launched) for number in found}
    return [sweep.trial_without_run(number, state) for number, state in states.items()]
