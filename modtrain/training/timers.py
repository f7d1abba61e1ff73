"""Stopwatch: what a worker's seconds went into: compute, data, waiting for peers, exchange with the shared folder.

It only reads a clock: the device is never stopped for it. What the device still computes when a loss is read counts as
compute, since that is where the worker waits for it. Deliberately not here: where the seconds are written (`curve.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

T = TypeVar("T")
Kind = Literal["compute", "data", "waiting", "exchange"]
KINDS: tuple[Kind, ...] = ("compute", "data", "waiting", "exchange")


class Stopwatch:
    """Every second counts as one kind: as compute where nothing else is said."""

    def __init__(self) -> None:
        """It runs from now on."""
        self._kind: Kind = "compute"
        self._since = time.monotonic()
        self._seconds = dict.fromkeys(KINDS, 0.0)

    def turn(self, kind: Kind) -> None:
        """What follows is of this kind: until the next turn, or to the end of the `during` around it."""
        now = time.monotonic()
        self._seconds[self._kind] += now - self._since
        self._kind, self._since = kind, now

    @contextlib.contextmanager
    def during(self, kind: Kind) -> Iterator[None]:
        """What happens inside is of this kind; afterwards it is again as before."""
        before = self._kind
        self.turn(kind)
        try:
            yield
        finally:
            self.turn(before)

    def fetching(self, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time that each takes to come is `data`."""
        source = iter(values)
        while True:
            with self.during("data"):
                try:
                    value = next(source)
                except StopIteration:
                    return
            yield value

    def lap(self) -> dict[Kind, float]:
        """The seconds since the lap before, by kind."""
        self.turn(self._kind)
        lap, self._seconds = self._seconds, dict.fromkeys(KINDS, 0.0)
        return {kind: round(seconds, 4) for kind, seconds in lap.items()}
