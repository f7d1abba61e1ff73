"""A worker whom nobody watches: it does for its run what a launcher would do.

A worker of a scheduler's job tells the others when it fails, comes back later for a peer that is still queued, and
evaluates the run if it is the one that ends it. Deliberately not here: training (`worker.py`, `process.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from modtrain.errors import ON_REQUEST, FencedOut, ModtrainError
from modtrain.scheduling import job_record
from modtrain.scheduling.backends.base import JobState
from modtrain.storage.liveness import live_modules
from modtrain.storage.run import Run
from modtrain.training.worker_process import work

log = logging.getLogger(__name__)


def train(
    run: Run,
    modules: Sequence[str],
    *,
    threads: int | None = None,
    leave_after_s: float | None = None,
    evaluate_every: int | None = None,
    ask: Callable[[Run], Mapping[int, JobState]] = job_record.job_states,
) -> None:
    """Train `modules` to the run's end, as `process.work` does; the first worker evaluates every so many epochs.

    Preempted also where a peer was late: its job may be queued for hours, and this node need not wait for it. `ask` is
    as for `all_may_come`.
    """

    def after_epoch(epoch: int) -> None:
        if evaluate_every and epoch % evaluate_every == 0 and modules[0] in run.spec.placement[0]:
            _judge(run)

    try:
        work(
            run,
            modules,
            threads=threads,
            leave_after_s=leave_after_s,
            after_epoch=after_epoch,
            may_come=lambda: all_may_come(run, ask),
        )
    except (*ON_REQUEST, FencedOut):  # no reason for the other workers to stop
        raise
    except Exception as error:
        if run.stop_request() is None:  # no peer is to wait for a version that will not come
            run.request_stop(str(error), kind="worker_failed", sender="+".join(modules))
        raise
    if run.is_finished(run.modules):
        from modtrain.training.evaluation import (
            conclude,  # torchvision takes as long to load as torch: not before every start
        )

        conclude(run)


def all_may_come(run: Run, ask: Callable[[Run], Mapping[int, JobState]] = job_record.job_states) -> bool:
    """Whether every worker that is not finished has a live job, as far as anybody can say.

    One whose job is over and that said nothing, since its node or its Python is broken, would be waited for for ever.
    `ask` knows the jobs of the run's workers, by number: those of a trial may be tasks of an array.
    """
    try:
        found = ask(run)
    except ModtrainError as error:
        log.warning("Who is still to come cannot be asked: %s", error)
        return True
    missing = [m for n, state in found.items() if not state.live for m in run.spec.placement[n]]
    missing = [module for module in missing if not run.is_finished([module])]
    return live_modules(run, missing) == missing


def _judge(run: Run) -> None:
    """An evaluation that fails costs no training: the last one, at the end, says why."""
    from modtrain.training.evaluation import evaluate

    try:
        evaluate(run, device=run.spec.device)
    except Exception as error:  # a full disk, the GPU's memory, the recipe
        log.warning("Not evaluated: %s", error, exc_info=not isinstance(error, ModtrainError | OSError))
