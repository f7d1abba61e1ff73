"""The jobs of a sweep: the record in `jobs/jobs.json`, and what the backends say about the jobs of every trial."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from modtrain.errors import InputError
from modtrain.scheduling.backends.base import Backend, BackendOptions, JobState
from modtrain.scheduling.job_record import (
    JobId,
    Record,
    backend_of,
    is_known,
    launch_values,
    options_of,
    read_record,
    record_states,
)
from modtrain.storage import filesystem
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.layout import JOBS, JOBS_FILE
from modtrain.storage.manifest import read_json
from modtrain.storage.run_snapshot import JobPhase
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import training_scalar

_PHASES: tuple[JobPhase, ...] = ("ended", "pending", "running")
"""The phase of a trial is the last of these that one of its jobs has."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What was submitted as arrays, and how the sweep was run last."""

    arrays: Record = field(default_factory=Record)
    """The job of each task; its number is trial * workers of a trial + worker."""
    backend: str | None = None
    options: BackendOptions = field(default_factory=BackendOptions)
    at_once: int | None = None
    """Trials at the same time."""

    def write(self, sweep: Sweep) -> None:
        """Write the record into the sweep's folder."""
        last = launch_values(self.backend, self.options) | {"at_once": self.at_once}
        tasks = {str(task): job.id for task, job in self.arrays.jobs.items()}
        arrays = launch_values(self.arrays.backend, self.arrays.options) | {"tasks": tasks} if tasks else {}
        _path(sweep).parent.mkdir(exist_ok=True)
        filesystem.replace_file(_path(sweep), json.dumps({**arrays, "last": last}).encode())


def read_sweep_record(sweep: Sweep) -> SweepRecord:
    """The record of a sweep, empty where it never ran; InputError where it is damaged."""
    values = read_json(_path(sweep))
    try:
        last = values.get("last", {})
        jobs = {int(task): JobId(values["backend"], str(id)) for task, id in values.get("tasks", {}).items()}
        arrays = Record(backend=values.get("backend"), options=options_of(values, _path(sweep)), jobs=jobs)
        options = options_of(last, _path(sweep))
        return SweepRecord(arrays=arrays, backend=last.get("backend"), options=options, at_once=last.get("at_once"))
    except (TypeError, ValueError, KeyError, AttributeError):
        raise InputError(f"{_path(sweep)} is damaged: it does not name the tasks of the sweep.") from None


def previous_sweep_launch(sweep: Sweep, record: SweepRecord) -> Record:
    """How the sweep was run last, for the rules of resuming."""
    first = sweep.run(0)
    jobs = record.arrays.jobs or (read_record(first).jobs if first is not None else {})
    return Record(backend=record.backend, options=record.options, jobs=jobs)


def submitted_trials(sweep: Sweep) -> set[int]:
    """The trials that were submitted as tasks of an array."""
    return {task // sweep.workers for task in read_sweep_record(sweep).arrays.jobs}


def live_tasks(record: SweepRecord) -> list[int]:
    """The tasks of arrays that run or wait; the scheduler is asked once."""
    return [task for task, state in record_states(record.arrays).items() if state.live]


def task_states(sweep: Sweep, number: int) -> dict[int, JobState]:
    """The states of the workers of a trial, by the worker's number, as far as they are tasks of an array."""
    arrays, first = read_sweep_record(sweep).arrays, number * sweep.workers
    own = {task: job for task, job in arrays.jobs.items() if first <= task < first + sweep.workers}
    return {task - first: state for task, state in record_states(replace(arrays, jobs=own)).items()}


@dataclass(frozen=True)
class BackendJobs:
    """The jobs of a sweep on one backend."""

    name: str
    backend: Backend
    trials: dict[str, set[int]] = field(default_factory=dict)
    """By job id the trials that it trains."""

    @property
    def needs_no_launcher(self) -> bool:
        """Whether the jobs belong to a scheduler."""
        return self.backend.unattended


def sweep_jobs(sweep: Sweep) -> list[BackendJobs]:
    """Every job of a trial that is not finished, by backend; those of finished trials need not be asked about."""
    records = sweep.map_trials(lambda number: _unfinished_record(sweep, number))
    arrays = read_sweep_record(sweep).arrays
    jobs: dict[str, BackendJobs] = {}

    def add(job: JobId, record: Record, number: int) -> None:
        if is_known(job.backend):
            if job.backend not in jobs:
                jobs[job.backend] = BackendJobs(job.backend, backend_of(job, record))
            jobs[job.backend].trials.setdefault(job.id, set()).add(number)

    for task, job in arrays.jobs.items():
        if (number := task // sweep.workers) < len(records) and records[number] is not None:
            add(job, arrays, number)
    for number, record in enumerate(records):
        for job in record.jobs.values() if record else ():
            add(job, record or arrays, number)
    return list(jobs.values())


def trial_phases(jobs: Iterable[BackendJobs]) -> dict[int, JobPhase]:
    """The phase of each trial: `running` where one of its jobs runs, else `pending` where one waits, else `ended`.

    Each backend is asked once. Trials without a job that is known are left out.
    """
    phases: dict[int, JobPhase] = {}
    for own in jobs:
        for id, state in own.backend.status(list(own.trials)).items():
            for number in own.trials[id] if state.phase in _PHASES else ():
                phases[number] = max(phases.get(number, "ended"), state.phase, key=_PHASES.index)
    return phases


def _unfinished_record(sweep: Sweep, number: int) -> Record | None:
    """None for a finished run."""
    run, metric = sweep.intact_run(number), sweep.spec.metric
    if run is None:
        return Record()
    finished = all(run.read_report(module).state == "finished" for module in run.modules)
    if finished and (metric is None or training_scalar(run, metric)[0] or read_evaluations(run.evaluations_path)):
        return None
    return read_record(run)


def _path(sweep: Sweep) -> Path:
    return sweep.path / JOBS / JOBS_FILE
