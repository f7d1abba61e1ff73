"""PhaseTimer and PaceEstimator: where a worker's seconds go, and how fast it trains. Both only read a clock."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
PHASES = ("compute", "data", "waiting", "exchange", "evaluation")

WINDOW_S = 300.0
"""Age of the oldest measurement that counts."""
INTERVAL_S = 1.0
"""Shortest interval of which the step rate is measured, unless the epoch ends before."""
LONG_INTERVAL_S = 20.0
"""An interval of this length is long enough, whether it holds an exchange point or not."""
STEP_SAMPLES = 8
"""Intervals that are needed before the time left is known."""
BOUNDARY_SAMPLES = 3
"""Epoch boundaries that are needed before their duration counts; it is taken as 0 before."""
MOST_SAMPLES = 300


class PhaseTimer:
    """Attributes every second to one phase: to compute unless another one is entered.

    What the device still computes when a loss is read counts as compute, since that is where the worker waits for it.
    """

    def __init__(self) -> None:
        self._phase = "compute"
        self._since = time.monotonic()
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)

    def enter(self, phase: str) -> None:
        """Begin one of PHASES; it lasts until the next `enter`, or to the end of the surrounding `during`."""
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase for the body of a `with`; afterwards the phase before it continues."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def fetching(self, values: Iterable[T]) -> Iterator[T]:
        """The same values, none of which is None; the time until each arrives counts as `data`."""
        source = iter(values)
        while True:
            with self.during("data"):
                value = next(source, None)
            if value is None:
                return
            yield value

    def lap(self) -> dict[str, float]:
        """Seconds by phase since the previous lap."""
        self.enter(self._phase)
        lap = {phase: round(seconds, 4) for phase, seconds in self._seconds.items()}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return lap


class PaceEstimator:
    """Steps per second and seconds left of a worker, from medians over the last minutes.

    An epoch costs its steps and its boundary: publishing, waiting for peers, evaluating. The median of each is taken
    apart, so that a wait in every epoch counts while a single stall does not. Times (`at`) are monotonic seconds.
    """

    def __init__(self, *, interval_steps: int = 1) -> None:
        """`interval_steps`: steps between two exchange points, so that every interval holds its share of exchanges."""
        self._interval_steps = interval_steps
        self._start: tuple[float, int] | None = None
        self._epoch_end: float | None = None
        self._step_s: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        self._boundary_s: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)

    def start_epoch(self, at: float, step: int) -> None:
        """The next batch of an epoch follows, in general the first; everything since `end_epoch` was its boundary."""
        if self._epoch_end is not None:
            _add(self._boundary_s, at, at - self._epoch_end)
        self._start, self._epoch_end = (at, step), None

    def end_epoch(self, at: float, step: int) -> None:
        """The last batch of an epoch is done. Repeated calls until the next `start_epoch` change nothing."""
        self._close_interval(at, step)
        self._start, self._epoch_end = None, self._epoch_end or at

    def update(self, at: float, step: int) -> None:
        """Training is at a step inside an epoch."""
        if self._start is None:
            return
        seconds, steps = at - self._start[0], step - self._start[1]
        if seconds >= LONG_INTERVAL_S or (seconds >= INTERVAL_S and steps >= self._interval_steps):
            self._close_interval(at, step)

    def steps_per_s(self, steps_per_epoch: int) -> float | None:
        """Median pace, epoch boundaries included; None before the first measurement."""
        if not self._step_s:
            return None
        step_s = _median(self._step_s)
        if len(self._boundary_s) >= BOUNDARY_SAMPLES:
            step_s += _median(self._boundary_s) / steps_per_epoch
        return 1 / step_s if step_s > 0 else None

    def left_s(self, steps_left: int, steps_per_epoch: int) -> float | None:
        """Seconds that `steps_left` steps will take; None before there are enough measurements for a median."""
        rate = self.steps_per_s(steps_per_epoch)
        return steps_left / rate if rate and len(self._step_s) >= STEP_SAMPLES else None

    def _close_interval(self, at: float, step: int) -> None:
        if self._start is not None and step > self._start[1]:
            since, first = self._start
            _add(self._step_s, at, (at - since) / (step - first))
        self._start = at, step


def _add(samples: deque[tuple[float, float]], at: float, seconds: float) -> None:
    samples.append((at, seconds))
    while samples[0][0] < at - WINDOW_S and len(samples) > STEP_SAMPLES:
        samples.popleft()


def _median(samples: Iterable[tuple[float, float]]) -> float:
    return statistics.median(seconds for _, seconds in samples)
