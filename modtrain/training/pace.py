"""PaceEstimator: steps per second and seconds left of a worker, from medians over the last minutes.

An epoch costs its steps and its boundary: publishing, waiting for peers, evaluating. The median of each is taken apart,
so that a wait in every epoch counts while a single stall does not.
"""

from __future__ import annotations

import statistics
from collections import deque

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


class PaceEstimator:
    """Fed with (time, step) pairs; times are monotonic seconds, always given by the caller."""

    def __init__(self, *, interval_steps: int = 1) -> None:
        """`interval_steps`: steps between two exchange points, so that every interval holds its share of exchanges."""
        self._interval_steps = interval_steps
        self._start: tuple[float, int] | None = None
        self._epoch_end: float | None = None
        self._step_s: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)
        self._boundary_s: deque[tuple[float, float]] = deque(maxlen=MOST_SAMPLES)

    def start_epoch(self, at: float, step: int) -> None:
        """The first batch of an epoch follows; everything since `end_epoch` was its boundary."""
        if self._epoch_end is not None:
            self._add(self._boundary_s, at, at - self._epoch_end)
        self._start, self._epoch_end = (at, step), None

    def end_epoch(self, at: float, step: int) -> None:
        """The last batch of an epoch is done. Repeated calls until the next `start_epoch` change nothing."""
        self._close_interval(at, step)
        self._start = None
        if self._epoch_end is None:
            self._epoch_end = at

    def update(self, at: float, step: int) -> None:
        """Training is at a step inside an epoch."""
        if self._start is None:
            return
        since, first = self._start
        seconds, steps = at - since, step - first
        if seconds >= LONG_INTERVAL_S or (seconds >= INTERVAL_S and steps >= self._interval_steps):
            self._close_interval(at, step)

    def restart(self, at: float, step: int) -> None:
        """Forget all measurements: from this step, inside an epoch, a step computes something else."""
        self._step_s.clear()
        self._boundary_s.clear()
        self._start, self._epoch_end = (at, step), None

    def steps_per_s(self, steps_per_epoch: int) -> float | None:
        """Median pace, epoch boundaries included; None before the first measurement."""
        if not self._step_s:
            return None
        step_s = statistics.median(seconds for _, seconds in self._step_s)
        if len(self._boundary_s) >= BOUNDARY_SAMPLES:
            step_s += statistics.median(seconds for _, seconds in self._boundary_s) / steps_per_epoch
        return 1 / step_s if step_s > 0 else None

    def left_s(self, steps_left: int, steps_per_epoch: int) -> float | None:
        """Seconds that `steps_left` steps will take; None before there are enough measurements for a median."""
        rate = self.steps_per_s(steps_per_epoch)
        return steps_left / rate if rate and len(self._step_s) >= STEP_SAMPLES else None

    def _close_interval(self, at: float, step: int) -> None:
        if self._start is not None and step > self._start[1]:
            since, first = self._start
            self._add(self._step_s, at, (at - since) / (step - first))
        self._start = at, step

    @staticmethod
    def _add(samples: deque[tuple[float, float]], at: float, seconds: float) -> None:
        samples.append((at, seconds))
        while samples[0][0] < at - WINDOW_S and len(samples) > STEP_SAMPLES:
            samples.popleft()
