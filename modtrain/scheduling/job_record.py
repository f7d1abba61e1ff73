"""The record of a run's jobs (`jobs/jobs.json`), and the present state of those jobs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modtrain import plugins
from modtrain.errors import BackendSilent, InputError
from modtrain.recipes import trust
from modtrain.scheduling.backends.base import Backend, BackendOptions, JobState
from modtrain.scheduling.backends.journal import Journal
from modtrain.scheduling.profile import Profile
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS_FILE
from modtrain.storage.liveness import launcher_pid, live_modules
from modtrain.storage.manifest import read_json
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import WorkerJob, journal_path

LAUNCHER_S = 60.0
"""Longest wait for a launcher to end jobs that no other process can end, such as those of its own Ray instance."""
EXECUTED = ("directives", "prologue", "epilogue", "python", "template")
"""Job options that are, or name, a part of the job script."""


@dataclass(frozen=True)
class JobId:
    """One submitted job."""

    backend: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """The last submission of a run."""

    backend: str | None = None
    options: BackendOptions = field(default_factory=BackendOptions)
    needs_launcher: bool = False
    """Whether the jobs run only where the process that launched them watches them."""
    jobs: Mapping[int, JobId] = field(default_factory=dict)
    """By worker. A live job of an earlier submission stays on its own backend."""
    foreign: Path | None = None
    """The file of the record, where it may be another user's."""

    @property
    def executed(self) -> list[str]:
        """What a launch would execute of it: a backend that is not installed, job options, a cluster to join."""
        names = sorted({self.backend or "", *(job.backend for job in self.jobs.values())} - {""})
        backends = [f"the backend {name}" for name in names if not is_known(name)]
        address = [f"the address {self.options.address}"] if self.options.address else []
        return backends + address + [name for name in EXECUTED if getattr(self.options.profile, name)]

    def write(self, run: Run) -> None:
        jobs = {str(number): {"backend": job.backend, "id": job.id} for number, job in self.jobs.items()}
        values = launch_values(self.backend, self.options) | {"needs_launcher": self.needs_launcher, "jobs": jobs}
        filesystem.replace_file(_path(run), json.dumps(values, indent=2).encode())


def read_record(run: Run) -> Record:
    """The record of a run, empty where nothing was submitted; InputError where it is damaged."""
    values = read_json(_path(run))
    try:
        items = values.get("jobs", {}).items()
        jobs = {int(number): JobId(str(job["backend"]), str(job["id"])) for number, job in items}
        options = options_of(values, _path(run))
    except (TypeError, ValueError, KeyError, AttributeError):
        raise InputError(f"{_path(run)} is damaged: it does not name the jobs of the run.") from None
    return Record(backend=values.get("backend"), options=options, jobs=jobs, foreign=foreign(_path(run)))


def foreign(path: Path) -> Path | None:
    """The path of a file that may be another user's; None for one of this user."""
    return None if trust.is_own(path) else path


def launch_values(backend: str | None, options: BackendOptions) -> dict[str, Any]:
    """A backend and its options as JSON."""
    # A dependency holds for one submission: later the scheduler may have forgotten that other job.
    profile = options.profile.model_dump(exclude_unset=True, exclude={"dependency"}, mode="json")
    return {"backend": backend, "address": options.address, "profile": profile}


def options_of(values: Mapping[str, Any], path: Path) -> BackendOptions:
    """The options in what `launch_values` wrote into the file `path`; InputError where they are not allowed."""
    profile = Profile().with_values(values.get("profile", {}), str(path))
    return BackendOptions(address=values.get("address"), profile=profile)


def backend_of(job: JobId, record: Record) -> Backend:
    """The backend of a job, with the options that it was submitted with.

    InputError where they name a Ray cluster and may be another user's: its answers are Python objects, thus code.
    """
    if record.foreign and record.options.address and job.backend == record.backend:
        raise InputError(
            f"{record.foreign}, which may be another user's, names the cluster at {record.options.address}; it is not "
            "asked about the jobs. Only the user of the run can end them."
        )
    options = record.options if job.backend == record.backend else BackendOptions()
    backend: Backend = plugins.load("backend", job.backend)(options)
    return backend


def still_trains(run: Run, module: str, job: JobId, state: JobState) -> bool:
    """Whether a live job trains or will train: not where its worker has reported its end and only the job remains."""
    report = run.read_report(module)
    is_own = report.job in Journal(job.id).links
    return state.live and not (is_own and state.phase == "running" and report.state in ("stopped", "failed"))


def known_jobs(run: Run) -> Record:
    """The record of a run, and the jobs that were submitted by hand: each is known once its worker has begun."""
    record, by_hand = read_record(run), {}
    for number, modules in enumerate(run.spec.placement if record.backend and is_known(record.backend) else []):
        report, recorded = run.read_report(modules[0]), record.jobs.get(number)
        id = f"{journal_path(run, number)}@{report.job}"
        is_recorded = recorded is not None and report.job in Journal(recorded.id).links
        # A worker in a job without our script, such as a shell on a node, is none: cancelling it would end that shell.
        if report.is_live and report.job and not is_recorded and Journal(id).has_begun:
            by_hand[number] = JobId(str(record.backend), id)
    return replace(record, jobs={**record.jobs, **by_hand})


def job_states(run: Run) -> dict[int, JobState]:
    """The state of each submitted job by worker; each backend is asked once."""
    return record_states(known_jobs(run))


def active_modules(run: Run) -> list[str]:
    """The modules with a live worker or a live job; ModtrainError where the scheduler of a job does not answer."""
    alive, states = live_modules(run), job_states(run)
    queued = [name for number, state in states.items() if state.live for name in run.spec.placement[number]]
    return [name for name in run.modules if name in alive or name in queued]


def record_states(record: Record, backends: Mapping[str, Backend] = MappingProxyType({})) -> dict[int, JobState]:
    """The state of each job of a record that is on a known backend; each of the `backends`, by name, is asked once."""
    states: dict[int, JobState] = {}
    for backend, ids in _by_backend(record, backends):
        answers = backend.status(list(ids.values()))
        states |= {number: answers[id] for number, id in ids.items()}
    return states


def worker_jobs(run: Run) -> dict[int, WorkerJob]:
    """The states of the jobs with what their journals say, for a `RunSnapshot`.

    An exit code is that of a worker: the end of a job that the scheduler ended, or a command cancelled, has none.
    """
    return describe_jobs(known_jobs(run).jobs, job_states(run), is_cancelled=run.is_cancelled())


def describe_jobs(
    jobs: Mapping[int, JobId], states: Mapping[int, JobState], *, is_cancelled: bool
) -> dict[int, WorkerJob]:
    """As `worker_jobs`, of the jobs with these states."""
    described = {}
    for number, state in states.items():
        journal = Journal(jobs[number].id)
        code = None if is_cancelled else journal.exit_code
        described[number] = WorkerJob(phase=state.phase, reason=state.reason, ids=tuple(journal.links), exit_code=code)
    return described


def cancel_jobs(run: Run) -> int:
    """End every live job of the run, through its backend or through the launcher that alone can; the number of jobs.

    BackendSilent where the launcher does not end its jobs.
    """
    record = known_jobs(run)
    asked = [(backend, ids, backend.status(list(ids.values()))) for backend, ids in _by_backend(record, {})]
    phases = {number: states[id].phase for _, ids, states in asked for number, id in ids.items()}
    live = {number for number, phase in phases.items() if phase in ("pending", "running")}
    left = {number for number in record.jobs if phases.get(number, "unknown") == "unknown"}
    left = {number for number in left if not run.is_finished(run.spec.placement[number])}
    if launcher_pid(run.path, strict=True) is None:
        left &= _workers_alive(run, left)
    if live or left:  # before the jobs end, so that no launcher restarts them
        run.request_stop("cancelled", kind="cancelled", sender="modtrain cancel")
    for backend, ids, _ in asked:
        backend.cancel([id for number, id in ids.items() if number in live])
    if left and filesystem.wait_until(lambda: _have_ended(run, left), timeout_s=LAUNCHER_S) is None:
        raise BackendSilent(
            f"After {LAUNCHER_S:.0f} s the launcher of {run.name} has not ended its workers; it does so as soon as it "
            f"answers. Without one, see `modtrain status {run.path}`."
        )
    return len(live | left)


def _have_ended(run: Run, workers: Collection[int]) -> bool | None:
    """Whether a run has no launcher and none of these workers is alive; None where it has."""
    return None if launcher_pid(run.path, strict=True) is not None or _workers_alive(run, workers) else True


def _workers_alive(run: Run, workers: Iterable[int]) -> set[int]:
    alive = live_modules(run, [name for number in workers for name in run.spec.placement[number]])
    return {run.worker_of(name) for name in alive}


def withdraw_pending(run: Run) -> set[int]:
    """Remove jobs that have not started from a scheduler's queue, having nothing to publish; the workers' numbers."""
    withdrawn = set[int]()
    for backend, ids in _by_backend(known_jobs(run), {}):
        if backend.unattended:
            states = backend.status(list(ids.values()))
            pending = {number: id for number, id in ids.items() if states[id].phase == "pending"}
            backend.cancel(list(pending.values()))
            withdrawn |= pending.keys()
    return withdrawn


def is_known(backend: str) -> bool:
    """Whether a backend is installed; a run's folder must not name code that reading it would execute."""
    return backend in plugins.known("backend")


def _by_backend(record: Record, backends: Mapping[str, Backend]) -> list[tuple[Backend, dict[int, str]]]:
    """Each known backend, one of `backends` or a new one, and the ids of its jobs by worker."""
    ids: dict[str, dict[int, str]] = {}
    for number, job in record.jobs.items():
        ids.setdefault(job.backend, {})[number] = job.id
    return [
        (backends.get(name) or backend_of(JobId(name, ""), record), own)
        for name, own in ids.items()
        if name in backends or is_known(name)
    ]


def _path(run: Run) -> Path:
    return run.jobs_path / JOBS_FILE
