"""RunSnapshot: everything that decides the state of a run, read once, so that all views agree on it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.checkpoint_store import Newest
from modtrain.storage.evaluations import EvaluationFailure, read_failure
from modtrain.storage.heartbeat import WorkerReport, with_exit
from modtrain.storage.json_lines import integer
from modtrain.storage.layout import JOBS, JOBS_FILE, JOURNAL_SUFFIX
from modtrain.storage.liveness import SHORT_PATIENCE_S, Liveness, read_launcher
from modtrain.storage.manifest import Placement, read_json
from modtrain.storage.process_identity import ProcessIdentity
from modtrain.storage.run import Run
from modtrain.storage.stop_request import StopRequest

JobPhase = Literal["pending", "running", "ended", "unknown"]
Runner = Literal["launcher", "scheduler"] | None
"""What runs the jobs of a run: the process that launched it, or a scheduler; None where none was submitted."""


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
    """Whether a job of the run was submitted, and its launcher, if it needs one, may still run."""
    jobs: Mapping[int, WorkerJob] = field(default_factory=dict)
    """By worker; empty where no backend was asked."""
    evaluation_failure: EvaluationFailure | None = None
    """Why the last evaluation failed."""
    refusals: Mapping[int, str] = field(default_factory=dict)
    """By worker that exited to be continued: why the scheduler accepted no job that continues it; mostly empty."""


def read_snapshot(
    run: Run, liveness: Liveness | None = None, *, jobs: Mapping[int, WorkerJob] | None = None
) -> RunSnapshot:
    """Read a run's folder; without a `liveness` workers elsewhere are observed until it is known whether they live."""
    if liveness is None:
        liveness = Liveness(patience_s=SHORT_PATIENCE_S)
        liveness.settle(run)
    liveness.refresh(run)
    launcher = read_launcher(run.path)
    newest = {module: run.store(module).newest_intact() for module in run.modules}
    return RunSnapshot(
        run=run,
        modules=module_snapshots(run, liveness, newest),
        stop=run.stop_request(),
        evaluation_failure=read_failure(run.evaluation_failure_path),
        launcher=launcher.pid if launcher.is_running() else None,
        is_submitted=is_submitted(read_runner(run), launcher),
        jobs=jobs or {},
        refusals=_read_refusals(run, liveness),
    )


def last_refusal(run: Run, worker: int) -> str:
    """Why the scheduler accepted no job that continues a worker's; empty where its journal does not end with that."""
    content = filesystem.read_plain(journal_path(run, worker)) or b""
    kind, *fields = (content.decode(errors="replace").splitlines() or [""])[-1].split(" ", 4)
    return fields[-1].strip() if kind == "refused" and len(fields) == 4 else ""


def journal_path(run: Run, worker: int) -> Path:
    """The journal of a worker's jobs; tasks of a sweep's arrays have theirs in the folder of the sweep."""
    own, trial = run.jobs_path / f"{worker}{JOURNAL_SUFFIX}", integer((run.spec.trial or {}).get("number"))
    if trial is None or own.exists():
        return own
    return run.path.parent / JOBS / f"{trial * len(run.spec.placement) + worker}{JOURNAL_SUFFIX}"


def _read_refusals(run: Run, liveness: Liveness) -> dict[int, str]:
    """Those of workers that exited to be continued; one that cannot be read is left out, as it is only shown."""
    refusals = {}
    for number in preempted_workers(liveness, run.spec.placement):
        with contextlib.suppress(OSError):
            refusals[number] = last_refusal(run, number)
    return refusals


def preempted_workers(liveness: Liveness, placement: Placement) -> list[int]:
    """The workers that exited to be continued: the scheduler may have refused their next job."""
    return [number for number, placed in enumerate(placement) if liveness.report(placed[0]).state == "preempted"]


def module_snapshots(run: Run, liveness: Liveness, newest: Mapping[str, Newest]) -> dict[str, ModuleSnapshot]:
    """What was read already of each module, and how the worker ended where its last heartbeat does not say it."""
    snapshots = {}
    for module, version in newest.items():
        report, is_alive = liveness.report(module), liveness.is_alive(module)
        if report.is_live and not is_alive:
            report = with_exit(report, run.workers_path(module))
        snapshots[module] = ModuleSnapshot(report, is_alive, version.checkpoint, version.damaged)
    return snapshots


def read_runner(run: Run) -> Runner:
    """What runs the jobs that `jobs.json` names, which those of a dry run does not; StorageError if unreadable."""
    try:
        record = read_json(run.jobs_path / JOBS_FILE)
    except InputError:
        return "scheduler"  # damaged, but a launch wrote it
    if not record.get("jobs"):
        return None
    return "launcher" if record.get("needs_launcher") is True else "scheduler"


def is_submitted(runner: Runner, launcher: ProcessIdentity) -> bool:
    """Whether a job that was submitted may still begin: not where it needs a launcher, and that is known to be gone."""
    return runner == "scheduler" or (
        runner == "launcher" and launcher.host is not None and launcher.is_running() is not False
    )
