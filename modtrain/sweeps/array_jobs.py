"""What a sweep's `jobs/jobs.json` remembers: how it was run last, and which task of an array each worker is.

Deliberately not here: submitting (`sweep.py`), and the jobs of a single run (`jobs.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.scheduling.backends.base import BackendOptions, JobState
from modtrain.scheduling.job_record import JobId, Record, backend_of, is_known, read_record
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.resume import PreviousLaunch
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS, JOBS_FILE
from modtrain.storage.manifest import read_json
from modtrain.sweeps.sweep import Sweep


@dataclass(frozen=True)
class Last:
    """How a sweep was run last."""

    launch: PreviousLaunch
    at_once: int | None
    """Trials at the same time."""


def last(sweep: Sweep) -> Last:
    """How the sweep was run last."""
    says = read_json(_path(sweep)).get("last", {})
    options = BackendOptions(address=says.get("address"), profile=_profile(sweep, says))
    first = sweep.run(0)
    begun = bool(tasks_of(sweep)) or (first is not None and bool(read_record(first).jobs))
    launch = PreviousLaunch(backend=says.get("backend"), options=options, has_jobs=begun)
    return Last(launch, says.get("at_once"))


def note_how(
    sweep: Sweep,
    backend: str,
    options: BackendOptions,
    *,
    at_once: int | None,
    submitted: Mapping[int, str] | None = None,
) -> None:
    """Write down how the sweep is run, for `last`; with the tasks that were `submitted` so, their ids as well."""
    # What a job waits for is meant once: later the scheduler may have forgotten that other job.
    profile = options.profile.model_dump(exclude_unset=True, exclude={"dependency"}, mode="json")
    how = {"backend": backend, "address": options.address, "profile": profile}
    news = {} if submitted is None else {**how, "tasks": {**tasks_of(sweep), **submitted}}
    _path(sweep).parent.mkdir(exist_ok=True)
    says = {**read_json(_path(sweep)), **news, "last": how | {"at_once": at_once}}
    filesystem.replace_file(_path(sweep), json.dumps(says).encode())


def tasks_of(sweep: Sweep) -> dict[int, str]:
    """The id of each task that was submitted: trial times the workers of a trial, plus worker."""
    return {int(task): str(id) for task, id in read_json(_path(sweep)).get("tasks", {}).items()}


def record_of(sweep: Sweep) -> Record:
    """What the arrays were submitted with."""
    says = read_json(_path(sweep))
    return Record(backend=says.get("backend"), options=BackendOptions(profile=_profile(sweep, says)))


def live_tasks(sweep: Sweep) -> list[int]:
    """The tasks of arrays that run or wait."""
    tasks = tasks_of(sweep)
    found = _states(sweep, tasks)
    return [task for task in tasks if task in found and found[task].live]


def task_states(sweep: Sweep, number: int) -> dict[int, JobState]:
    """Where the workers of a trial are, by the worker's number, as far as they are tasks of an array."""
    tasks, first = tasks_of(sweep), number * sweep.workers
    its = {task: tasks[task] for task in range(first, first + sweep.workers) if task in tasks}
    return {task - first: state for task, state in _states(sweep, its).items()}


def _states(sweep: Sweep, tasks: Mapping[int, str]) -> dict[int, JobState]:
    """The scheduler is asked once."""
    record = record_of(sweep)
    if not tasks or not record.backend or not is_known(record.backend):
        return {}
    told = backend_of(JobId(record.backend, ""), record).status(list(tasks.values()))
    return {task: told[id] for task, id in tasks.items()}


def _profile(sweep: Sweep, says: Mapping[str, Any]) -> Profile:
    return Profile().with_values(says.get("profile", {}), str(_path(sweep)))


def _path(sweep: Sweep) -> Path:
    return sweep.path / JOBS / JOBS_FILE
