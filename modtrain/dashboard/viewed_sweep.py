"""ViewedSweep: the trials of a sweep and their metrics by epoch, read again only where their files changed.

No link is followed. A trial that cannot be read has a reason, and costs no other one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modtrain.dashboard import safe_files
from modtrain.errors import InputError
from modtrain.monitoring.summary import RunSummary, signature
from modtrain.storage import filesystem
from modtrain.storage.evaluations import parse_evaluation
from modtrain.storage.json_lines import JsonLines, Line, number
from modtrain.storage.layout import HEARTBEAT_FILE, LAUNCHER_FILE, PUBLISHED_FILE, STOP_FILE
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.published_log import parse_published
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.sweep_jobs import submitted_trials
from modtrain.sweeps.sweep_state import pending_state
from modtrain.sweeps.trial import Trial, build_trial, training_scalar

MOST_PENDING = 200
"""Trials that have not begun, shown with their values."""

Curves = dict[str, dict[int, float]]
"""By metric its values by epoch, NaN where one was not finite; of several of one epoch the first, as for pruning."""
RowOf = Callable[[str], dict[str, Any]]
"""The catalog's row of the trial in a folder."""
SummaryOf = Callable[[str], RunSummary]


class ViewedSweep:
    """The trials of the sweep of this identity."""

    def __init__(self, *identity: object) -> None:
        """Nothing is read yet."""
        self._begun: dict[int, _BegunTrial] = {}

    def read(self, sweep: Sweep, row_of: RowOf, summary_of: SummaryOf) -> tuple[list[Trial], dict[int, Curves]]:
        """Every trial that has begun, the next ones that have not, and by trial its curves.

        The states are those of the catalog's rows, so that all pages agree.
        """
        numbers = [number for name in filesystem.names(sweep.path) if (number := sweep.number_of(name)) is not None]
        self._begun = {number: self._begun[number] for number in numbers if number in self._begun}
        begun = {each: read for each in numbers if (read := self._read(sweep, each, row_of, summary_of)) is not None}
        pending = itertools.islice((each for each in range(sweep.spec.trials) if each not in begun), MOST_PENDING)
        submitted, stop = submitted_trials(sweep), sweep.stop_request()
        is_launched = launcher_pid(sweep.path) is not None
        trials = [trial for trial, _ in begun.values()] + [
            sweep.trial_without_run(each, pending_state(each, submitted, stop, is_launched=is_launched))
            for each in pending
        ]
        return trials, {number: curves for number, (_, curves) in begun.items() if curves}

    def _read(self, sweep: Sweep, number: int, row_of: RowOf, summary_of: SummaryOf) -> tuple[Trial, Curves] | None:
        """A trial and its curves; None where the catalog has none, as for a link."""
        name = sweep.run_path(number).name
        try:
            row = row_of(name)
        except InputError:
            return None
        try:
            if row["problem"]:
                raise InputError(row["problem"])
            summary = summary_of(name)
            if number not in self._begun or self._begun[number].run is not summary.run:
                files = metric_files(summary.run, sweep.spec.metric or "")
                self._begun[number] = _BegunTrial(summary.run, number, files)
            return self._begun[number].read(row, summary, sweep.spec.metric)
        except InputError as error:
            why = str(error)
        except Exception as error:  # a foreign file may hold anything
            why = f"It cannot be read ({type(error).__name__}: {error})."
        return sweep.trial_without_run(number, "failed" if row["problem"] else row["state"], why), {}


@dataclass
class _BegunTrial:
    """One trial as of the last time that its files changed."""

    run: Run
    number: int
    files: list[JsonLines[tuple[int, Mapping[str, float | None]]]]
    signatures: tuple[object, ...] = ()
    trial: Trial | None = None
    curves: Curves = field(default_factory=dict)

    def read(self, row: Mapping[str, Any], summary: RunSummary, metric: str | None) -> tuple[Trial, Curves]:
        """Read what is new."""
        signatures = (*map(signature, self._paths()), row["state"], *(module["state"] for module in row["modules"]))
        if self.trial is None or signatures != self.signatures:
            if problem := safe_files.strange(self.run.path, self.run.modules):
                raise InputError(f"It is not shown: {problem}")
            self.trial = replace(build_trial(summary.snapshot(), metric), number=self.number, state=row["state"])
            self.curves = read_curves(self.files)
            self.signatures = signatures
        return self.trial, self.curves

    def _paths(self) -> list[Path]:
        names = (HEARTBEAT_FILE, PUBLISHED_FILE)
        of_modules = [self.run.module_path(module) / name for module in self.run.modules for name in names]
        return [self.run.evaluations_path, self.run.path / STOP_FILE, self.run.jobs_path / LAUNCHER_FILE, *of_modules]


def metric_files(run: Run, metric: str) -> list[JsonLines[tuple[int, Mapping[str, float | None]]]]:
    """Epochs and values in the evaluations, and in the published versions where the sweep's metric is of training."""

    def parse_metrics(line: Line) -> tuple[int, Mapping[str, float | None]] | None:
        record = parse_evaluation(line)
        return (record.epoch, record.metrics) if record else None

    def parse_training(line: Line) -> tuple[int, Mapping[str, float | None]] | None:
        """Only a version at the end of an epoch has the mean of the whole epoch."""
        checkpoint = parse_published(line)
        if checkpoint is None or not checkpoint.full or scalar not in checkpoint.metrics:
            return None
        return checkpoint.epoch, {metric: number(checkpoint.metrics[scalar])}

    module, scalar = training_scalar(run, metric)
    files = [JsonLines(run.evaluations_path, parse_metrics)]
    return [*files, JsonLines(run.published_path(module), parse_training)] if module else files


def read_curves(files: list[JsonLines[tuple[int, Mapping[str, float | None]]]]) -> Curves:
    """The curves in these files, by name within each."""
    curves: Curves = {}
    for file in files:
        file.refresh()
        for name in sorted({name for epoch, values in file.values for name in values if epoch > 0}):
            curves[name] = {}
        for epoch, values in file.values:
            for name, value in values.items() if epoch > 0 else ():
                curves[name].setdefault(epoch, math.nan if value is None else value)
    return curves
