"""The sweep page's data: its trials, best first, with what varies and the metric of each over its epochs.

A trial is read again only where its files changed. No link is followed. A trial that cannot be read has a reason, and
costs no other one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from modtrain.dashboard import downsampling, safe_files
from modtrain.dashboard.urls import quoted
from modtrain.errors import InputError
from modtrain.monitoring.catalog import Catalog
from modtrain.monitoring.summary import RunSummary, signature
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import parse_published
from modtrain.storage.evaluations import metric_by_epoch, read_evaluations
from modtrain.storage.json_lines import number, read_json_lines
from modtrain.storage.layout import HEARTBEAT_FILE, LAUNCHER_FILE, PUBLISHED_FILE, STOP_FILE
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial, build_trial, training_scalar
from modtrain.sweeps.trials import pending_state, rank, submitted_trials

MOST_PENDING = 200
"""Trials that have not begun, shown with their values."""
MOST_POINTS = 200
"""Of each trial's curve."""
_TRIAL = ("number", "state", "values", "result", "metrics", "epoch", "why")

Values = dict[str, Any]
Curves = dict[str, dict[int, float]]
"""By metric its values by epoch, NaN where one was not finite; of several of one epoch the first, as for pruning."""


def sweep_page(sweep: Sweep, path: str, trials: Iterable[Trial], curves: Mapping[int, Curves]) -> Values:
    """All but the sweep's row; `curves` holds by trial and metric the values by epoch.

    `more_pending` is how many trials have not begun beside those in the list.
    """
    by_rank = rank(sweep, trials)
    return {
        "more_pending": max(0, sweep.spec.trials - len(by_rank)),
        "varies": list(dict.fromkeys(name for trial in by_rank for name in trial.values)),
        "trials": [
            {name: getattr(trial, name) for name in _TRIAL}
            | {"path": quoted(f"{path}/{sweep.run_path(trial.number).name}".lstrip("/"))}
            for trial in by_rank
        ],
        "curves": [
            _curve(trial.number, name, values)
            for trial in by_rank
            for name, values in curves.get(trial.number, {}).items()
        ],
    }


def _curve(number: int, name: str, values: Mapping[int, float]) -> Values:
    epochs = sorted(values)
    kept = [epochs[index] for index in downsampling.kept([values[epoch] for epoch in epochs], MOST_POINTS)]
    return {"trial": number, "name": name, "epoch": kept, "value": [values[epoch] for epoch in kept]}


class ViewedSweep:
    """The trials of the sweep of this identity."""

    def __init__(self, *identity: object) -> None:
        """Nothing is read yet."""
        self._begun: dict[int, tuple[tuple[object, ...], Trial, Curves]] = {}
        """By number: of what it was built, the trial, and its curves."""

    def read(self, sweep: Sweep, path: str, catalog: Catalog) -> tuple[list[Trial], dict[int, Curves]]:
        """Every trial that has begun, the next ones that have not, and by trial its curves.

        `path` is the sweep's in the catalog. The states are those of the catalog's rows, so that all pages agree.
        """
        numbers = [each for name in filesystem.names(sweep.path) if (each := sweep.number_of(name)) is not None]
        begun = {each: read for each in numbers if (read := self._read(sweep, each, path, catalog)) is not None}
        pending = itertools.islice((each for each in range(sweep.spec.trials) if each not in begun), MOST_PENDING)
        submitted, stop = submitted_trials(sweep), sweep.stop_request()
        is_launched = launcher_pid(sweep.path) is not None
        trials = [trial for trial, _ in begun.values()] + [
            sweep.trial_without_run(each, pending_state(each, submitted, stop, is_launched=is_launched))
            for each in pending
        ]
        return trials, {number: curves for number, (_, curves) in begun.items() if curves}

    def _read(self, sweep: Sweep, number: int, path: str, catalog: Catalog) -> tuple[Trial, Curves] | None:
        """A trial and its curves; None where the catalog has none, as for a link."""
        place = f"{path}/{sweep.run_path(number).name}".lstrip("/")
        try:
            row = catalog.row(place)
        except InputError:
            return None
        try:
            if row["problem"]:
                raise InputError(row["problem"])
            return self._read_changed(number, row, catalog.summary(place), sweep.spec.metric)
        except InputError as error:
            why = str(error)
        except Exception as error:  # a foreign file may hold anything
            why = f"It cannot be read ({type(error).__name__}: {error})."
        return sweep.trial_without_run(number, "failed" if row["problem"] else row["state"], why), {}

    def _read_changed(self, number: int, row: Values, summary: RunSummary, metric: str | None) -> tuple[Trial, Curves]:
        run, states = summary.run, (row["state"], *(module["state"] for module in row["modules"]))
        of_modules = [run.module_path(each) / name for each in run.modules for name in (HEARTBEAT_FILE, PUBLISHED_FILE)]
        files = [run.evaluations_path, run.path / STOP_FILE, run.jobs_path / LAUNCHER_FILE, *of_modules]
        built_of = (summary, states, *map(signature, files))
        if number not in self._begun or self._begun[number][0] != built_of:
            if problem := safe_files.strange(run.path, run.modules):
                raise InputError(f"It is not shown: {problem}")
            trial = replace(build_trial(summary.view.snapshot, metric), number=number, state=row["state"])
            self._begun[number] = built_of, trial, read_curves(run, metric or "")
        _, trial, curves = self._begun[number]
        return trial, curves


def read_curves(run: Run, metric: str) -> Curves:
    """The metrics of the evaluations, and that of the sweep where it is one of training."""
    records = read_evaluations(run.evaluations_path)
    curves = {name: metric_by_epoch(records, name) for name in sorted({n for each in records for n in each.metrics})}
    module, scalar = training_scalar(run, metric)
    published = map(parse_published, read_json_lines(run.published_path(module))) if module else ()
    for checkpoint in published:
        # Only a version at the end of an epoch has the mean of the whole epoch.
        if checkpoint and checkpoint.full and checkpoint.epoch > 0 and scalar in checkpoint.metrics:
            value = number(checkpoint.metrics[scalar])
            curves.setdefault(metric, {}).setdefault(checkpoint.epoch, math.nan if value is None else value)
    return {name: values for name, values in curves.items() if values}
