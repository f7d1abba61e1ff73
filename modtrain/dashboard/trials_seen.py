"""What came of the trials of a sweep, and their curves, read again only where their files changed.

Nothing is waited for, but a newest version that its worker is replacing, where the sweep's metric is one of training.
Deliberately not here: what came of one trial (`outcome.py`).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain import fs
from modtrain.dashboard import inside
from modtrain.dashboard.by_epoch import ByEpoch, Curves
from modtrain.outcome import Trial, outcome
from modtrain.pulse import LIVE
from modtrain.run import Run
from modtrain.trials import Sweep

MOST_WAITING = 200
"""Trials that have not begun, shown with their values."""
MOST_SWEEPS = 8
_FILES = ("heartbeat.json", "published.jsonl")

Row = Callable[[str], dict[str, Any]]
"""What the catalog says of the trial in a folder."""


@dataclass
class _Seen:
    """One trial as of the last time that its files changed."""

    run: Run
    metrics: ByEpoch
    stamp: tuple[object, ...] = ()
    trial: Trial | None = None
    curves: Curves | None = None


class TrialsSeen:
    """The trials of the sweeps that are looked at."""

    def __init__(self) -> None:
        self._sweeps: OrderedDict[tuple[Path, float], dict[str, _Seen]] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, sweep: Sweep, row: Row) -> tuple[list[Trial], dict[int, Curves]]:
        """Every trial that has begun, the next ones that have not, and by trial its metrics by epoch."""
        with self._lock:
            key = sweep.path, sweep.spec.created_at  # another sweep may have taken the place of one
            seen = self._sweeps.setdefault(key, {})
            self._sweeps.move_to_end(key)
            while len(self._sweeps) > MOST_SWEEPS:
                self._sweeps.popitem(last=False)
        names = [name for name in fs.names(sweep.path) if name.startswith("trial-")]
        found = [(name, each) for name in names if (each := _of(sweep, name, seen, row)) is not None]
        for name in set(seen) - {name for name, _ in found}:
            del seen[name]
        trials = {each.trial.number: each.trial for _, each in found if each.trial is not None}
        curves = {each.trial.number: each.curves for _, each in found if each.trial is not None and each.curves}
        return [*trials.values(), *_waiting(sweep, set(trials))], curves


def _of(sweep: Sweep, name: str, seen: dict[str, _Seen], row: Row) -> _Seen | None:
    try:
        each = seen.get(name)
        if each is None:
            if not inside.lies(sweep.path, name, "run.json"):
                return None
            run = Run.open(sweep.path / name)
            each = seen[name] = _Seen(run, ByEpoch(run, sweep.spec.metric))
        _look(sweep, each, [str(module["state"]) for module in row(name)["modules"]])
    except Exception:  # a foreign file may hold anything, and costs no other trial
        return None
    return each


def _look(sweep: Sweep, each: _Seen, states: list[str]) -> None:
    run = each.run
    stamp = (*_stamps(run), *states)
    if stamp == each.stamp or inside.strange(run.path, run.modules):
        return
    phase = "running" if set(states) & set(LIVE) else None if set(states) == {"not started"} else "ended"
    each.trial = outcome(run, sweep.spec.metric, phase)
    each.curves = each.metrics.look()
    each.stamp = stamp


def _stamps(run: Run) -> list[object]:
    paths = [run.path / "evaluation" / "metrics.jsonl", run.path / "stop"]
    paths += [run.module_path(module) / name for module in run.modules for name in _FILES]
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> object:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _waiting(sweep: Sweep, begun: set[int]) -> list[Trial]:
    """By their number; TPE has not chosen their values yet."""
    numbers = (number for number in range(sweep.spec.trials) if number not in begun)
    found = [number for number, _ in zip(numbers, range(MOST_WAITING), strict=False)]
    chosen = sweep.spec.sampler != "tpe"
    return [Trial(number=n, values=sweep.values(n) if chosen else {}, state="waiting") for n in found]
