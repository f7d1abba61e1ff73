"""Running a sweep: with a queue in this process, or as arrays of a scheduler; stopping and cancelling it.

    from modtrain import Sweep
    from modtrain.scheduling.config import Config
    from modtrain.sweeps.runner import run
    from modtrain.sweeps.sweep import new_sweep

    spec = new_sweep(Config(recipe="tiny.py", nodes=1), {"lr": [0.005, 0.01], "seed": "1..2"}, metric="mean")
    best = run(Sweep.create("runs/rates", spec), "local", at_once=2)[0]

`run` waits for all trials and resumes a sweep that exists (`Sweep.open`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from modtrain import plugins
from modtrain.errors import BackendSilent, InputError
from modtrain.scheduling.backends.base import (
    Array,
    Backend,
    BackendOptions,
    Resources,
    ScriptBackend,
    python_path,
)
from modtrain.scheduling.job_record import JobId, Record
from modtrain.scheduling.launcher import worker_command
from modtrain.scheduling.launcher_lock import claim, release
from modtrain.scheduling.profile import Profile
from modtrain.storage.layout import JOBS
from modtrain.storage.run_state import LIVE, PENDING
from modtrain.storage.stop_request import StopRequest, clear_stop_request, write_stop_request
from modtrain.sweeps.sweep import Sweep, SweepSpec
from modtrain.sweeps.sweep_jobs import (
    SweepRecord,
    live_tasks,
    previous_sweep_launch,
    read_sweep_record,
    sweep_jobs,
    trial_phases,
)
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trial_queue import TrialQueue
from modtrain.sweeps.trials import rank, read_trials


def uses_arrays(spec: SweepSpec, backend: Backend) -> bool:
    """Whether the trials are submitted as arrays.

    That needs a scheduler with arrays, and trials that depend on no result: TPE and pruning need a running process.
    """
    limit = getattr(backend, "profile", Profile()).array_limit
    return backend.unattended and limit >= len(spec.placement) and spec.sampler != "tpe" and not spec.prune


def run(
    sweep: Sweep,
    backend: str,
    options: BackendOptions | None = None,
    *,
    at_once: int = 1,
    retry_failed: bool = False,
    notify: Callable[[str], None] = lambda message: None,
) -> list[Trial]:
    """Run every trial that has not ended, `at_once` at a time, wait for them, and return all trials, best first."""
    chosen = options or BackendOptions()
    with open_queue(sweep, backend, chosen, at_once=at_once, retry_failed=retry_failed) as queue:
        for _ in queue.watch(notify):
            pass
    return rank(sweep, read_trials(sweep))


@contextmanager
def open_queue(
    sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int, retry_failed: bool = False
) -> Iterator[TrialQueue]:
    """The queue of the trials that have not ended; InputError where another process or an array runs them."""
    with _claimed(sweep) as record:
        _check_arrays(sweep, record, backend=None)
        trials = read_trials(sweep)
        queue = TrialQueue(sweep, trials, backend, options, at_once=at_once, retry_failed=retry_failed)
        replace(record, backend=backend, options=options, at_once=at_once).write(sweep)
        yield queue


def build_array(sweep: Sweep, backend: Backend, numbers: Iterable[int], *, at_once: int | None) -> Array:
    """The workers of these trials as one array: task = trial * workers of a trial + worker."""
    tasks = [number * sweep.workers + worker for number in numbers for worker in range(sweep.workers)]
    threads = backend.cores(1)
    options = ("--threads", str(threads), *sweep.worker_options)
    return Array(
        name=sweep.name,
        command=(*worker_command("trial", sweep.path), *options),
        tasks=tasks,
        max_running=at_once * sweep.workers if at_once else None,
        group_size=sweep.workers,
        log=sweep.path / JOBS,
        resources=Resources(cpus=threads),
        environment=python_path(),
    )


def submit_arrays(
    sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int | None, retry_failed: bool = False
) -> list[int]:
    """Submit every trial that has not ended and has no live job; the numbers of those that the scheduler accepted."""
    scheduler = cast(ScriptBackend, plugins.load("backend", backend)(options))
    with _claimed(sweep) as before:
        _check_arrays(sweep, before, backend=backend)
        record = replace(before, backend=backend, options=options, at_once=at_once)
        if not previous_sweep_launch(sweep, before).jobs:
            record.write(sweep)  # a refused submission is repeated with the same backend and options
        numbers = trials_to_submit(read_trials(sweep, is_launched=False), retry_failed=retry_failed)
        for number in numbers:
            if (run := sweep.intact_run(number)) is not None:
                run.clear_stop()
        ids = scheduler.submit_array(build_array(sweep, scheduler, numbers, at_once=at_once)) if numbers else {}
        jobs = {**before.arrays.jobs, **{task: JobId(backend, id) for task, id in ids.items()}}
        try:
            replace(record, arrays=Record(backend=backend, options=options, jobs=jobs)).write(sweep)
        except BaseException:
            scheduler.cancel(list(ids.values()))  # without the record no command finds them
            raise
        return sorted({task // sweep.workers for task in ids})


def write_scripts(
    sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int | None, retry_failed: bool = False
) -> tuple[list[int], list[Path]]:
    """Write the job scripts that `submit_arrays` would submit: the numbers of their trials, and the scripts."""
    scheduler = cast(ScriptBackend, plugins.load("backend", backend)(options))
    replace(read_sweep_record(sweep), backend=backend, options=options, at_once=at_once).write(sweep)
    numbers = trials_to_submit(read_trials(sweep), retry_failed=retry_failed)
    return numbers, scheduler.arrays(build_array(sweep, scheduler, numbers, at_once=at_once))


def trials_to_submit(trials: Iterable[Trial], *, retry_failed: bool) -> list[int]:
    """The trials that have not ended and have no live job; with `retry_failed` also the failed ones."""
    return [
        trial.number
        for trial in trials
        if trial.state not in PENDING and trial.is_open(retry_failed=retry_failed) and not trial.is_damaged
    ]


def stop(sweep: Sweep, reason: str) -> int:
    """Begin no further trial and ask the running ones to publish and leave; the number of those that were asked."""
    request = StopRequest(reason=reason, sender="modtrain stop")
    write_stop_request(sweep.path, request)
    try:
        trials = read_trials(sweep)
    except BackendSilent:  # the folders are enough
        trials = read_trials(sweep, ask_scheduler=False)
    pending = [trial.number for trial in trials if trial.state in PENDING | {"created"}]
    return len([number for number in pending if _request_stop(sweep, number, request)])


def cancel(sweep: Sweep) -> int:
    """End every live job of the sweep; the number of trials that had one."""
    request = StopRequest(kind="cancelled", reason="cancelled", sender="modtrain cancel")
    write_stop_request(sweep.path, request)
    jobs = sweep_jobs(sweep)
    live = {number for number, phase in trial_phases(jobs).items() if phase in ("pending", "running")}
    alive = {trial.number for trial in read_trials(sweep, ask_scheduler=False) if trial.state in LIVE}
    for number in live | alive:
        _request_stop(sweep, number, request)  # before the jobs end, so that no launcher restarts them
    for own in jobs:
        own.backend.cancel([id for id, numbers in own.trials.items() if live & numbers])
    return len(live)


def check_at_once(nodes: int | None, max_running: int | None, workers: int) -> int | None:
    """Trials that may run at the same time: at most `max_running`, and as many as the nodes are enough for."""
    if nodes is not None and nodes < workers:
        raise InputError(f"--nodes {nodes} is less than one trial needs: it has {workers} workers, a node each.")
    limits = [limit for limit in (max_running, nodes // workers if nodes else None) if limit]
    return min(limits, default=None)


def _request_stop(sweep: Sweep, number: int, request: StopRequest) -> bool:
    """Whether the trial has a run to write the request into; a request that records how it ended is kept."""
    run = sweep.intact_run(number)
    if run is not None:
        before = run.stop_request()
        if before is None or (request.kind == "cancelled" and not before.is_final):
            write_stop_request(run.path, request)
    return run is not None


def _check_arrays(sweep: Sweep, record: SweepRecord, *, backend: str | None) -> None:
    """InputError where tasks of an array are live on another backend than `backend`."""
    if record.arrays.backend != backend and (live := live_tasks(record)):
        raise InputError(
            f"{sweep.name} has {len(live)} live tasks of an array on {record.arrays.backend}; wait for them, or end "
            f"them with `modtrain cancel {sweep.path}`."
        )


@contextmanager
def _claimed(sweep: Sweep) -> Iterator[SweepRecord]:
    """This process as the only one that runs the sweep, with the sweep's record; a stop request is withdrawn."""
    (sweep.path / JOBS).mkdir(exist_ok=True)
    claim(sweep)
    try:
        clear_stop_request(sweep.path)
        yield read_sweep_record(sweep)
    finally:
        release(sweep)
