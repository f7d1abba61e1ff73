"""Shutdown: why a worker has to exit: a signal, the end of its job's time limit, or the run's stop request.

Checked at batch boundaries and while waiting. The signal handler only sets a flag: publishing inside of a handler hangs
real systems.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from modtrain.errors import Interrupted, ModtrainError, Preempted, StopRequested, message_of
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run

log = logging.getLogger(__name__)

STOP_POLL_S = 1.0
"""Seconds between two looks for a stop request on shared storage, at least."""
_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class ShutdownReason:
    """One reason to exit."""

    kind: type[ModtrainError]
    cause: str
    advice: str = ""

    def error(self, storage_error: OSError | None = None) -> ModtrainError:
        """The exception to raise after publishing, or after storage has refused to publish with `storage_error`."""
        outcome = "published and left"
        if storage_error is not None:
            outcome = f"left, but publishing failed ({storage_error}); the steps since the last checkpoint are lost"
        return self.kind(f"{self.cause}: {outcome}{self.advice}.")

    def error_at_start(self, why: str = "") -> ModtrainError:
        """The exception to raise before training has begun; `why` it has not yet, where that is to be said."""
        return self.kind(f"{self.cause}: left before training began{why}{self.advice}.")


class Shutdown:
    """Collects the reasons to exit; a `with` block in which it handles SIGTERM, SIGUSR2, SIGINT and SIGHUP."""

    def __init__(self, run: Run, leave_after_s: float | None = None) -> None:
        """`leave_after_s` is what a job's time limit allows, counted from the start of this process.

        A process whose start took longer than that still trains one batch, so that every job makes progress.
        """
        self._run = run
        self._deadline = None if leave_after_s is None else time.monotonic() - _process_age_s() + leave_after_s
        self._last_check = self._longest_gap_s = 0.0
        self._signal: signal.Signals | None = None
        self._stop_checked_at = 0.0
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Shutdown:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            self._previous_handlers = {
                number: signal.signal(number, self._on_signal)
                for number in _SIGNALS
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN  # `nohup`
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def reason(self) -> ShutdownReason | None:
        """Why to publish and exit now; None to continue training. RunMoved where the run is no longer there."""
        now = time.monotonic()
        return self._reason(now, is_time_over=self._is_time_over(now))

    def check_start(self) -> None:
        """Raise the reason to exit before training begins: the parts of a start may take long on a busy machine.

        A time limit is none: every job trains one batch.
        """
        if (reason := self._reason(time.monotonic(), is_time_over=False)) is not None:
            raise reason.error_at_start()

    def _reason(self, now: float, *, is_time_over: bool) -> ShutdownReason | None:
        advice = f"; launch {self._run.name} again to go on"
        if self._signal is signal.SIGINT:
            return ShutdownReason(Interrupted, "Interrupted", advice)
        is_preempted = is_time_over or self._signal is not None
        if not is_preempted and now - self._stop_checked_at < STOP_POLL_S:
            return None
        self._stop_checked_at = now
        try:
            self._run.check_present()
            stop = self._run.stop_request()
        except OSError as error:  # asked again soon
            log.warning("Could not read the stop request of %s: %s", self._run.path, message_of(error))
            stop = None
        if stop is not None:  # has priority: a job that is to stop must not be continued
            is_cancelled = stop.kind == "cancelled"
            return ShutdownReason(StopRequested, "Cancelled" if is_cancelled else f"Stopped on request ({stop})")
        cause = "The job's time ends" if self._signal is None else f"Received {self._signal.name}"
        return ShutdownReason(Preempted, cause, advice) if is_preempted else None

    def _is_time_over(self, now: float) -> bool:
        """Whether the longest gap between two checks so far (a batch with its publishing) exceeds the time left."""
        if self._last_check:
            self._longest_gap_s = max(self._longest_gap_s, now - self._last_check)
        self._last_check = now
        return self._deadline is not None and self._deadline - now <= self._longest_gap_s

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)


def _process_age_s() -> float:
    """Seconds since this process was started, imports included; 0 where that is unknown."""
    started = process_started(os.getpid())
    if started is None:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK"))
