"""PhaseTimer: seconds of a worker by phase: compute, data, waiting for peers, exchange with the shared folder.

It only reads a clock and never waits for the device. What the device still computes when a loss is read counts as
compute, since that is where the worker waits for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

T = TypeVar("T")
Phase = Literal["compute", "data", "waiting", "exchange"]
PHASES: tuple[Phase, ...] = ("compute", "data", "waiting", "exchange")


class PhaseTimer:
    """Attributes every second to one phase: to compute unless another one is entered."""

    def __init__(self) -> None:
        """Start timing."""
        self._phase: Phase = "compute"
        self._since = time.monotonic()
        self._seconds = dict.fromkeys(PHASES, 0.0)

    def enter(self, phase: Phase) -> None:
        """Begin a phase; it lasts until the next `enter`, or to the end of the surrounding `during`."""
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """A phase for the body of a `with`; afterwards the phase before it continues."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def fetching(self, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time until each arrives counts as `data`."""
        source = iter(values)
        while True:
            with self.during("data"):
                try:
                    value = next(source)
                except StopIteration:
                    return
            yield value

    def lap(self) -> dict[Phase, float]:
        """Seconds by phase since the previous lap."""
        self.enter(self._phase)
        lap, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return {phase: round(seconds, 4) for phase, seconds in lap.items()}
