"""What a tracker is, and how a worker tells its trackers: each in a thread of its own, and none can disturb training.

What a tracker raises is logged once; a worker never waits for one, except for a moment at its end. Deliberately not
here: any particular tracker (`tensorboard.py`, `wandb.py`, `mlflow.py`), and the run's own files (`curve.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol

from modtrain import plugins
from modtrain.errors import OUTCOMES, InputError
from modtrain.recipes.params import flatten
from modtrain.storage.curves import scalars
from modtrain.storage.run import Run

log = logging.getLogger(__name__)

ALWAYS = "tensorboard"
EVALUATION = "evaluation"
FOLDER = "tracking"
"""Of a run: what trackers keep there where they keep anything on disk."""
RETRY_S = 60.0
"""Before a tracker that could not be begun is tried again."""
ENDING_S, LEAVING_S = 60.0, 10.0
"""How long a worker waits for its trackers at its end: some take long to load. One that is told to leave has no time,
and an evaluation may be one of many."""
PENDING = 1000
"""Lines that may wait for a slow tracker; those that come then are not told to it."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose scalars these are: a worker's modules, or the evaluation of a run."""

    run: Run
    modules: tuple[str, ...]
    """Of the worker; `("evaluation",)` for the evaluation."""
    step: int | None
    """Training goes on from here: points behind it belong to an earlier life. None for the evaluation."""

    @property
    def name(self) -> str:
        """The worker's, among those of its run."""
        return "+".join(self.modules)

    @property
    def key(self) -> str:
        """The same for the same worker of the same run, also when it comes again; another for any other."""
        spec = self.run.spec
        told = f"{self.run.name}/{spec.created_at}/{spec.seed}/{spec.trial}/{self.name}"
        return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:16]


class Tracker(Protocol):
    """One place where a worker's scalars go. Its methods may raise anything and take as long as they like."""

    package: ClassVar[str]
    """What must be installed for it."""

    def __init__(self, subject: Subject) -> None: ...

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        """Values of a module at a step; `at` is the Unix time."""

    def picture(self, path: Path, *, step: int, at: float) -> None:
        """A sample grid, as PNG."""

    def close(self, state: str) -> None:
        """The worker leaves: `finished`, `stopped`, `preempted` or `failed`."""


class Tracking:
    """All trackers of a worker, or of an evaluation; a context, whose end they are told."""

    def __init__(self, subject: Subject) -> None:
        """Those that the run asks for, and TensorBoard."""
        self._trains = subject.step is not None
        self._apart = [_Apart(name, subject) for name in dict.fromkeys((ALWAYS, *subject.run.spec.track))]

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        state = "finished" if error is None else OUTCOMES.get(getattr(error, "exit_code", 1), "failed")
        for apart in self._apart:
            apart.finish(lambda tracker: tracker.close(state))
        deadline = time.monotonic() + (ENDING_S if error is None and self._trains else LEAVING_S)
        for apart in self._apart:
            apart.join(deadline - time.monotonic())

    def line(self, module: str, line: Mapping[str, Any]) -> None:
        """Tell a line of a module's `metrics.jsonl`."""
        values = scalars(line) | {"lr": float(line["lr"])}
        self._tell(lambda tracker: tracker.scalars(module, values, step=line["step"], at=line["at"]))

    def evaluation(self, line: Mapping[str, Any], *, step: int, grid: Path | None) -> None:
        """Tell an evaluation of the checkpoints of a step, with its sample grid."""
        values, at = scalars(line["metrics"]), float(line["at"])
        self._tell(lambda tracker: tracker.scalars(EVALUATION, values, step=step, at=at))
        if grid is not None:
            self._tell(lambda tracker: tracker.picture(grid, step=step, at=at))

    def _tell(self, news: Callable[[Tracker], None]) -> None:
        for apart in self._apart:
            apart.tell(news)


def check(names: Iterable[str]) -> None:
    """InputError where there is no such tracker, or what it needs is not installed."""
    for name in names:
        package = getattr(plugins.load("tracker", name), "package", None)
        if package and importlib.util.find_spec(package) is None:
            raise InputError(f"--track {name} needs the package {package}; install it: pip install {package}")


def settings(run: Run) -> dict[str, bool | int | float | str]:
    """What a run was begun with, by dotted names, as every tracker can show it."""
    spec = run.spec
    chosen = {"recipe": spec.recipe, "seed": spec.seed, "epochs": spec.epochs, "workers": len(spec.placement)}
    chosen |= {"exchange_every": spec.exchange_every, "max_staleness": spec.max_staleness, "dataroot": spec.dataroot}
    if spec.trial:
        chosen["trial"] = spec.trial.get("number")
    plain = flatten(spec.params) | {name: value for name, value in chosen.items() if value is not None}
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in plain.items()
    }


class _Apart:
    """One tracker in its own thread, with what it was not told yet."""

    def __init__(self, name: str, subject: Subject) -> None:
        self._name, self._subject = name, subject
        self._queue: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(PENDING)
        self._tracker: Tracker | None = None
        self._retry_at = 0.0
        self._complained = self._full = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, news: Callable[[Tracker], None]) -> None:
        try:
            self._queue.put_nowait(news)
        except queue.Full:
            if not self._full:
                self._full = True
                log.warning("%s is slower than training: it gets only some of the curve.", self._name)

    def finish(self, last: Callable[[Tracker], None]) -> None:
        self.tell(last)
        with contextlib.suppress(queue.Full):  # it hangs; its thread ends with the process
            self._queue.put_nowait(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(max(0.0, timeout_s))
        if self._thread.is_alive():
            log.warning("%s does not end; its last points may be missing there.", self._name)

    def _work(self) -> None:
        self._try(lambda tracker: None)  # begun at once: what is wrong with it is said early
        while (news := self._queue.get()) is not None:
            self._try(news)

    def _try(self, news: Callable[[Tracker], None]) -> None:
        try:
            if self._tracker is None:
                if time.monotonic() < self._retry_at:
                    return
                self._retry_at = time.monotonic() + RETRY_S
                self._tracker = plugins.load("tracker", self._name)(self._subject)
            news(self._tracker)
        except (Exception, SystemExit) as error:
            if not self._complained:
                self._complained = True
                said = " ".join(str(error).split()) or type(error).__name__
                log.warning("%s fails; training goes on without it, and it is tried again: %s", self._name, said)
