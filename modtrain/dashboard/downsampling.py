"""A curve of any length as at most so many points, with its extremes: what the eye would see of it.

Deliberately not here: smoothing, which the page does, of means: smoothed extremes would lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 1_000

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def kept(values: Sequence[float], most: int = MOST) -> list[int]:
    """The indices of the points that stay: the first, the last, and of each stretch the lowest and the highest."""
    count = len(values)
    if count <= most:
        return list(range(count))
    stretches = (most - 2) // 2
    found = {0, count - 1}
    for number in range(stretches):
        stretch = range(number * count // stretches, (number + 1) * count // stretches)
        found |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return sorted(found)


class Stretches:
    """So many points in stretches of equal length, a power of two, so that only the last one changes as points come."""

    def __init__(self, count: int, most: int = MOST) -> None:
        self.width = 1
        while self.width * most < count:
            self.width *= 2
        self._starts = np.arange(0, count, self.width)
        self._sizes = np.diff(self._starts, append=count)

    def means(self, values: Numbers) -> Numbers:
        """Of each stretch."""
        return np.add.reduceat(values, self._starts) / self._sizes

    def extremes(self, values: Numbers) -> tuple[Numbers, Numbers]:
        """The lowest and the highest of each stretch."""
        return np.minimum.reduceat(values, self._starts), np.maximum.reduceat(values, self._starts)
