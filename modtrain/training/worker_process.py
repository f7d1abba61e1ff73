"""A worker as a process: its device, its logs, the signals and time limit that it obeys, and its last word.

Deliberately not here: training (`worker.py`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from modtrain.errors import (
    OUTCOMES,
    FencedOut,
    InputError,
    ModtrainError,
    PeerTimeout,
    Preempted,
    StorageError,
)
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.shutdown import Leaving
from modtrain.training.trackers.base import Subject, Tracking
from modtrain.training.worker import Worker
from modtrain.training.worker_events import Logbook

log = logging.getLogger(__name__)


def choose_device(wanted: str, worker: int) -> str:
    """`auto` takes one GPU a worker in turn, or the CPU where there is none. InputError for a GPU that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= count:
        raise InputError(f"--device {wanted} is not here: this machine has {count} GPUs. Take auto, or cpu.")
    if wanted != "auto":
        return wanted
    return f"cuda:{worker % count}" if count else "cpu"


def work(
    run: Run,
    modules: Sequence[str],
    *,
    threads: int | None = None,
    leave_after_s: float | None = None,
    after_epoch: Callable[[int], None] = lambda epoch: None,
    may_come: Callable[[], bool] = lambda: False,
) -> None:
    """Train `modules` of a run to its end. Returns when they are finished; else raises why not.

    `leave_after_s` is what a job's time limit leaves, from the start of this process: the worker publishes and leaves
    before. `after_epoch` is called with the epochs completed when those of every epoch but the last are published.
    `may_come` is asked where a peer was late: whether to leave as Preempted, to come back for it, instead of failing.
    """
    if threads:
        torch.set_num_threads(threads)
    index = next((i for i, placed in enumerate(run.spec.placement) if set(placed) & set(modules)), 0)
    device = choose_device(run.spec.device, index)
    facts = {"epochs": run.spec.epochs, "device": device}
    leaving = Leaving(run, leave_after_s)
    logbook = Logbook(run, modules, device)
    with _log_to_files(run, modules), leaving, Heartbeat(run, modules, **facts) as heartbeat:
        try:
            worker = Worker(run, modules, heartbeat, leaving, logbook, device=device, after_epoch=after_epoch)
            heartbeat.report(steps=worker.total)
            _train(worker, may_come)
            heartbeat.report(epoch=worker.epoch, step=worker.step)
            _last_word(heartbeat, logbook, "finished", 0)
        except ModtrainError as error:
            if isinstance(error, FencedOut):
                heartbeat.silence()  # the module's heartbeat is the other worker's now
            code = error.exit_code
            _last_word(heartbeat, logbook, OUTCOMES.get(code, "failed"), code, str(error))
            log.log(logging.INFO if code in OUTCOMES else logging.ERROR, "%s", error)
            raise
        except BaseException as error:
            code = StorageError.exit_code if isinstance(error, OSError) else 1  # as `_log_to_files` has it
            _last_word(heartbeat, logbook, "failed", code, f"{type(error).__name__}: {error}")
            log.exception("The worker failed")
            raise


def _train(worker: Worker, may_come: Callable[[], bool]) -> None:
    if worker.step >= worker.total:
        log.info("Finished already, at step %d", worker.step)
        return
    worker.logbook.began(worker.writer, worker.step)
    for trainee in worker.trainees:
        trainee.curve.goes_on(worker.step)
    modules = tuple(trainee.name for trainee in worker.trainees)
    with Tracking(Subject(run=worker.run, modules=modules, step=worker.step)) as tracking:
        try:
            worker.train(tracking)
        except PeerTimeout as error:
            if may_come():
                raise Preempted(f"{error} Left to come back later.") from error
            raise
        finally:
            worker.logbook.step = worker.step


def _last_word(heartbeat: Heartbeat, logbook: Logbook, state: str, exit_code: int, trouble: str | None = None) -> None:
    heartbeat.report(state=state, exit_code=exit_code, trouble=trouble)
    logbook.left(state, exit_code, trouble)


@contextlib.contextmanager
def _log_to_files(run: Run, modules: Sequence[str]) -> Iterator[None]:
    root = logging.getLogger("modtrain")
    root.setLevel(logging.INFO)
    handlers = [_FileLog(run.module_path(module) / "worker.log") for module in modules]
    try:
        for module, handler in zip(modules, handlers, strict=True):
            run.module_path(module).mkdir(parents=True, exist_ok=True)
            root.addHandler(handler)
        yield
    except OSError as error:
        raise StorageError(
            f"{error}. If that is the run's folder, free some space or mend it (`modtrain doctor {run.path}`), then "
            f"launch {run.name} again."
        ) from error
    finally:
        for handler in handlers:
            root.removeHandler(handler)


class _FileLog(logging.Handler):
    """`worker.log` on shared storage: each line opens the file anew, and storage that fails costs only the line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record."""
        with contextlib.suppress(OSError):  # stderr has it as well
            filesystem.append_line(self._path, self.format(record))
