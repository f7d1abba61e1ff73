"""Running a sweep: with a queue in this process, or as arrays of a scheduler; stopping and cancelling it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from modtrain.errors import BackendSilent, InputError
from modtrain.scheduling.backends.base import BackendOptions, ScriptBackend
from modtrain.scheduling.job_record import JobId, Record, record_states
from modtrain.scheduling.launcher_lock import claim, release
from modtrain.storage.layout import JOBS
from modtrain.storage.run_state import LIVE, PENDING
from modtrain.storage.stop_request import StopRequest, clear_stop_request, write_stop_request
from modtrain.sweeps.plan import SweepPlan
from modtrain.sweeps.sweep import Sweep, SweepRecord
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trial_queue import TrialQueue
from modtrain.sweeps.trials import Jobs, rank, read_trials, sweep_jobs, trial_phases, trials_to_submit


def run(
    sweep: Sweep | str | Path,
    backend: str,
    options: BackendOptions | None = None,
    *,
    at_once: int = 1,
    retry_failed: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> list[Trial]:
    """Run every trial that has not ended, `at_once` at a time, wait for them, and return all trials, best first.

    `sweep` may also be the path of its folder.
    """
    sweep = sweep if isinstance(sweep, Sweep) else Sweep.open(sweep)
    if at_once < 1:
        raise InputError(f"at_once = {at_once} is not allowed; give the number of trials at a time, from 1.")
    with open_queue(sweep, backend, options or BackendOptions(), at_once=at_once, retry_failed=retry_failed) as queue:
        for _ in queue.watch(notify):
            pass
    return rank(sweep, read_trials(sweep))


@contextmanager
def open_queue(
    sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int, retry_failed: bool = False
) -> Iterator[TrialQueue]:
    """The queue of the trials that have not ended; InputError where another process or an array runs them."""
    with _claimed(sweep, backend=None) as record:
        queue = TrialQueue(sweep, backend, options, at_once=at_once, retry_failed=retry_failed)
        sweep.write_record(replace(record, backend=backend, options=options, at_once=at_once))
        yield queue


def submit_arrays(sweep: Sweep, plan: SweepPlan, *, retry_failed: bool = False) -> list[int]:
    """Submit every trial that has not ended and has no live job; the numbers of those that the scheduler accepted."""
    scheduler = cast(ScriptBackend, plan.backend)
    with _claimed(sweep, backend=plan.backend_name) as before:
        record = plan.record(before)
        if not sweep.previous_launch(before).jobs:
            sweep.write_record(record)  # a refused submission is repeated with the same backend and options
        numbers = trials_to_submit(sweep, retry_failed=retry_failed)
        for number in numbers:
            if (run := sweep.intact_run(number)) is not None:
                run.clear_stop()
        ids = scheduler.submit_array(plan.array(sweep, numbers)) if numbers else {}
        jobs = {**before.arrays.jobs, **{task: JobId(plan.backend_name, id) for task, id in ids.items()}}
        arrays = Record(backend=plan.backend_name, options=plan.options, jobs=jobs)
        try:
            sweep.write_record(replace(record, arrays=arrays))
        except BaseException:
            scheduler.cancel(list(ids.values()))  # without the record no command finds them
            raise
        return sorted({task // sweep.workers for task in ids})


def stop(sweep: Sweep, reason: str) -> int:
    """Begin no further trial and ask the running ones to publish and leave; the number of those that were asked."""
    request = StopRequest(reason=reason, sender="modtrain stop")
    write_stop_request(sweep.path, request)
    try:
        trials = read_trials(sweep)
    except BackendSilent:  # the folders are enough
        trials = read_trials(sweep, ask_scheduler=False)
    return sum(sweep.request_stop(trial.number, request) for trial in trials if trial.state in PENDING | {"created"})


def cancel(sweep: Sweep) -> int:
    """End every live job of the sweep; the number of trials that had one."""
    before = _with_live_jobs(sweep_jobs(sweep))  # some end by the request itself, before the scheduler is asked again
    request = StopRequest(kind="cancelled", reason="cancelled", sender="modtrain cancel")
    write_stop_request(sweep.path, request)
    jobs = sweep_jobs(sweep)
    live = _with_live_jobs(jobs)
    alive = {trial.number for trial in read_trials(sweep, ask_scheduler=False) if trial.state in LIVE}
    for number in live | alive:
        sweep.request_stop(number, request)  # before the jobs end, so that no launcher restarts them
    for backend, trials in jobs:
        backend.cancel([id for id, numbers in trials.items() if live & numbers])
    return len(before | live | alive)


def _with_live_jobs(jobs: Jobs) -> set[int]:
    """The trials with a job that runs or is queued."""
    return {number for number, phase in trial_phases(jobs).items() if phase in ("pending", "running")}


@contextmanager
def _claimed(sweep: Sweep, *, backend: str | None) -> Iterator[SweepRecord]:
    """This process as the only one that runs the sweep, with the sweep's record; a stop request is withdrawn.

    InputError where tasks of an array are live on another backend than `backend`.
    """
    (sweep.path / JOBS).mkdir(exist_ok=True)
    claim(sweep)
    try:
        record = sweep.read_record()
        states = record_states(record.arrays) if record.arrays.backend != backend else {}
        if live := [state for state in states.values() if state.live]:
            raise InputError(
                f"{sweep.name} has {len(live)} live tasks of an array on {record.arrays.backend}; wait for them, or "
                f"end them with `modtrain cancel {sweep.path}`."
            )
        clear_stop_request(sweep.path)
        yield record
    finally:
        release(sweep)
