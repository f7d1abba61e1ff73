"""One worker: trains, and where no launcher watches it, performs the launcher's tasks for its run.

It requests a stop of the other workers when it fails, exits to be continued later where a peer's job is still queued,
and evaluates the run if it finishes it. Training itself is in `training/worker_process.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from modtrain.errors import ON_REQUEST, FencedOut, ModtrainError, StorageError, message_of
from modtrain.scheduling import job_record
from modtrain.scheduling.backends.base import JobState
from modtrain.storage.liveness import live_modules
from modtrain.storage.run import Run
from modtrain.training.worker_process import work

log = logging.getLogger(__name__)


def train(
    run: Run,
    modules: Sequence[str],
    threads: int | None = None,
    leave_after_s: float | None = None,
    unattended: bool = True,
    *,
    ask: Callable[[Run], Mapping[int, JobState]] = job_record.job_states,
) -> None:
    """Train `modules` to the end of the run.

    An unattended worker raises Preempted also where a peer is late: its job may be queued for hours, and this node must
    not be held until then. `ask` returns the state of each worker's job, by number.
    """
    try:
        work(
            run,
            modules,
            threads=threads,
            leave_after_s=leave_after_s,
            may_come=lambda: unattended and are_all_expected(run, ask),
        )
    except (*ON_REQUEST, FencedOut, StorageError):  # the other workers can continue: this one is started again
        raise
    except Exception as error:
        if unattended and run.stop_request() is None:  # no peer may wait for a version that will not come
            run.request_stop(message_of(error), kind="worker_failed", sender="+".join(modules))
        raise
    if unattended and run.is_finished(run.modules):
        from modtrain.training.evaluation import NothingToEvaluate, final_evaluation

        try:
            final_evaluation(run, device=run.spec.device)
        except NothingToEvaluate as error:
            log.warning("Not evaluated: %s", error)


def are_all_expected(run: Run, ask: Callable[[Run], Mapping[int, JobState]] = job_record.job_states) -> bool:
    """Whether every worker that is not finished has a live job, or is alive without one; true where it is not known.

    A worker whose job has ended without a report, since its node or Python is broken, would be waited for forever.
    """
    try:
        states = ask(run)
    except ModtrainError as error:
        log.warning("The state of the other workers' jobs is unknown: %s", error)
        return True
    missing = [module for number, state in states.items() if not state.live for module in run.spec.placement[number]]
    missing = [module for module in missing if not run.is_finished([module])]
    return live_modules(run, missing) == missing
