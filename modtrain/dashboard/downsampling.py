"""Downsampling: a curve of any length as at most so many points, with its extremes.

The page smooths the means, not the extremes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 1_000

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def kept(values: Sequence[float], most: int = MOST) -> list[int]:
    """The indices of the points that stay: the first, the last, and of each stretch the lowest and the highest.

    The length of a stretch is a power of two, so that the earlier points stay the same as a curve grows.
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    indices, width = {0, count - 1}, Stretches(count, most // 2 - 1).width
    for begin in range(0, count, width):
        stretch = range(begin, min(begin + width, count))
        indices |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return sorted(indices)


class Stretches:
    """Points in stretches of equal length, a power of two, so that only the last one changes as points are added."""

    def __init__(self, count: int, most: int = MOST) -> None:
        self.width: int = 1 << max(0, -(-int(count) // most) - 1).bit_length()
        self._starts = np.arange(0, count, self.width)
        self._sizes = np.diff(self._starts, append=count)

    def means(self, values: Numbers) -> Numbers:
        """Of each stretch."""
        return np.add.reduceat(values, self._starts) / self._sizes

    def extremes(self, values: Numbers) -> tuple[Numbers, Numbers]:
        """The lowest and the highest of each stretch."""
        return np.minimum.reduceat(values, self._starts), np.maximum.reduceat(values, self._starts)

    def percentiles(self, values: Numbers, shares: Sequence[float]) -> Numbers:
        """The percentiles of each stretch, a row for each of these shares in percent."""
        whole = len(values) - len(values) % self.width
        rows = np.percentile(values[:whole].reshape(-1, self.width), shares, axis=1)
        rest = [np.percentile(values[whole:], shares)[:, None]] if whole < len(values) else []
        return np.concatenate([rows, *rest], axis=1)
