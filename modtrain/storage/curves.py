"""Columns: a training curve as numbers of eight bytes, however long it is; each line of `metrics.jsonl` is a row."""

from __future__ import annotations

import bisect
import math
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from modtrain.storage.json_lines import Line, number

POSITION = ("step", "epoch", "at", "lr")
"""Fields of a line of `metrics.jsonl` beside its scalars."""


class Columns:
    """A curve of one module; NaN where a line had no such number."""

    def __init__(self) -> None:
        self.position: dict[str, array[float]] = {name: array("d") for name in POSITION}
        self.scalars: dict[str, array[float]] = {}
        self.seconds: dict[str, array[float]] = {}
        """Seconds that the worker spent since the row before, by activity."""

    def __len__(self) -> int:
        return len(self.position["step"])

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a row, in place of all from its step on; a line without step, epoch and time is left out.

        A line with `goes_on_from` is not a row: training was resumed from that step, and later rows no longer count.
        """
        if "step" not in line:
            self._cut(number(line.get("goes_on_from")), bisect.bisect_right)
        elif None not in [number(line.get(name)) for name in ("step", "epoch", "at")]:
            self._cut(line["step"], bisect.bisect_left)
            self._append(
                self.position, {name: value for name in POSITION if (value := number(line.get(name))) is not None}
            )
            self._append(self.scalars, scalars(line))
            self._append(self.seconds, seconds(line))

    def rows(self) -> Iterator[Line]:
        """Every row: position, scalars, and `seconds_compute` and so on; what it lacks is left out."""
        spent = {f"seconds_{kind}": column for kind, column in self.seconds.items()}
        for row in range(len(self)):
            place = {name: _plain(name, column[row]) for name, column in self.position.items()}
            more = {**self.scalars, **spent}
            yield place | {name: column[row] for name, column in more.items() if not math.isnan(column[row])}

    def losses(self, begin: int, end: int) -> list[float]:
        """The losses of the rows in this range, without those at which the learning rate was 0."""
        loss, rate = self.scalars.get("loss", array("d")), self.position["lr"]
        rows = range(max(0, begin), min(end, len(loss)))
        return [loss[row] for row in rows if rate[row] != 0 and not math.isnan(loss[row])]

    def _all(self) -> list[array[float]]:
        return [*self.position.values(), *self.scalars.values(), *self.seconds.values()]

    def _cut(self, step: float | None, place: Any) -> None:
        if step is not None:
            length = place(self.position["step"], step)
            for column in self._all():
                del column[length:]

    def _append(self, columns: dict[str, array[float]], values: Mapping[str, float]) -> None:
        """Append one value a column; the position comes first, since it defines the length."""
        before = len(self) - (columns is not self.position)
        for name in values:
            if name not in columns:
                columns[name] = array("d", [math.nan]) * before
        for name, column in columns.items():
            column.append(values.get(name, math.nan))


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite scalars of a line of `metrics.jsonl`."""
    return {n: float(v) for n, value in line.items() if n not in POSITION and (v := number(value)) is not None}


def seconds(line: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that the worker spent since the line before, by activity."""
    spent = line.get("seconds")
    items = spent.items() if isinstance(spent, dict) else ()
    return {kind: float(s) for kind, value in items if (s := number(value)) is not None}


def _plain(name: str, value: float) -> float | int | None:
    """As in the line: a step is a whole number."""
    if math.isnan(value):
        return None
    return int(value) if name == "step" and value.is_integer() else value
