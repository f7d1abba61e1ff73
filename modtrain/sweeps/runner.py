"""A sweep over a cluster: arrays of a scheduler, or a queue; and what all trials say, best first.

    from modtrain import Sweep
    from modtrain.config import Config
    from modtrain.sweep import run
    from modtrain.trials import new_sweep

    spec = new_sweep(Config(recipe="tiny.py", nodes=1), {"lr": [0.005, 0.01], "seed": "1..2"}, metric="mean")
    best = run(Sweep.create(Path("runs/rates"), spec), "local", at_once=2)[0]

Deliberately not here: what a trial is (`trials.py`), and watching trials one by one (`queue.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import cast

from modtrain import plugins
from modtrain.errors import BackendSilent, InputError, did_you_mean
from modtrain.scheduling.backends.base import (
    Array,
    Backend,
    BackendOptions,
    Resources,
    ScriptBackend,
)
from modtrain.scheduling.job_record import JobId, Record, backend_of, is_known, read_record
from modtrain.scheduling.launcher import worker_command
from modtrain.scheduling.launcher_lock import claim
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.python_path import python_path
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.layout import JOBS
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run_snapshot import JobPhase
from modtrain.storage.run_state import ENDED, LIVE, PENDING
from modtrain.storage.stop_request import StopRequest, clear_stop_request, write_stop_request
from modtrain.sweeps.array_jobs import last, live_tasks, note_how, record_of, tasks_of
from modtrain.sweeps.sweep import Sweep, SweepSpec
from modtrain.sweeps.trial import Trial, metric_value, training_scalar
from modtrain.sweeps.trial_queue import READERS, Queue, worker_options


def uses_arrays(spec: SweepSpec, backend: Backend) -> bool:
    """Whether the trials need nobody who watches: their points are pure, and nothing is pruned."""
    limit = getattr(backend, "profile", Profile()).array_limit
    return backend.unattended and limit >= len(spec.placement) and spec.sampler != "tpe" and not spec.prune


def run(
    sweep: Sweep,
    backend: str,
    options: BackendOptions | None = None,
    *,
    at_once: int = 1,
    retry_failed: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> list[Trial]:
    """Run every trial that is not over yet, `at_once` at a time, wait for them, and return all, best first."""
    for _ in queue(sweep, backend, options or BackendOptions(), at_once=at_once, retry_failed=retry_failed).watch(tell):
        pass
    return ranked(sweep, trials(sweep))


def queue(sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int, retry_failed: bool = False) -> Queue:
    """The trials that are not over, to be watched from this process; InputError where somebody else runs them."""
    _take_over(sweep)
    _refuse_tasks(sweep, besides=None)
    made = Queue(sweep, trials(sweep), backend, options, at_once=at_once, retry_failed=retry_failed)
    note_how(sweep, backend, options, at_once=at_once)
    return made


def array(sweep: Sweep, backend: Backend, numbers: Iterable[int], *, at_once: int | None) -> Array:
    """The workers of these trials as one array: task = trial times workers + worker."""
    tasks = [number * sweep.workers + worker for number in numbers for worker in range(sweep.workers)]
    threads = backend.cores(1)
    options = ("--threads", str(threads), *worker_options(sweep))
    return Array(
        name=sweep.name,
        command=(*worker_command("trial", sweep.path), *options),
        tasks=tasks,
        max_running=at_once * sweep.workers if at_once else None,
        group_size=sweep.workers,
        folder=sweep.path / JOBS,
        resources=Resources(cpus=threads),
        environment=python_path(),
    )


def submit_arrays(
    sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int | None, retry_failed: bool = False
) -> list[int]:
    """Submit every trial that has no live job and is not over; the numbers of those that the scheduler took."""
    made = plugins.load("backend", backend)(options)
    _take_over(sweep)
    _refuse_tasks(sweep, besides=backend)
    if not last(sweep).launch.has_jobs:
        note_how(sweep, backend, options, at_once=at_once)  # first: what is refused now goes on in the same way
    numbers = to_run(sweep, retry_failed=retry_failed)
    for number in numbers:
        if (begun := sweep.sound_run(number)) is not None:
            begun.clear_stop()
    ids = cast(ScriptBackend, made).submit_array(array(sweep, made, numbers, at_once=at_once)) if numbers else {}
    try:
        note_how(sweep, backend, options, at_once=at_once, submitted=ids)
    except BaseException:
        made.cancel(list(ids.values()))  # nobody would find them again
        raise
    return sorted({task // sweep.workers for task in ids})


def to_run(sweep: Sweep, *, retry_failed: bool) -> list[int]:
    """The trials that have no live job and have not ended; with `retry_failed` those that failed, too."""
    kept = (PENDING | ENDED) - ({"failed"} if retry_failed else set())
    return [trial.number for trial in trials(sweep) if trial.state not in kept]


def trials(sweep: Sweep, *, ask: bool = True) -> list[Trial]:
    """Every trial as it is now, by number; one whose run is damaged has failed, and says why.

    A scheduler is asked once, a Ray cluster not at all: heartbeats tell.
    """
    phases = _phases(_jobs(sweep), lambda name, backend: backend.unattended or name == "local") if ask else {}
    is_launched = launcher_pid(sweep.path) is not None
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda n: _trial(sweep, n, phases.get(n)), range(sweep.spec.trials)))
    return [replace(t, state="queued") if is_launched and t.state == "created" else t for t in found]


def ranked(sweep: Sweep, found: Iterable[Trial], *, maximize: bool | None = None) -> list[Trial]:
    """Best first by their results; those without one last."""
    sign = -1 if (sweep.spec.maximize if maximize is None else maximize) else 1

    def key(trial: Trial) -> tuple[bool, float, int]:
        if trial.result is None or math.isnan(trial.result):
            return True, 0.0, trial.number
        return False, sign * trial.result, trial.number

    return sorted(found, key=key)


def by_metric(sweep: Sweep, found: Iterable[Trial], metric: str) -> list[Trial]:
    """The same trials with another metric for their results; InputError where there are results, but no such ones."""
    told = [replace(trial, result=_value(sweep, trial, metric)) for trial in found]
    known = sorted({name for trial in told for name in trial.metrics})
    if known and metric not in known and all(trial.result is None for trial in told):
        raise InputError(f"No trial has {metric!r}; there is {', '.join(known)}.{did_you_mean(metric, known)}")
    return told


def stop(sweep: Sweep, reason: str) -> int:
    """Let no trial begin, and ask those that run to publish and leave; how many there are."""
    request = StopRequest(reason=reason, sender="modtrain stop")
    write_stop_request(sweep.path, request)
    try:
        found = trials(sweep)
    except BackendSilent:  # the folders are enough
        found = trials(sweep, ask=False)
    pending = [trial.number for trial in found if trial.state in PENDING | {"created"}]
    return len([number for number in pending if _request_stop(sweep, number, request)])


def cancel(sweep: Sweep) -> int:
    """End every live job of the sweep; how many trials they were of."""
    request = StopRequest(kind="cancelled", reason="cancelled", sender="modtrain cancel")
    write_stop_request(sweep.path, request)
    jobs = _jobs(sweep)
    phases = _phases(jobs, lambda name, backend: True)
    live = {number for number, phase in phases.items() if phase in ("pending", "running")}
    alive = {trial.number for trial in trials(sweep, ask=False) if trial.state in LIVE}
    for number in live | alive:
        _request_stop(sweep, number, request)  # before the jobs end, so that no launcher restarts them
    for its in jobs.values():
        its.backend.cancel([id for id, numbers in its.owners.items() if live & numbers])
    return len(live)


def check_at_once(nodes: int | None, max_running: int | None, workers: int) -> int | None:
    """How many trials may run at the same time: as many as asked, and as the nodes are enough for."""
    if nodes is not None and nodes < workers:
        raise InputError(f"--nodes {nodes} is less than one trial needs: it has {workers} workers, a node each.")
    limits = [limit for limit in (max_running, nodes // workers if nodes else None) if limit]
    return min(limits, default=None)


@dataclass(frozen=True)
class _Jobs:
    """The jobs on one backend, each with the trials that it is of."""

    backend: Backend
    owners: dict[str, set[int]] = field(default_factory=dict)


def _jobs(sweep: Sweep) -> dict[str, _Jobs]:
    """Every job of a trial that is not finished, by backend."""
    with ThreadPoolExecutor(READERS) as readers:
        records = list(readers.map(lambda number: _its_jobs(sweep, number), range(sweep.spec.trials)))
    found: dict[str, _Jobs] = {}
    arrays = record_of(sweep)
    for task, id in tasks_of(sweep).items():
        number = task // sweep.workers
        if records[number] is not None:
            _add(found, JobId(arrays.backend or "", id), arrays, number)
    for number, record in enumerate(records):
        for job in record.jobs.values() if record else ():
            _add(found, job, cast(Record, record), number)
    return found


def _its_jobs(sweep: Sweep, number: int) -> Record | None:
    """None for a finished run: its jobs are over, and need not be asked for."""
    begun, metric = sweep.sound_run(number), sweep.spec.metric
    if begun is None:
        return Record()
    finished = all(begun.read_report(module).state == "finished" for module in begun.modules)
    if finished and (metric is None or training_scalar(begun, metric)[0] or read_evaluations(begun.evaluations_path)):
        return None
    return read_record(begun)


def _add(found: dict[str, _Jobs], job: JobId, record: Record, number: int) -> None:
    if not is_known(job.backend):
        return
    if job.backend not in found:
        found[job.backend] = _Jobs(backend_of(job, record))
    found[job.backend].owners.setdefault(job.id, set()).add(number)


def _phases(jobs: Mapping[str, _Jobs], asked: Callable[[str, Backend], bool]) -> dict[int, JobPhase]:
    """The phase of each trial's jobs: `running` where one of them runs, else `pending` where one waits, else `ended`.

    Each backend is asked once. Trials of which nobody knows are left out.
    """
    found: dict[int, JobPhase] = {}
    order = ("unknown", "ended", "pending", "running")
    for name, its in jobs.items():
        for id, state in its.backend.status(list(its.owners)).items() if asked(name, its.backend) else ():
            for number in its.owners[id]:
                found[number] = max(found.get(number, "unknown"), state.phase, key=order.index)
    return {number: phase for number, phase in found.items() if phase != "unknown"}


def _trial(sweep: Sweep, number: int, phase: JobPhase | None) -> Trial:
    try:
        return sweep.trial(number, phase)
    except InputError as error:
        return sweep.trial_without_run(number, "failed", str(error))


def _request_stop(sweep: Sweep, number: int, request: StopRequest) -> bool:
    """Whether the trial has a run to be asked; a request that records how it ended is kept."""
    begun = sweep.sound_run(number)
    if begun is not None:
        before = begun.stop_request()
        if before is None or (request.kind == "cancelled" and not before.is_final):
            write_stop_request(begun.path, request)
    return begun is not None


def _value(sweep: Sweep, trial: Trial, metric: str) -> float | None:
    begun = sweep.sound_run(trial.number) if "." in metric else None
    if begun is None or metric in trial.metrics:
        return trial.metrics.get(metric)
    return metric_value(begun, metric, None)


def _refuse_tasks(sweep: Sweep, *, besides: str | None) -> None:
    """InputError where tasks of an array live that only another backend than `besides` knows."""
    by = record_of(sweep).backend
    if by != besides and (live := live_tasks(sweep)):
        raise InputError(
            f"{sweep.name} has {len(live)} tasks of an array on {by}; wait for them, or end them with `modtrain cancel "
            f"{sweep.path}`."
        )


def _take_over(sweep: Sweep) -> None:
    """One process a sweep; a stop of the whole is taken back."""
    (sweep.path / JOBS).mkdir(exist_ok=True)
    claim(sweep)
    clear_stop_request(sweep.path)
