"""History: everything that a run's folder records over time: curves, versions, worker events and evaluations.

Only what is new is read at each refresh. Torn and foreign lines are left out.
"""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.curves import POSITION, Columns
from modtrain.storage.evaluations import EvaluationRecord, follow_evaluations
from modtrain.storage.filesystem import opened
from modtrain.storage.json_lines import JsonLines, Line, json_objects, number, tails
from modtrain.storage.published_log import follow_published, last_published

FIRST, LAST = 30, 300
"""Rows at both ends of a curve that alarms judge: where it began, and ten windows of an alarm."""
RECENT_VERSIONS = 50
HEAD_BYTES, END_BYTES = 1 << 15, 1 << 17
"""How much of a curve is read for its first rows and, at first, for its last ones."""
_JUDGED = {*POSITION, "loss", "goes_on_from"}


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
        self._curves = {module: JsonLines(run.metrics_path(module), Columns, Columns.add) for module in run.modules}
        self._versions = {module: follow_published(run.published_path(module)) for module in run.modules}
        self._events = {module: JsonLines(run.workers_path(module), list[Line], _add_event) for module in run.modules}
        self._evaluations = follow_evaluations(run.evaluations_path)

    def refresh(self) -> bool:
        """Read what is new; whether there was anything."""
        files: list[JsonLines[Any]] = [*self._curves.values(), *self._versions.values()]
        files += [*self._events.values(), self._evaluations]
        return True in [file.refresh() for file in files]

    def curve(self, module: str) -> Columns:
        """The rows of `metrics.jsonl`, steps ascending, without those that a restart trained again."""
        return self._curves[module].content

    def losses(self, module: str) -> list[float]:
        """The first losses of a curve and the newest, for alarms."""
        curve = self.curve(module)
        return curve.losses(0, min(FIRST, len(curve) - LAST)) + curve.losses(len(curve) - LAST, len(curve))

    def versions(self, module: str) -> Sequence[Checkpoint]:
        """Every version ever published, ascending."""
        return self._versions[module].content

    def events(self, module: str) -> Sequence[Line]:
        """The lines of `workers.jsonl`: when workers started, waited and exited."""
        return self._events[module].content

    def evaluations(self) -> Sequence[EvaluationRecord]:
        """Every evaluation, oldest first."""
        return self._evaluations.content

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
    """Both ends of the curves and the newest versions of a run, which is what alarms need."""

    def __init__(self, run: RunFiles) -> None:
        """Read them."""
        self._losses = {module: _recent_losses(run.metrics_path(module)) for module in run.modules}
        self._versions = {m: last_published(run.published_path(m), RECENT_VERSIONS) for m in run.modules}

    def losses(self, module: str) -> list[float]:
        """As `History.losses`."""
        return self._losses[module]

    def versions(self, module: str) -> Sequence[Checkpoint]:
        """The newest versions, ascending."""
        return self._versions[module]


def _recent_losses(path: Path) -> list[float]:
    """As `History.losses`; rows of the end that a restart took back are made up for by reading further back."""
    end, head = Columns(), _columns(_head(path))
    for _, lines in tails(path, END_BYTES):
        end = _columns(lines)
        if len(end) >= LAST:
            break
    steps = end.position["step"][-LAST:]
    before = bisect.bisect_left(head.position["step"], steps[0]) if steps else len(head)
    return head.losses(0, min(FIRST, before)) + end.losses(len(end) - LAST, len(end))


def _head(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError), opened(path) as descriptor:
        return os.pread(descriptor, HEAD_BYTES, 0).split(b"\n")[:-1]
    return []


def _columns(lines: list[bytes]) -> Columns:
    columns = Columns()
    for line in json_objects(lines):
        columns.add({name: line[name] for name in _JUDGED & line.keys()})
    return columns


def _add_event(events: list[Line], line: Line) -> None:
    if isinstance(line.get("what"), str) and number(line.get("at")) is not None:
        events.append(line)
