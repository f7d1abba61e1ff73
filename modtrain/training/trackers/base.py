"""The Tracker protocol, and Tracking, which feeds the trackers of a worker, each in a thread of its own.

An exception of a tracker is logged once. A worker never waits for a tracker, except for a bounded time at its end.
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
from typing import Any, ClassVar, Protocol

from modtrain import plugins
from modtrain.errors import OUTCOMES, InputError, plain
from modtrain.recipes.params import flatten
from modtrain.storage.history import scalars
from modtrain.storage.run import Run

log = logging.getLogger(__name__)

ALWAYS = "tensorboard"
EVALUATION = "evaluation"
FOLDER = "tracking"
"""Folder of a run for what trackers keep on disk."""
RETRY_S = 60.0
"""Seconds before a tracker whose start failed is tried again."""
FINISH_TIMEOUT_S, EXIT_TIMEOUT_S = 60.0, 10.0
"""Seconds to wait for trackers at the end of a finished worker (some take long to load), and at any other end: a
stopped worker has no time, and an evaluation may be one of many."""
MOST_PENDING = 1000
"""Calls that may wait for a slow tracker; further ones are dropped."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The source of scalars: the modules of a worker, or the evaluation of a run."""

    run: Run
    modules: tuple[str, ...]
    """Modules of the worker; `("evaluation",)` for the evaluation."""
    step: int | None
    """Training continues here: points beyond it are void. None for the evaluation."""

    @property
    def name(self) -> str:
        """Name among the workers of the run."""
        return "+".join(self.modules)

    @property
    def key(self) -> str:
        """Identifies the worker of the run: the same when it is restarted, another one for any other worker."""
        spec = self.run.spec
        identity = f"{self.run.name}/{spec.created_at}/{spec.seed}/{spec.trial}/{self.name}"
        return hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]


class Tracker(Protocol):
    """A destination of scalars and pictures. Its methods may raise anything and take any time."""

    package: ClassVar[str]
    """The Python package that has to be installed."""

    def __init__(self, subject: Subject) -> None: ...

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        """Values of a module at a step; `at` is the Unix time."""

    def picture(self, path: Path, *, step: int, at: float) -> None:
        """A sample grid, as PNG."""

    def close(self, state: str) -> None:
        """The worker exits: `finished`, `stopped`, `preempted` or `failed`."""


class Tracking:
    """All trackers of a worker or an evaluation; the end of the `with` block closes them."""

    def __init__(self, subject: Subject) -> None:
        """Start TensorBoard and the trackers of the run's `track`."""
        self._trains = subject.step is not None
        self._threads = [_TrackerThread(name, subject) for name in dict.fromkeys((ALWAYS, *subject.run.spec.track))]

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        state = "finished" if error is None else OUTCOMES.get(getattr(error, "exit_code", 1), "failed")
        for thread in self._threads:
            thread.finish(lambda tracker: tracker.close(state))
        deadline = time.monotonic() + (FINISH_TIMEOUT_S if error is None and self._trains else EXIT_TIMEOUT_S)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s does not end in time; its last points may be missing.", thread.tracker_name)

    def line(self, module: str, line: Mapping[str, Any]) -> None:
        """Send a line of a module's `metrics.jsonl`."""
        values = scalars(line) | {"lr": float(line["lr"])}
        self._send(lambda tracker: tracker.scalars(module, values, step=line["step"], at=line["at"]))

    def evaluation(self, line: Mapping[str, Any], *, step: int) -> None:
        """Send an evaluation of the checkpoints of a step, with its sample grid."""
        values, at = scalars(line["metrics"]), float(line["at"])
        self._send(lambda tracker: tracker.scalars(EVALUATION, values, step=step, at=at))
        if line["grid"] is not None:
            self._send(lambda tracker: tracker.picture(Path(line["grid"]), step=step, at=at))

    def _send(self, call: Callable[[Tracker], None]) -> None:
        for thread in self._threads:
            thread.send(call)


def check(names: Iterable[str]) -> None:
    """InputError where a tracker is unknown or its package is not installed."""
    for name in names:
        package = getattr(plugins.load("tracker", name), "package", None)
        if package and importlib.util.find_spec(package) is None:
            raise InputError(f"--track {name} needs the package {package}; install it: pip install {package}")


def settings(run: Run) -> dict[str, bool | int | float | str]:
    """Settings and parameters of a run by dotted names, as plain values that every tracker can show."""
    spec = run.spec
    names = ("recipe", "seed", "epochs", "exchange_every", "max_staleness", "dataroot", "precision")
    chosen = {name: getattr(spec, name) for name in names} | {"workers": len(spec.placement)}
    chosen["trial"] = (spec.trial or {}).get("number")
    values = flatten(spec.params) | {name: value for name, value in chosen.items() if value is not None}
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> bool | int | float | str:
    """A list and so on as JSON; a text without bytes that are not UTF-8, which trackers cannot encode."""
    if isinstance(value, int | float):
        return value
    return plain(value) if isinstance(value, str) else json.dumps(value)


class _TrackerThread(threading.Thread):
    """One tracker in its own thread, with a queue of calls."""

    def __init__(self, tracker: str, subject: Subject) -> None:
        super().__init__(name=f"tracker {tracker}", daemon=True)
        self.tracker_name, self._subject = tracker, subject
        self._queue: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(MOST_PENDING)
        self._tracker: Tracker | None = None
        self._retry_at = 0.0
        self._failure_logged = self._full_logged = False
        self.start()

    def send(self, call: Callable[[Tracker], None]) -> None:
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            if not self._full_logged:
                self._full_logged = True
                log.warning("%s is slower than training: it gets only a part of the curve.", self.tracker_name)

    def finish(self, last: Callable[[Tracker], None]) -> None:
        self.send(last)
        with contextlib.suppress(queue.Full):  # it hangs; its thread ends with the process
            self._queue.put_nowait(None)

    def run(self) -> None:
        self._try(lambda tracker: None)  # starts the tracker at once, so that its errors show early
        while (call := self._queue.get()) is not None:
            self._try(call)

    def _try(self, call: Callable[[Tracker], None]) -> None:
        try:
            if self._tracker is None:
                if time.monotonic() < self._retry_at:
                    return
                self._retry_at = time.monotonic() + RETRY_S
                self._tracker = plugins.load("tracker", self.tracker_name)(self._subject)
            call(self._tracker)
        except (Exception, SystemExit) as error:
            if not self._failure_logged:
                self._failure_logged = True
                name, text = self.tracker_name, " ".join(str(error).split()) or type(error).__name__
                log.warning("%s fails; training continues without it, and it is tried again: %s", name, text)
