"""History: everything that a run's folder records over time: curves, versions, worker events and evaluations.

Only what is new is read at each refresh. Torn and foreign lines are left out.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.curves import Columns
from modtrain.storage.evaluations import EvaluationRecord, follow_evaluations
from modtrain.storage.filesystem import opened
from modtrain.storage.json_lines import GrowingFile, JsonLines, Line, json_objects, number, parsed_lines, start_of_last
from modtrain.storage.published_log import follow_published

FIRST, LAST = 30, 300
"""Rows at both ends of a curve that alarms judge: where it began, and ten windows of an alarm."""
RECENT_VERSIONS = 50
HEAD_BYTES = 1 << 16
"""How much of a curve's beginning is read for its first rows."""


class RunFiles(Protocol):
    """Where the files of a run lie, as `Run` has it."""

    @property
    def modules(self) -> list[str]: ...
    def metrics_path(self, module: str) -> Path: ...
    def published_path(self, module: str) -> Path: ...
    def workers_path(self, module: str) -> Path: ...
    @property
    def evaluations_path(self) -> Path: ...


class History:
    """The complete history of a run as of the last `refresh`. Its lists are read-only."""

    def __init__(self, run: RunFiles) -> None:
        """Nothing is read yet."""
        self._run = run
        self._curves = {module: _Curve(run.metrics_path(module)) for module in run.modules}
        self._versions = {module: follow_published(run.published_path(module)) for module in run.modules}
        self._events = {module: JsonLines(run.workers_path(module), _parse_event) for module in run.modules}
        self._evaluations = follow_evaluations(run.evaluations_path)

    def refresh(self) -> bool:
        """Read what is new; whether there was anything."""
        files: list[_Curve | JsonLines[Any]] = [*self._curves.values(), *self._versions.values()]
        files += [*self._events.values(), self._evaluations]
        return True in [file.refresh() for file in files]

    def curve(self, module: str) -> Columns:
        """The rows of `metrics.jsonl`, steps ascending, without those that a restart trained again."""
        return self._curves[module].columns

    def losses(self, module: str) -> list[float]:
        """The first losses of a curve and the newest, for alarms."""
        curve = self.curve(module)
        return curve.losses(0, min(FIRST, len(curve) - LAST)) + curve.losses(len(curve) - LAST, len(curve))

    def versions(self, module: str) -> Sequence[Checkpoint]:
        """Every version ever published, ascending."""
        return self._versions[module].values

    def events(self, module: str) -> Sequence[Line]:
        """The lines of `workers.jsonl`: when workers started, waited and exited."""
        return self._events[module].values

    def evaluations(self) -> Sequence[EvaluationRecord]:
        """Every evaluation, oldest first."""
        return self._evaluations.values

    def evaluation_rows(self) -> Iterator[Line]:
        """One row an evaluation: step and epoch of the oldest checkpoint evaluated, the time, the metrics."""
        steps = {module: {v.version: v.step for v in self.versions(module)} for module in self._run.modules}
        for record in self.evaluations():
            evaluated = [steps.get(module, {}).get(version) for module, version in record.versions.items()]
            position = {
                "step": min((step for step in evaluated if step is not None), default=None),
                "epoch": min(record.epochs.values(), default=None),
                "at": record.at,
            }
            yield position | {name: value for name, value in record.metrics.items() if value is not None}

    def rows(self) -> Iterator[Line]:
        """Everything measured, as rows of one wide table: the curves module by module, then the evaluations.

        Each row has `module`, `step`, `epoch`, `at` (Unix time) and `lr`, its scalars, and `seconds_compute` and so on.
        The module of an evaluation is `evaluation`.
        """
        for module in self._run.modules:
            yield from ({"module": module, **row} for row in self.curve(module).rows())
        yield from ({"module": "evaluation", "lr": None, **row} for row in self.evaluation_rows())


class RecentHistory:
    """Both ends of the curves and the newest versions of a run: what alarms need, in bounded memory."""

    def __init__(self, run: RunFiles) -> None:
        """Nothing is read yet."""
        self._curves = {module: _CurveEnds(run.metrics_path(module)) for module in run.modules}
        self._versions = {m: follow_published(run.published_path(m), last=RECENT_VERSIONS) for m in run.modules}

    def refresh(self) -> None:
        """Read what is new."""
        for curve in self._curves.values():
            curve.refresh()
        for versions in self._versions.values():
            versions.refresh()

    def losses(self, module: str) -> list[float]:
        """As `History.losses`."""
        return self._curves[module].losses()

    def versions(self, module: str) -> Sequence[Checkpoint]:
        """The newest versions, ascending."""
        return self._versions[module].values


class _Curve:
    """A training curve, of which only the numbers stay in memory."""

    def __init__(self, path: Path) -> None:
        self.columns = Columns()
        self._file = GrowingFile(path)

    def refresh(self) -> bool:
        changed, replaced = self._file.refresh()
        if replaced:
            self.columns = Columns()
        for line in parsed_lines(self._file, _any) if changed else ():
            self.columns.add(line)
        return changed


class _CurveEnds:
    """The first rows of a curve, and the last ones."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, GrowingFile(path, last=LAST)
        self._head, self._tail = Columns(), Columns()

    def refresh(self) -> None:
        changed, replaced = self._file.refresh()
        if replaced:
            self._head, self._tail = Columns(), Columns()
        if changed and len(self._head) < FIRST:
            self._head = _read_head(self._path)
        if changed and self._read():
            self._read_further()
        self._tail.keep_last(LAST)

    def _read(self) -> bool:
        """Read what is new; whether some of it took back earlier rows."""
        rows, taken_back = len(self._tail), False
        for line in parsed_lines(self._file, _any):
            self._tail.add(line)
            taken_back |= len(self._tail) <= rows
            rows = len(self._tail)
        return taken_back

    def _read_further(self) -> None:
        """Go back until enough rows are left, beyond the rows that no longer count."""
        last = LAST
        while len(self._tail) < LAST and start_of_last(self._path, last):
            last *= 4
            self._file, self._tail = GrowingFile(self._path, last=last), Columns()
            self._file.refresh()
            self._read()

    def losses(self) -> list[float]:
        steps = self._tail.position["step"]
        before = bisect.bisect_left(self._head.position["step"], steps[0]) if steps else len(self._head)
        return self._head.losses(0, min(FIRST, before)) + self._tail.losses(0, len(self._tail))


def _read_head(path: Path) -> Columns:
    columns = Columns()
    try:
        with opened(path) as descriptor:
            lines = os.pread(descriptor, HEAD_BYTES, 0).split(b"\n")[:-1]
    except OSError:
        return columns
    for line in json_objects(lines):
        columns.add(line)
    return columns


def _any(line: Line) -> Line:
    return line


def _parse_event(line: Line) -> Line | None:
    return line if isinstance(line.get("what"), str) and number(line.get("at")) is not None else None
