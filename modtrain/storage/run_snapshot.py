"""RunSnapshot: everything that decides the state of a run, read once, so that all views agree on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modtrain.errors import InputError
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.checkpoint_store import Newest
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.layout import JOBS_FILE
from modtrain.storage.liveness import SHORT_PATIENCE_S, Liveness, launcher_pid
from modtrain.storage.manifest import read_json
from modtrain.storage.run import Run
from modtrain.storage.stop_request import StopRequest

JobPhase = Literal["pending", "running", "ended", "unknown"]


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What a backend says about the job of one worker."""

    phase: JobPhase
    reason: str = ""
    ids: tuple[str | None, ...] = ()
    """The job and those that continued it, oldest first; None where its workers report no job id."""
    exit_code: int | None = None


@dataclass(frozen=True)
class ModuleSnapshot:
    """What the folder of one module says."""

    report: WorkerReport
    is_alive: bool
    newest: Checkpoint | None
    damaged: tuple[int, ...] = ()
    """Damaged versions above it."""


@dataclass(frozen=True, kw_only=True)
class RunSnapshot:
    """A run's folder, and what its backend says, at one moment."""

    run: Run
    modules: Mapping[str, ModuleSnapshot]
    stop: StopRequest | None
    launcher: int | None
    """Process of this machine that launched the run and watches it."""
    is_submitted: bool
    """Whether a job of the run was ever submitted; a dry run submits none."""
    jobs: Mapping[int, WorkerJob] = field(default_factory=dict)
    """By worker; empty where no backend was asked."""


def read_snapshot(
    run: Run, liveness: Liveness | None = None, *, jobs: Mapping[int, WorkerJob] | None = None
) -> RunSnapshot:
    """Read a run's folder; without a `liveness` workers elsewhere are observed until it is known whether they live."""
    if liveness is None:
        liveness = Liveness(patience_s=SHORT_PATIENCE_S)
        liveness.settle(run)
    liveness.refresh(run)
    newest = {module: run.store(module).newest_intact() for module in run.modules}
    return RunSnapshot(
        run=run,
        modules=module_snapshots(liveness, newest),
        stop=run.stop_request(),
        launcher=launcher_pid(run.path),
        is_submitted=has_submitted_jobs(run),
        jobs=jobs or {},
    )


def module_snapshots(liveness: Liveness, newest: Mapping[str, Newest]) -> dict[str, ModuleSnapshot]:
    """What was read already of each module."""
    return {
        module: ModuleSnapshot(liveness.report(module), liveness.is_alive(module), version.checkpoint, version.damaged)
        for module, version in newest.items()
    }


def has_submitted_jobs(run: Run) -> bool:
    """Whether `jobs.json` names a job of the run, which that of a dry run does not; StorageError if unreadable."""
    try:
        return bool(read_json(run.jobs_path / JOBS_FILE).get("jobs"))
    except InputError:
        return True  # damaged, but a launch wrote it
