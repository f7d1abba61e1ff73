"""A worker as a process: log files, signals and time limit, trackers, and the final state that it records."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modtrain import plugins
from modtrain.errors import (
    OUTCOMES,
    FencedOut,
    InputError,
    ModtrainError,
    PeerTimeout,
    Preempted,
    StorageError,
    counted,
    message_of,
    plain,
)
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import GIVEN_GPUS, Heartbeat
from modtrain.storage.run import Run
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.trackers.base import Subject, Tracking

if TYPE_CHECKING:
    from modtrain.training.worker import Worker

T = TypeVar("T")
log = logging.getLogger(__name__)


def work(
    run: Run,
    modules: Sequence[str],
    *,
    threads: int | None = None,
    leave_after_s: float | None = None,
    may_come: Callable[[], bool] = lambda: False,
) -> None:
    """Train `modules` of a run to its end; raises an error of `errors.py` where it does not get there.

    `leave_after_s`: seconds that a job's time limit allows, from the start of this process; the worker publishes and
    exits before. `may_come` is called after a wait for a peer has timed out: true raises Preempted, so that the job is
    continued later, instead of PeerTimeout.
    """
    shutdown, events = Shutdown(run, leave_after_s), WorkerEvents(run, modules)
    heartbeat = Heartbeat(map(run.heartbeat_path, modules), run=str(run.path), epochs=run.spec.epochs)
    start = _Start(run, modules, shutdown, heartbeat)
    worker: Worker | None = None
    state, code, trouble = "finished", 0, None
    with _log_to_files(run, modules), shutdown, start, heartbeat:
        try:
            device = _choose_device(run, modules, threads, heartbeat, shutdown)
            worker = start.retry(lambda: _build(run, modules, heartbeat, shutdown, events, device))
            heartbeat.report(steps=worker.end.step, trouble=None)
            if worker.is_finished or run.is_finished(modules):
                log.info("Finished already, at step %d", worker.position.step)
            elif leave_after_s is not None and leave_after_s <= 0:
                raise InputError(
                    "The job's time limit leaves no time to train: raise walltime, or lower publish_before_s."
                )
            else:
                _train(worker, may_come)
            heartbeat.report(epoch=worker.position.epoch, step=worker.position.step)
        except ModtrainError as error:
            if isinstance(error, FencedOut):
                heartbeat.silence()  # the heartbeat file belongs to the other worker now
            code, trouble = error.exit_code, str(error)
            state = OUTCOMES.get(code, "failed")
            log.log(logging.INFO if code in OUTCOMES else logging.ERROR, "%s", error)
            raise
        except BaseException as error:
            code = filesystem.unexpected_exit_code(error)  # `_log_to_files` converts it
            state, trouble = "failed", _describe(error, run.spec.recipe)
            log.exception("The worker failed")
            raise
        finally:
            heartbeat.report(state=state, exit_code=code, trouble=trouble)
            events.record_exit(state, code, trouble, worker.position.step if worker else None)


def _choose_device(
    run: Run, modules: Sequence[str], threads: int | None, heartbeat: Heartbeat, shutdown: Shutdown
) -> str:
    """The device of the worker, which its heartbeat has from now on; loads PyTorch, which takes a while."""
    shutdown.check_start()
    import torch

    from modtrain.training.learner import choose_device
    from modtrain.training.precision import check_precision

    if threads:
        torch.set_num_threads(threads)
    index = next((i for i, placed in enumerate(run.spec.placement) if set(placed) & set(modules)), 0)
    device = choose_device(run.spec.device, index)
    check_precision(run.spec.precision, device)
    given = os.environ.get(GIVEN_GPUS, "") if run.spec.device != "cpu" else ""
    gpus = int(given) if given.isdecimal() else None
    if gpus and device == "cpu":
        log.warning("The job was given %s, but PyTorch sees none: the worker trains on the CPU", counted(gpus, "GPU"))
    heartbeat.report(device=device, gpus=gpus)
    return device


def _build(
    run: Run, modules: Sequence[str], heartbeat: Heartbeat, shutdown: Shutdown, events: WorkerEvents, device: str
) -> Worker:
    from modtrain.training.worker import Worker

    return Worker(run, modules, heartbeat, shutdown, events, device=device)


class _Start:
    """The start of a worker, tried again while storage fails, so that a moment without it ends no run."""

    def __init__(self, run: Run, modules: Sequence[str], shutdown: Shutdown, heartbeat: Heartbeat) -> None:
        self._run, self._modules, self._shutdown, self._heartbeat = run, modules, shutdown, heartbeat
        self._backoff = filesystem.Backoff("Starting", run.path, run.spec.storage_timeout_s)

    def __enter__(self) -> None:
        """Create the folders of the modules."""
        self.retry(lambda: self._run.make_module_folders(self._modules))

    def __exit__(self, *_: object) -> None: ...

    def retry(self, action: Callable[[], T]) -> T:
        """As `filesystem.retry`; raises the reason of a shutdown that is requested meanwhile."""
        return filesystem.retry(action, self._backoff, self._poll)

    def _poll(self) -> None:
        self._heartbeat.report(trouble=self._backoff.trouble)
        if (reason := self._shutdown.reason()) is not None:
            raise reason.error_at_start(", since storage does not answer")


def _describe(error: BaseException, recipe: str) -> str:
    """An unexpected exception; one of the recipe's code with the part that failed and its line."""
    if plugins.is_of_plugin(error, recipe):
        return plugins.failure(error, "recipe", recipe)
    return plugins.summary(error)


def _train(worker: Worker, may_come: Callable[[], bool]) -> None:
    step = worker.position.step
    worker.events.record_start(worker.writer, step, worker.device)
    for learner in worker.learners:
        learner.metrics.resume(step)
    modules = tuple(learner.name for learner in worker.learners)
    with Tracking(Subject(run=worker.run, modules=modules, step=step)) as tracking, worker.evaluations:
        try:
            worker.train(tracking)
        except PeerTimeout as error:
            if may_come():
                raise Preempted(f"{error} Left to come back later.") from error
            raise
        except InputError as error:
            if worker.position.step == step:
                raise
            raise ModtrainError(str(error)) from error  # exit code 2 is for what is wrong from the first step


@contextlib.contextmanager
def _log_to_files(run: Run, modules: Sequence[str]) -> Iterator[None]:
    root = logging.getLogger("modtrain")
    root.setLevel(logging.INFO)
    handler = _FileLog([run.log_path(module) for module in modules])
    root.addHandler(handler)
    try:
        yield
    except OSError as error:
        if filesystem.fault_of(error) is None:
            raise
        raise StorageError(
            f"{message_of(error)}. If that is the run's folder, free some space or repair it (see "
            f'"modtrain doctor {run.path}"), then launch {run.name} again.'
        ) from error
    finally:
        root.removeHandler(handler)


class _FileLog(logging.Handler):
    """`worker.log` on shared storage: each line opens the file again, and storage that fails costs only the line."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = paths
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def format(self, record: logging.LogRecord) -> str:
        """Names in messages come from files: control characters are escaped."""
        return plain(super().format(record), "\n\t")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # arguments that do not fit the message: a line of a log never ends the work
            self.handleError(record)
            return
        for path in self._paths:
            with contextlib.suppress(OSError):  # stderr has it as well
                filesystem.append_line(path, line)
