"""ViewedSweep: the trials of a sweep and their metrics by epoch, read again only where their files changed.

No link is followed. A trial that cannot be read has a reason, and costs no other one.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from modtrain.dashboard import safe_files
from modtrain.errors import InputError
from modtrain.monitoring.summary import RunSummary, signature
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import EvaluationRecord, parse_evaluation
from modtrain.storage.json_lines import GrowingFile, Line, number, parsed_lines
from modtrain.storage.layout import HEARTBEAT_FILE, LAUNCHER_FILE, PUBLISHED_FILE, RUN_FILE, STOP_FILE
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.published_log import parse_published
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial, build_trial, training_scalar
from modtrain.sweeps.trials import pending_state, submitted_trials

MOST_PENDING = 200
"""Trials that have not begun, shown with their values."""

T = TypeVar("T")
Curves = dict[str, dict[int, float]]
"""By metric its values by epoch, NaN where one was not finite; of several of one epoch the first, as for pruning."""
RowOf = Callable[[str], dict[str, Any]]
"""The catalog's row of the trial in a folder."""
SummaryOf = Callable[[str], RunSummary]


class ViewedSweep:
    """The trials of one sweep."""

    def __init__(self, sweep: Sweep) -> None:
        """Nothing is read yet."""
        self.sweep = sweep
        self._begun: dict[int, _BegunTrial] = {}
        self._lock = threading.Lock()

    def read(self, row_of: RowOf, summary_of: SummaryOf) -> tuple[list[Trial], dict[int, Curves]]:
        """Every trial that has begun, the next ones that have not, and by trial its curves.

        The states are those of the catalog's rows, so that all pages agree.
        """
        sweep = self.sweep
        numbers = [number for name in filesystem.names(sweep.path) if (number := sweep.number_of(name)) is not None]
        with self._lock:
            self._begun = {number: self._begun[number] for number in numbers if number in self._begun}
            begun = {number: each for number in numbers if (each := self._read(number, row_of, summary_of)) is not None}
        trials = [trial for trial, _ in begun.values()] + self._pending(set(begun))
        curves = {number: of_trial for number, (_, of_trial) in begun.items() if of_trial}
        return trials, curves

    def _read(self, number: int, row_of: RowOf, summary_of: SummaryOf) -> tuple[Trial, Curves] | None:
        """A trial and its curves; None where the catalog has none, as for a link."""
        name = self.sweep.run_path(number).name
        try:
            row = row_of(name)
        except InputError:
            return None
        try:
            if row["problem"]:
                raise InputError(row["problem"])
            if (trial := self._begun.get(number)) is None:
                trial = self._begun[number] = _BegunTrial.open(self.sweep, number)
            return trial.read(row, summary_of, self.sweep.spec.metric)
        except InputError as error:
            why = str(error)
        except Exception as error:  # a foreign file may hold anything
            why = f"It cannot be read ({type(error).__name__}: {error})."
        return self.sweep.trial_without_run(number, "failed" if row["problem"] else row["state"], why), {}

    def _pending(self, begun: set[int]) -> list[Trial]:
        sweep, all_numbers = self.sweep, range(self.sweep.spec.trials)
        numbers = list(itertools.islice((number for number in all_numbers if number not in begun), MOST_PENDING))
        submitted, stop = submitted_trials(sweep), sweep.stop_request()
        is_launched = launcher_pid(sweep.path) is not None
        states = {number: pending_state(number, submitted, stop, is_launched=is_launched) for number in numbers}
        return [sweep.trial_without_run(number, state) for number, state in states.items()]


@dataclass
class _BegunTrial:
    """One trial as of the last time that its files changed."""

    run: Run
    number: int
    files: list[_ByEpoch[Any]]
    signatures: tuple[object, ...] = ()
    trial: Trial | None = None
    curves: Curves = field(default_factory=dict)

    @classmethod
    def open(cls, sweep: Sweep, number: int) -> _BegunTrial:
        """The trial of a number; InputError."""
        path = sweep.run_path(number)
        if not safe_files.lies(path, RUN_FILE):
            raise InputError(f"{RUN_FILE} is no plain file.")
        run = Run.open(path)
        return cls(run, number, metric_files(run, sweep.spec.metric or ""))

    def read(self, row: Mapping[str, Any], summary_of: SummaryOf, metric: str | None) -> tuple[Trial, Curves]:
        """Read what is new."""
        signatures = (*map(signature, self._paths()), row["state"], *(module["state"] for module in row["modules"]))
        if self.trial is None or signatures != self.signatures:
            if problem := safe_files.strange(self.run.path, self.run.modules):
                raise InputError(f"It is not shown: {problem}")
            trial = build_trial(summary_of(self.run.name).snapshot(), metric)
            self.trial = replace(trial, number=self.number, state=row["state"])
            self.curves = {name: values for file in self.files for name, values in sorted(file.read().items())}
            self.signatures = signatures
        return self.trial, self.curves

    def _paths(self) -> list[Path]:
        names = (HEARTBEAT_FILE, PUBLISHED_FILE)
        of_modules = [self.run.module_path(module) / name for module in self.run.modules for name in names]
        return [self.run.evaluations_path, self.run.path / STOP_FILE, self.run.jobs_path / LAUNCHER_FILE, *of_modules]


class _ByEpoch(Generic[T]):
    """The metrics by epoch in a file that grows; only these values stay in memory."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[Line], T | None],
        values_of: Callable[[T], tuple[int, Mapping[str, float | None]]],
    ) -> None:
        self._file, self._parse, self._values_of = GrowingFile(path), parse, values_of
        self._curves: Curves = {}

    def read(self) -> Curves:
        changed, replaced = self._file.refresh()
        if replaced:
            self._curves = {}
        for record in parsed_lines(self._file, self._parse) if changed else ():
            epoch, values = self._values_of(record)
            for name, value in values.items() if epoch > 0 else ():
                self._curves.setdefault(name, {}).setdefault(epoch, math.nan if value is None else value)
        return self._curves


def metric_files(run: Run, metric: str) -> list[_ByEpoch[Any]]:
    """The evaluations, and the published versions where the sweep's metric is one of training."""

    def of_evaluation(record: EvaluationRecord) -> tuple[int, Mapping[str, float | None]]:
        return record.epoch, record.metrics

    def of_training(checkpoint: Checkpoint) -> tuple[int, Mapping[str, float | None]]:
        """Only a version at the end of an epoch has the mean of the whole epoch."""
        has_mean = checkpoint.full and scalar in checkpoint.metrics
        return checkpoint.epoch, {metric: number(checkpoint.metrics[scalar])} if has_mean else {}

    module, scalar = training_scalar(run, metric)
    files: list[_ByEpoch[Any]] = [_ByEpoch(run.evaluations_path, parse_evaluation, of_evaluation)]
    if module:
        files.append(_ByEpoch(run.published_path(module), parse_published, of_training))
    return files
