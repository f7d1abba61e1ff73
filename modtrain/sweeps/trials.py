"""The trials of a sweep as they are now, by their folders and their jobs: read, counted by state, and ranked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from modtrain.errors import InputError, did_you_mean, one_of
from modtrain.scheduling.backends.base import Backend, JobState
from modtrain.scheduling.job_record import Record, backend_of, is_known, read_record, record_states
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run_snapshot import JobPhase, WorkerJob
from modtrain.storage.run_state import BY_URGENCY, ENDED, LIVE, PENDING, RunState
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial, metric_value, training_scalar

Jobs = list[tuple[Backend, dict[str, set[int]]]]
"""By backend, and by job id, the trials that a job trains."""

_PHASES: tuple[JobPhase, ...] = ("ended", "pending", "running")
"""The phase of a trial is the last of these that one of its jobs has."""


def read_trials(sweep: Sweep, *, ask_scheduler: bool = True, is_launched: bool | None = None) -> list[Trial]:
    """Every trial by number; one whose run is damaged has failed, with the reason in `why`.

    A scheduler is asked once, and BackendSilent raised where it does not answer. Trials on this machine and on a Ray
    cluster are read from their folders, as every view does it. `is_launched`: whether a process runs the trials;
    None looks for one.
    """
    jobs = [(backend, trials) for backend, trials in sweep_jobs(sweep) if backend.unattended] if ask_scheduler else []
    phases = trial_phases(jobs)
    submitted = set[int]() if ask_scheduler else submitted_trials(sweep)
    stop = sweep.stop_request()
    if is_launched is None:
        is_launched = launcher_pid(sweep.path) is not None

    def read(number: int) -> Trial:
        try:
            trial = sweep.trial(number, phases.get(number))
        except InputError as error:
            return replace(sweep.trial_without_run(number, "failed", str(error)), is_damaged=True)
        if trial.state != "created" or sweep.intact_run(number) is not None:
            return trial
        return replace(trial, state=pending_state(number, submitted, stop, is_launched=is_launched))

    return sweep.map_trials(read)


def sweep_jobs(sweep: Sweep) -> Jobs:
    """Every job of a trial that is not finished, by backend; those of finished trials need not be asked about."""
    records = sweep.map_trials(lambda number: _unfinished_record(sweep, number))
    arrays = sweep.read_record().arrays
    all_jobs = [(task // sweep.workers, job, arrays) for task, job in arrays.jobs.items()]
    all_jobs += [(number, job, own) for number, own in enumerate(records) if own for job in own.jobs.values()]
    jobs: dict[str, tuple[Backend, dict[str, set[int]]]] = {}
    for number, job, record in all_jobs:
        if number < len(records) and records[number] is not None and is_known(job.backend):
            if job.backend not in jobs:
                jobs[job.backend] = backend_of(job, record), {}
            jobs[job.backend][1].setdefault(job.id, set()).add(number)
    return list(jobs.values())


def trial_phases(jobs: Jobs) -> dict[int, JobPhase]:
    """The phase of each trial: `running` where one of its jobs runs, else `pending` where one waits, else `ended`.

    Each backend is asked once. Trials without a job that is known are left out.
    """
    phases: dict[int, JobPhase] = {}
    for backend, trials in jobs:
        for id, state in backend.status(list(trials)).items():
            for number in trials[id] if state.phase in _PHASES else ():
                phases[number] = max(phases.get(number, "ended"), state.phase, key=_PHASES.index)
    return phases


def task_states(sweep: Sweep, number: int) -> dict[int, JobState]:
    """The states of the workers of a trial, by the worker's number, as far as they are tasks of an array."""
    arrays, first = sweep.read_record().arrays, number * sweep.workers
    own = {task: job for task, job in arrays.jobs.items() if first <= task < first + sweep.workers}
    return {task - first: state for task, state in record_states(replace(arrays, jobs=own)).items()}


def submitted_trials(sweep: Sweep, tasks: Mapping[int, WorkerJob] = MappingProxyType({})) -> set[int]:
    """The trials that were submitted as tasks of an array; those with a live one, where a scheduler was asked."""
    live = {task for task, job in tasks.items() if job.phase in ("pending", "running")}
    return {task // sweep.workers for task in (live if tasks else sweep.read_record().arrays.jobs)}


def is_open(trial: Trial, *, retry_failed: bool) -> bool:
    """Whether a sweep that is resumed follows the trial: it has not ended, or has failed and is to be retried."""
    return trial.state not in ENDED or trial.is_evaluating or (retry_failed and trial.state == "failed")


def trials_to_submit(sweep: Sweep, *, retry_failed: bool) -> list[int]:
    """The trials that have not ended and have no live job; with `retry_failed` also the failed ones."""
    trials = [trial for trial in read_trials(sweep, is_launched=False) if is_open(trial, retry_failed=retry_failed)]
    return [t.number for t in trials if t.state not in PENDING and not (t.is_damaged or t.is_evaluating)]


def pending_state(number: int, submitted: Collection[int], stop: StopRequest | None, *, is_launched: bool) -> RunState:
    """The state of a trial without a run: `queued` where a process or a submitted job will begin it."""
    return "queued" if stop is None and (is_launched or number in submitted) else "created"


def count_pending(
    sweep: Sweep, begun: Collection[int], submitted: Collection[int], stop: StopRequest | None, *, is_launched: bool
) -> Counter[str]:
    """The number of trials without a run in each state; `begun` are the other trials."""
    count = max(0, sweep.spec.trials - len(begun))
    queued = 0
    if count and stop is None:
        queued = count if is_launched else min(count, len(set(submitted) - set(begun)))
    return Counter(queued=queued, created=count - queued)


def sweep_state(counts: Mapping[str, int], stop: StopRequest | None, *, is_launched: bool) -> RunState:
    """The state of a sweep from the number of its trials in each state: the one place that decides it.

    `is_launched`: a process of this machine runs the trials, so that more is to come even where none of them trains.
    """
    present = {state for state, count in counts.items() if count}
    if is_launched or present & LIVE:
        return "running"
    if present <= ENDED:
        return "finished" if present & {"finished", "pruned"} else "failed"
    if "queued" in present:
        return "queued"
    if stop is not None:
        return "cancelled" if stop.kind == "cancelled" else "stopped"
    return "created" if present == {"created"} else "stopped"


def state_of(sweep: Sweep, trials: Iterable[Trial]) -> RunState:
    """The state of the sweep whose trials these are."""
    is_launched = launcher_pid(sweep.path) is not None
    return sweep_state(count_states(trials), sweep.stop_request(), is_launched=is_launched)


def count_states(trials: Iterable[Trial]) -> Mapping[str, int]:
    """The number of trials in each state that one of them has, most urgent first."""
    states = [trial.state for trial in trials]
    return {state: states.count(state) for state in BY_URGENCY if state in states}


def rank(sweep: Sweep, trials: Iterable[Trial], *, maximize: bool | None = None) -> list[Trial]:
    """The trials, best result first; those without one last. `maximize` is the sweep's where it is None."""
    sign = -1 if (sweep.spec.maximize if maximize is None else maximize) else 1

    def key(trial: Trial) -> tuple[bool, float, int]:
        is_last = trial.result is None or math.isnan(trial.result)
        return is_last, 0.0 if is_last else sign * (trial.result or 0.0), trial.number

    return sorted(trials, key=key)


def with_metric(sweep: Sweep, trials: Iterable[Trial], metric: str) -> list[Trial]:
    """The same trials with another metric as their result; InputError where trials have metrics, but not this one."""

    def value(trial: Trial) -> float | None:
        if metric in trial.metrics or "." not in metric:
            return trial.metrics.get(metric)
        run = sweep.intact_run(trial.number)
        return metric_value(run, metric, None) if run else None

    results = [replace(trial, result=value(trial)) for trial in trials]
    known = sorted({name for trial in results for name in trial.metrics})
    if known and metric not in known and all(trial.result is None for trial in results):
        raise InputError(f"No trial has {metric!r}; use {one_of(known)}.{did_you_mean(metric, known)}")
    return results


def _unfinished_record(sweep: Sweep, number: int) -> Record | None:
    """None for a finished run."""
    run, metric = sweep.intact_run(number), sweep.spec.metric
    if run is None:
        return Record()
    finished = all(run.read_report(module).state == "finished" for module in run.modules)
    if finished and (metric is None or training_scalar(run, metric)[0] or read_evaluations(run.evaluations_path)):
        return None
    return read_record(run)
