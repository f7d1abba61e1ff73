"""Columns: a training curve as numbers, eight bytes each, as long as it may be: one line of `metrics.jsonl` is a row.

Steps ascend: who goes on from an earlier step takes back what lies behind it. Deliberately not here: reading the file
(`history.py`), and what the numbers mean (`alarms.py`).
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from modtrain.storage.json_lines import number

POSITION = ("step", "epoch", "at", "lr")
"""What stands in a line of `metrics.jsonl` beside its scalars."""

Line = dict[str, Any]


class Columns:
    """A curve of one module; NaN where a line had no such number."""

    def __init__(self) -> None:
        self.position: dict[str, array[float]] = {name: array("d") for name in POSITION}
        self.scalars: dict[str, array[float]] = {}
        self.seconds: dict[str, array[float]] = {}
        """What the worker's seconds went into since the row before."""

    def __len__(self) -> int:
        return len(self.position["step"])

    def add(self, line: Mapping[str, Any]) -> None:
        """One more row, in the place of all from its step on; what lacks a place in the curve is left out.

        A line that says from where training goes on is no row: it takes back what lies behind it.
        """
        if "step" not in line:
            self._cut(number(line.get("goes_on_from")), bisect.bisect_right)
        elif None not in [number(line.get(name)) for name in ("step", "epoch", "at")]:
            self._cut(line["step"], bisect.bisect_left)
            self._put(
                self.position, {name: value for name in POSITION if (value := number(line.get(name))) is not None}
            )
            self._put(self.scalars, scalars(line))
            self._put(self.seconds, seconds(line))

    def rows(self) -> Iterator[Line]:
        """Every row with what it has: position, scalars, and `seconds_compute` and so on."""
        spent = {f"seconds_{kind}": column for kind, column in self.seconds.items()}
        for row in range(len(self)):
            place = {name: _plain(name, column[row]) for name, column in self.position.items()}
            more = {**self.scalars, **spent}
            yield place | {name: column[row] for name, column in more.items() if not math.isnan(column[row])}

    def losses(self, begin: int, end: int) -> list[float]:
        """Of the rows in this range at which the module was trained: a learning rate of 0 moves nothing."""
        loss, rate = self.scalars.get("loss", array("d")), self.position["lr"]
        rows = range(max(0, begin), min(end, len(loss)))
        return [loss[row] for row in rows if rate[row] != 0 and not math.isnan(loss[row])]

    def keep_last(self, rows: int) -> None:
        """Forget all before the last so many."""
        for column in self._all() if len(self) > rows else ():
            del column[:-rows]

    def _all(self) -> list[array[float]]:
        return [*self.position.values(), *self.scalars.values(), *self.seconds.values()]

    def _cut(self, step: float | None, place: Any) -> None:
        if step is not None:
            length = place(self.position["step"], step)
            for column in self._all():
                del column[length:]

    def _put(self, columns: dict[str, array[float]], values: Mapping[str, float]) -> None:
        """The position is put first: its length is that of all."""
        length = len(self) if columns is not self.position else len(self) + 1
        if values.keys() == columns.keys():
            for name, column in columns.items():
                column.append(values[name])
            return
        for name in dict.fromkeys([*columns, *values]):
            column = columns.setdefault(name, array("d"))
            column.extend([math.nan] * (length - 1 - len(column)))
            column.append(values.get(name, math.nan))


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite scalars of a line of `metrics.jsonl`."""
    return {n: float(v) for n, value in line.items() if n not in POSITION and (v := number(value)) is not None}


def seconds(line: Mapping[str, Any]) -> dict[str, float]:
    """What the worker's seconds went into since the line before; empty in lines of old runs."""
    spent = line.get("seconds")
    found = spent.items() if isinstance(spent, dict) else ()
    return {kind: float(s) for kind, value in found if (s := number(value)) is not None}


def _plain(name: str, value: float) -> float | int | None:
    """As the line had it: a step is a whole number."""
    if math.isnan(value):
        return None
    return int(value) if name == "step" and value.is_integer() else value
