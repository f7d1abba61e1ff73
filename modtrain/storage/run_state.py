"""The state of a run and of its workers: the one place that decides it, from one snapshot of the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from modtrain.errors import OUTCOMES
from modtrain.storage import heartbeat
from modtrain.storage.run_snapshot import ModuleSnapshot, RunSnapshot, WorkerJob

RunState = Literal[
    "created", "queued", "starting", "running", "waiting", "resting",
    "finished", "stopped", "pruned", "preempted", "lost", "failed", "cancelled",
]  # fmt: skip
"""State of a run, a trial, a worker or a module."""

DESCRIPTIONS: dict[RunState, str] = {
    "failed": "left with an error",
    "lost": "died without a report",
    "running": "trains",
    "waiting": "waits for a peer to publish",
    "resting": "neither its stage nor its schedule trains it now",
    "starting": "its process loads",
    "queued": "waits for its turn",
    "preempted": "published and left before its job ended; wants to be resumed",
    "stopped": "published and left on request",
    "cancelled": "its jobs were cancelled",
    "pruned": "ended early by its sweep",
    "created": "no job was submitted",
    "finished": "published its last checkpoint",
}
"""What each state means, for every view; those that need attention first."""
BY_URGENCY = tuple(DESCRIPTIONS)
"""The order of states in lists."""

LIVE: frozenset[str] = frozenset(heartbeat.LIVE)
"""A process trains, or is about to."""
PENDING: frozenset[str] = LIVE | {"queued"}
"""Something of the run is still to come without any further command."""
ENDED: frozenset[str] = frozenset({"finished", "pruned", "failed"})
"""No further training is to be expected, even if the run is resumed with its sweep."""


def worker_state(snapshot: RunSnapshot, worker: int) -> RunState:
    """The state of one worker of the placement."""
    modules = [snapshot.modules[module] for module in snapshot.run.spec.placement[worker]]
    first, job = modules[0], snapshot.jobs.get(worker)
    spec = snapshot.run.spec
    are_final = all(spec.is_last(module.newest) for module in modules)
    finals = [module.newest for module in modules if module.newest is not None and module.newest.final]
    is_prolonged = not all(map(spec.is_last, finals))
    if (first.report.state == "finished" and not is_prolonged) or (are_final and not first.is_alive):
        return "finished"
    if job is not None and (state := _queue_state(first, job)) is not None:
        is_cancelled = snapshot.stop is not None and snapshot.stop.kind == "cancelled"
        return "cancelled" if is_cancelled and state in ("stopped", "preempted") else state
    return _folder_state(snapshot, worker, first)


def run_state(snapshot: RunSnapshot, workers: Sequence[RunState] | None = None) -> RunState:
    """The state of the whole run, from those of its workers."""
    states = worker_states(snapshot) if workers is None else workers
    present = set(states)
    if present == {"finished"}:
        return "finished"
    if "failed" in present:
        return "failed"
    if live := present & LIVE:
        return "starting" if live == {"starting"} else "running"
    if snapshot.stop is not None and snapshot.stop.kind == "pruned":
        return "pruned"
    if "lost" in present:
        return "running" if snapshot.launcher is not None else "lost"
    if "queued" in present:
        return "queued"
    left: tuple[RunState, ...] = ("cancelled", "preempted", "stopped")
    return next((state for state in left if state in present), "created" if snapshot.stop is None else "stopped")


def worker_states(snapshot: RunSnapshot) -> list[RunState]:
    """The state of each worker, in the order of the placement."""
    return [worker_state(snapshot, worker) for worker in range(len(snapshot.run.spec.placement))]


def failed_worker(snapshot: RunSnapshot) -> int | None:
    """The worker that the stop request names as failed; it may not have come so far as to report it itself."""
    stop = snapshot.stop
    if stop is None or stop.kind != "worker_failed":
        return None
    names = ["+".join(modules) for modules in snapshot.run.spec.placement]
    return names.index(stop.sender) if stop.sender in names else None


def _queue_state(module: ModuleSnapshot, job: WorkerJob) -> RunState | None:
    """The state by the job; None where the worker's folder knows better."""
    report = module.report
    if report.state in ("failed", "stopped") and report.job in job.ids:
        return None  # the job is shutting down, or its end is not known yet
    if job.phase == "pending":
        return "queued"
    if job.phase == "running" and not module.is_alive:
        return "starting"  # the last report is an earlier job's
    if job.phase == "ended" and job.exit_code is not None and report.state not in heartbeat.OVER:
        return _exit_state(job.exit_code)
    return None


def _exit_state(code: int) -> RunState | None:
    """The state of a worker that ended without a last report; None where a signal killed it (a shell adds 128)."""
    if code == 0:
        return "finished"
    if code in OUTCOMES:
        return cast(RunState, OUTCOMES[code])
    return None if code < 0 or code > 128 else "failed"


def _folder_state(snapshot: RunSnapshot, worker: int, module: ModuleSnapshot) -> RunState:
    """The state by the worker's last report, and by the stop request."""
    report, stop = module.report, snapshot.stop
    if module.is_alive:
        return cast(RunState, report.state)
    if report.state == "finished":
        return "stopped"  # at the end of a training that was prolonged since
    left = report.state in ("stopped", "preempted")
    if report.state == "failed" or (failed_worker(snapshot) == worker and not left):
        return "failed"
    if stop is not None and stop.kind == "cancelled":
        return "cancelled"
    if left:
        return cast(RunState, report.state)
    if report:
        return "lost"
    return _not_begun(snapshot, snapshot.jobs.get(worker))


def _not_begun(snapshot: RunSnapshot, job: WorkerJob | None) -> RunState:
    if job is not None and job.phase in ("ended", "unknown"):
        return "lost" if snapshot.stop is None else "stopped"
    if snapshot.stop is not None:
        return "pruned" if snapshot.stop.kind == "pruned" else "stopped"
    # The tasks of a sweep's arrays are recorded in the sweep's folder: where one worker reports, the others have jobs.
    is_task = snapshot.run.spec.trial is not None and any(module.report for module in snapshot.modules.values())
    return "queued" if snapshot.is_submitted or is_task or snapshot.launcher is not None else "created"
