"""A sweep over a cluster: arrays of a scheduler, or the queue; and what all trials say, best first.

Deliberately not here: what a trial is (`trials.py`), and watching trials one by one (`queue.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from modtrain import fs, plugins
from modtrain.backends.base import Array, Backend, BackendOptions, ScriptBackend, python_path
from modtrain.errors import InputError
from modtrain.jobs import JobId, Record, backend_of, read_json, read_record
from modtrain.launch import worker_command
from modtrain.profile import Profile
from modtrain.queue import Queue, worker_options
from modtrain.run import STOP_FILE
from modtrain.trials import Sweep, SweepSpec, Trial

READERS = 16
"""Trials that are read at the same time: shared storage answers slowly, but many at once."""


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
    """Run every trial that is not over yet, wait for them, and return all, best first."""
    clear_stop(sweep)
    for _ in Queue(sweep, backend, options or BackendOptions(), at_once=at_once, retry_failed=retry_failed).watch(tell):
        pass
    return ranked(sweep, trials(sweep))


def array(sweep: Sweep, backend: Backend, numbers: Iterable[int], *, at_once: int | None) -> Array:
    """The workers of these trials as one array: task = trial times workers + worker."""
    tasks = [number * sweep.workers + worker for number in numbers for worker in range(sweep.workers)]
    options = ("--threads", str(backend.cores(1)), *worker_options(sweep))
    return Array(
        name=sweep.name,
        command=(*worker_command("trial", sweep.path), *options),
        tasks=tasks,
        at_once=at_once * sweep.workers if at_once else None,
        together=sweep.workers,
        folder=sweep.path / "jobs",
        environment=python_path(),
    )


def submit_arrays(
    sweep: Sweep, backend: str, options: BackendOptions, *, at_once: int | None, retry_failed: bool = False
) -> list[int]:
    """Submit every trial that has no live job and is not over; their numbers."""
    made = plugins.load("backend", backend)(options)
    clear_stop(sweep)
    numbers = to_run(sweep, retry_failed=retry_failed)
    for number in numbers:
        if (begun := sweep.run(number)) is not None:
            begun.clear_stop()
    ids = cast(ScriptBackend, made).submit_array(array(sweep, made, numbers, at_once=at_once)) if numbers else {}
    _write_tasks(sweep, backend, options, {**_read_tasks(sweep), **ids})
    return numbers


def to_run(sweep: Sweep, *, retry_failed: bool) -> list[int]:
    """The trials that have no live job and are not over."""
    wanted = ("waiting", "stopped", *(["failed"] if retry_failed else []))
    return [trial.number for trial in trials(sweep) if trial.state in wanted]


def trials(sweep: Sweep) -> list[Trial]:
    """Every trial as it is now, by number. The scheduler is asked once."""
    jobs = phases(sweep)
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda n: sweep.trial(n, jobs.get(n)), range(sweep.spec.trials)))


def ranked(sweep: Sweep, found: Iterable[Trial], metric: str | None = None) -> list[Trial]:
    """Best first by the sweep's metric, or another one of the evaluation; those without a value last."""
    maximize = sweep.spec.maximize

    def key(trial: Trial) -> tuple[bool, float, int]:
        value = trial.metrics.get(metric) if metric else trial.result
        if value is None or math.isnan(value):
            return True, 0.0, trial.number
        return False, -value if maximize else value, trial.number

    return sorted(found, key=key)


def phases(sweep: Sweep) -> dict[int, str]:
    """The trials with live jobs: `running` where one of them runs, else `pending`. Each backend is asked once."""
    owners: dict[str, dict[str, list[int]]] = {}
    backends: dict[str, Backend] = {}
    record = _record(sweep)
    for task, id in _read_tasks(sweep).items():
        owners.setdefault(record.backend or "", {}).setdefault(id, []).append(task // sweep.workers)
    if record.backend:
        backends[record.backend] = backend_of(JobId(record.backend, ""), record)
    for number in range(sweep.spec.trials):
        if (begun := sweep.run(number)) is not None:
            its = read_record(begun)
            for job in its.jobs.values():
                owners.setdefault(job.backend, {}).setdefault(job.id, []).append(number)
                backends.setdefault(job.backend, backend_of(job, its))
    found: dict[int, str] = {}
    for name, ids in owners.items():
        for id, state in backends[name].status(list(ids)).items():
            for number in ids[id] if state.live else []:
                found[number] = "running" if "running" in (state.phase, found.get(number)) else "pending"
    return found


def stop(sweep: Sweep, reason: str) -> int:
    """Let no trial begin, and ask those that run to publish and leave; how many there are."""
    fs.replace_file(sweep.path / STOP_FILE, reason.encode())
    live = [trial.number for trial in trials(sweep) if trial.state in ("running", "queued")]
    begun = [run for number in live if (run := sweep.run(number)) is not None]
    for each in begun:
        each.request_stop(reason)
    return len(begun)


def cancel(sweep: Sweep) -> int:
    """End every live job of the sweep; how many trials they were of."""
    from modtrain.jobs import cancel as cancel_run

    fs.replace_file(sweep.path / STOP_FILE, b"cancelled")
    live, record = phases(sweep), _record(sweep)
    tasks = [id for task, id in _read_tasks(sweep).items() if task // sweep.workers in live]
    if tasks and record.backend:
        backend_of(JobId(record.backend, ""), record).cancel(tasks)
    for number in live:
        if (begun := sweep.run(number)) is not None and read_record(begun).jobs:
            cancel_run(begun)
    return len(live)


def clear_stop(sweep: Sweep) -> None:
    """Take a stop of the whole sweep back."""
    (sweep.path / STOP_FILE).unlink(missing_ok=True)


def _record(sweep: Sweep) -> Record:
    """What the arrays were submitted with."""
    says = read_json(_path(sweep))
    profile = Profile().with_values(says.get("profile", {}), str(_path(sweep)))
    return Record(backend=says.get("backend"), options=BackendOptions(profile=profile))


def _read_tasks(sweep: Sweep) -> dict[int, str]:
    return {int(task): str(id) for task, id in read_json(_path(sweep)).get("tasks", {}).items()}


def _write_tasks(sweep: Sweep, backend: str, options: BackendOptions, tasks: Mapping[int, str]) -> None:
    profile = options.profile.model_dump(exclude_unset=True, mode="json")
    says: dict[str, Any] = {"backend": backend, "profile": profile, "tasks": tasks}
    _path(sweep).parent.mkdir(exist_ok=True)
    fs.replace_file(_path(sweep), json.dumps(says).encode())


def _path(sweep: Sweep) -> Path:
    return sweep.path / "jobs" / "jobs.json"


def check_at_once(nodes: int | None, max_running: int | None, workers: int) -> int | None:
    """How many trials may run at the same time: as many as asked, and as the nodes are enough for."""
    if nodes is not None and nodes < workers:
        raise InputError(f"--nodes {nodes} is less than one trial needs: it has {workers} workers, a node each.")
    limits = [limit for limit in (max_running, nodes // workers if nodes else None) if limit]
    return min(limits, default=None)
