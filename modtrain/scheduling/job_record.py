"""Which job each worker of a run is (`jobs/jobs.json`), and what its backend says about it now.

Deliberately not here: submitting (`launch.py`), and what the run's folder itself says (`status.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modtrain import plugins
from modtrain.errors import InputError
from modtrain.scheduling.backends.base import Backend, BackendOptions, JobState
from modtrain.scheduling.backends.journal import Journal
from modtrain.scheduling.profile import Profile
from modtrain.storage import filesystem
from modtrain.storage.liveness import LIVE, OVER, launcher
from modtrain.storage.manifest import read_json
from modtrain.storage.run import CANCELLED, Run


@dataclass(frozen=True)
class JobId:
    """One submitted job."""

    backend: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was submitted last."""

    backend: str | None = None
    options: BackendOptions = field(default_factory=BackendOptions)
    jobs: Mapping[int, JobId] = field(default_factory=dict)
    """By the worker's number. A live job of an earlier launch stays on its own backend."""

    def write(self, run: Run) -> None:
        """Into the run's folder."""
        jobs = {str(number): {"backend": job.backend, "id": job.id} for number, job in self.jobs.items()}
        # What a job waits for is meant once: later the scheduler may have forgotten that other job.
        profile = self.options.profile.model_dump(exclude_unset=True, exclude={"dependency"}, mode="json")
        says = {"backend": self.backend, "address": self.options.address, "profile": profile, "jobs": jobs}
        filesystem.replace_file(_path(run), json.dumps(says, indent=2).encode())


def read_record(run: Run) -> Record:
    """What the run's folder says; nothing where nothing was submitted."""
    says = read_json(_path(run))
    try:
        jobs = {int(number): JobId(str(job["backend"]), str(job["id"])) for number, job in says.get("jobs", {}).items()}
        profile = Profile().with_values(says.get("profile", {}), str(_path(run)))
    except (TypeError, ValueError, KeyError, AttributeError):
        raise InputError(f"{_path(run)} is damaged: it does not say which jobs there are.") from None
    options = BackendOptions(address=says.get("address"), profile=profile)
    return Record(backend=says.get("backend"), options=options, jobs=jobs)


def backend_of(job: JobId, record: Record) -> Backend:
    """The backend of a job, as the launch that submitted it had it."""
    options = record.options if job.backend == record.backend else BackendOptions()
    made: Backend = plugins.load("backend", job.backend)(options)
    return made


def goes_on(run: Run, module: str, job: JobId, state: JobState) -> bool:
    """Whether a live job still trains, or will: one whose worker has said that it stopped or failed only winds up."""
    beat = run.heartbeat(module)
    its = beat.get("job") in Journal(job.id).links
    return state.live and not (its and state.phase == "running" and beat.get("state") in ("stopped", "failed"))


def states(run: Run) -> dict[int, JobState]:
    """Where each submitted job is, by the worker's number: each backend is asked once."""
    record = read_record(run)
    found: dict[int, JobState] = {}
    for backend, numbers in _by_backend(record):
        ids = {number: record.jobs[number].id for number in numbers}
        told = backend.status(list(ids.values()))
        found |= {number: told[id] for number, id in ids.items()}
    return found


def cancel(run: Run) -> int:
    """End every live job of the run through its backend; how many there were."""
    record, ended = read_record(run), 0
    for backend, numbers in _by_backend(record):
        ids = [record.jobs[number].id for number in numbers]
        live = [id for id, state in backend.status(ids).items() if state.live]
        if not backend.unattended and (live or launcher(run) is not None):
            run.request_stop(CANCELLED)  # first: whoever watches is not to start them again
        backend.cancel(live)
        ended += len(live)
    return ended


def withdraw(run: Run) -> set[int]:
    """Take out of a scheduler's queue what has not begun, which has nothing to publish; the workers' numbers."""
    record, waiting = read_record(run), set[int]()
    for backend, numbers in _by_backend(record):
        if backend.unattended:
            told = backend.status([record.jobs[number].id for number in numbers])
            its = [number for number in numbers if told[record.jobs[number].id].phase == "pending"]
            backend.cancel([record.jobs[number].id for number in its])
            waiting.update(its)
    return waiting


def with_jobs(found: dict[str, Any], record: Record, jobs: Mapping[int, JobState]) -> dict[str, Any]:
    """A run's status (`status.status`) joined with what its scheduler says: who is queued, and why."""
    for worker in found["workers"]:
        job = jobs.get(worker["worker"])
        if job is None:
            continue
        ids = Journal(record.jobs[worker["worker"]].id).links
        worker |= {"job_state": job.phase, "why": job.reason, "state": _joined(worker, job, ids)}
        worker["job"] = ids[-1] if worker["state"] == "queued" else worker["job"]
        for module in worker["modules"]:
            found["modules"][module]["state"] = worker["state"]
    there = {worker["state"] for worker in found["workers"]}
    if there & {*LIVE, "queued"} and "failed" not in there:
        found["state"] = "running" if there & set(LIVE) or there & set(OVER) else "queued"
    elif found["state"] == "running" and not there & {*LIVE, "queued"}:
        found["state"] = "stopped"  # nothing is there that will begin
    return found


def queued(found: Mapping[str, Any]) -> list[str]:
    """Who waits for the scheduler, and the scheduler's reason: one sentence each, of a status with jobs."""
    return [
        f"{' + '.join(worker['modules'])} is queued as job {worker['job']}: {worker['why'] or 'no reason given'}."
        for worker in found["workers"]
        if worker["state"] == "queued"
    ]


def _joined(worker: Mapping[str, Any], job: JobState, ids: Sequence[str]) -> str:
    """A worker's state. Its last word is that of an earlier job where this one has not begun yet."""
    state = str(worker["state"])
    if state == "finished" or (state in ("failed", "stopped") and worker["job"] in ids):
        return state
    if job.phase == "pending":
        return "queued"
    return "starting" if job.phase == "running" and state not in LIVE else state


def known(backend: str) -> bool:
    """Whether a backend may be asked about a run's jobs: looking at a folder runs no code that the folder names."""
    return backend in plugins.known("backend")


def _by_backend(record: Record) -> list[tuple[Backend, list[int]]]:
    names = dict.fromkeys(job.backend for job in record.jobs.values() if known(job.backend))
    return [
        (
            backend_of(JobId(name, ""), record),
            [number for number, job in record.jobs.items() if job.backend == name],
        )
        for name in names
    ]


def _path(run: Run) -> Path:
    return run.path / "jobs" / "jobs.json"
