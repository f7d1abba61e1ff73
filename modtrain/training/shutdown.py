"""Why a worker should leave: a signal, the end of its job's time, or the run's `stop` file.

Asked at batch boundaries and while waiting.
A handler only sets a flag: publishing inside of one hangs real systems.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from modtrain.errors import Interrupted, ModtrainError, Preempted, StopRequested
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run

STOP_POLL_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)


def process_age_s() -> float:
    """How long ago this process was started: importing may have taken its time. 0 where nobody knows."""
    started = process_started(os.getpid())
    if started is None:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"))


class Leaving:
    """The reason to leave, once there is one."""

    def __init__(self, run: Run, leave_after_s: float | None = None) -> None:
        """`leave_after_s` is what a job's time limit leaves, counted from the start of this process.

        One that has come late, since it took so long to start, trains a batch all the same: so every job goes on a bit.
        """
        self._run = run
        self.no_time = leave_after_s is not None and leave_after_s <= 0
        """Whether the limit leaves nothing at all, however quick the start is."""
        self._deadline = None if leave_after_s is None else time.monotonic() - process_age_s() + leave_after_s
        self._last = self._longest = 0.0
        self._signal: signal.Signals | None = None
        self._asked = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Leaving:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def reason(self) -> ModtrainError | None:
        """What a worker that leaves now should raise after it has published; None to go on."""
        again = f"published and left; launch {self._run.name} again to go on."
        if self._signal is signal.SIGINT:
            return Interrupted(f"Interrupted: {again}")
        due = self._due()
        if due is None and time.monotonic() - self._asked < STOP_POLL_S:
            return None
        self._asked = time.monotonic()
        stop = self._run.stop_request()  # goes before: a job that is to stop must not be continued
        if stop is not None:
            return StopRequested(f"Stopped on request ({stop}): published and left.")
        return Preempted(f"{due}: {again}") if due else None

    def time_left_s(self) -> float:
        """Until the job's time ends; infinite where it has no limit."""
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    def _due(self) -> str | None:
        no_time = self._no_time_for_another()
        if self._signal is not None:
            return f"Told to leave by {self._signal.name}"
        return "The job's time ends" if no_time else None

    def _no_time_for_another(self) -> bool:
        """Whether the longest time between two questions so far, a batch and its publishing, does not fit again."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last) if self._last else 0.0
        self._last = now
        return self.time_left_s() <= self._longest

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
