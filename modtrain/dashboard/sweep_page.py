"""The sweep page's data: its trials, best first, with what varies and the metric of each over its epochs.

A trial is read again only where its files changed. No link is followed. A trial that cannot be read has a reason, and
costs no other one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modtrain import plugins
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
from modtrain.sweeps.trials import pending_state, rank

MOST_PENDING = 200
"""Trials that have not begun, shown with their values."""
MOST_POINTS = 200
"""Of each trial's curve."""
_TRIAL = ("number", "state", "values", "result", "metrics", "epoch", "why")

Values = dict[str, Any]
Curves = dict[str, dict[int, float]]
"""By metric its values by epoch, NaN where one was not finite; of several of one epoch the first, as for pruning."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A trial that has begun, with its curves."""

    trial: Trial
    run: Run | None = None
    """None where it cannot be read."""
    curves: Curves = field(default_factory=dict)
    scalars: Sequence[str] = ()
    """The scalars of its training, as `module.scalar`: their curves are read when one is wanted."""
    built_of: tuple[object, ...] = ()


def sweep_page(sweep: Sweep, path: str, begun: Sequence[Begun], pending: Iterable[Trial]) -> Values:
    """All but the sweep's row.

    `scalars` names the scalars of training that have curves too; `more_pending` is how many trials have not begun
    beside those in the list.
    """
    curves = {each.trial.number: each.curves for each in begun}
    by_rank = rank(sweep, [*(each.trial for each in begun), *pending])
    return {
        "scalars": sorted({name for each in begun for name in each.scalars}),
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
        self._begun: dict[int, Begun] = {}
        """By number."""

    def read(self, sweep: Sweep, path: str, catalog: Catalog) -> tuple[list[Begun], list[Trial]]:
        """Every trial that has begun, and the next ones that have not.

        `path` is the sweep's in the catalog. The states are those of the catalog's rows, so that all pages agree.
        """
        numbers = [each for name in filesystem.names(sweep.path) if (each := sweep.number_of(name)) is not None]
        begun = {each: read for each in numbers if (read := self._read(sweep, each, path, catalog)) is not None}
        pending = itertools.islice((each for each in range(sweep.spec.trials) if each not in begun), MOST_PENDING)
        submitted, stop = catalog.submitted_trials(path), sweep.stop_request()
        is_launched = launcher_pid(sweep.path) is not None
        return list(begun.values()), [
            sweep.trial_without_run(each, pending_state(each, submitted, stop, is_launched=is_launched))
            for each in pending
        ]

    def _read(self, sweep: Sweep, number: int, path: str, catalog: Catalog) -> Begun | None:
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
            why = f"It cannot be read ({plugins.summary(error)})."
        return Begun(trial=sweep.trial_without_run(number, "failed" if row["problem"] else row["state"], why))

    def _read_changed(self, number: int, row: Values, summary: RunSummary, metric: str | None) -> Begun:
        run, states = summary.run, (row["state"], *(module["state"] for module in row["modules"]))
        of_modules = [run.module_path(each) / name for each in run.modules for name in (HEARTBEAT_FILE, PUBLISHED_FILE)]
        files = [run.evaluations_path, run.path / STOP_FILE, run.jobs_path / LAUNCHER_FILE, *of_modules]
        built_of = (summary, states, *map(signature, files))
        if number not in self._begun or self._begun[number].built_of != built_of:
            if problem := safe_files.strange(run.path, run.modules):
                raise InputError(f"It is not shown: {problem}")
            snapshot = summary.view.snapshot
            newest = {name: module.newest for name, module in snapshot.modules.items() if module.newest is not None}
            self._begun[number] = Begun(
                trial=replace(build_trial(snapshot, metric), number=number, state=row["state"]),
                run=run,
                curves=read_curves(run, metric or ""),
                scalars=[f"{name}.{scalar}" for name, version in newest.items() for scalar in version.metrics],
                built_of=built_of,
            )
        return self._begun[number]


def read_curves(run: Run, metric: str) -> Curves:
    """The metrics of the evaluations, and that of the sweep where it is one of training."""
    records = read_evaluations(run.evaluations_path)
    curves = {name: metric_by_epoch(records, name) for name in sorted({n for each in records for n in each.metrics})}
    if training := read_training_curve(run, metric):
        curves[metric] = training
    return {name: values for name, values in curves.items() if values}


def scalar_curves(begun: Iterable[Begun], name: str) -> list[Values]:
    """The curve of a scalar of training in each trial that has it."""
    values = {
        each.trial.number: read_training_curve(each.run, name)
        for each in begun
        if each.run is not None and name in each.scalars
    }
    return [_curve(number, name, curve) for number, curve in values.items() if curve]


def read_training_curve(run: Run, name: str) -> dict[int, float]:
    """A scalar of training (`module.scalar`) by epoch; empty for a metric of the evaluation."""
    curve: dict[int, float] = {}
    module, scalar = training_scalar(run, name)
    published = map(parse_published, read_json_lines(run.published_path(module))) if module else ()
    for checkpoint in published:
        # Only a version at the end of an epoch has the mean of the whole epoch.
        if checkpoint and checkpoint.full and checkpoint.epoch > 0 and scalar in checkpoint.metrics:
            value = number(checkpoint.metrics[scalar])
            curve.setdefault(checkpoint.epoch, math.nan if value is None else value)
    return curve
