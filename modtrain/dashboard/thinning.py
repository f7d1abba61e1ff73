"""A curve of any length as at most so many points, with its extremes: what the eye would see of it.

Deliberately not here: smoothing, which the page does.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST = 1_000


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
