"""History: curves, versions, worker events and evaluations of a run, without torn and foreign lines."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from modtrain.storage.checkpoint import Checkpoint, follow_published, last_published
from modtrain.storage.evaluations import (
    TEST,
    VALID,
    EvaluationRecord,
    follow_evaluations,
    follow_scores,
    parse_evaluation,
)
from modtrain.storage.filesystem import opened
from modtrain.storage.json_lines import JsonLines, Line, json_objects, number, tails

POSITION = ("step", "epoch", "at", "lr")
"""Fields of a line of `metrics.jsonl` beside its scalars."""
FIRST, LAST = 30, 300
"""Rows at both ends of a curve that alarms judge: where it began, and ten windows of an alarm."""
RECENT_VERSIONS = 50
HEAD_BYTES, END_BYTES = 1 << 14, 1 << 16
"""How much of a curve is read for its first rows and, at first, for its last ones."""
SCORES = ("accuracy", "real_score", "fake_score")
"""Scalars of a discriminator's curve that alarms judge beside its loss."""
_JUDGED = {*POSITION, *SCORES, "loss", "goes_on_from"}


class Score(NamedTuple):
    """How a discriminator does, at one row of its curve."""

    accuracy: float
    """Share of pairs of a real and a fake sample of which the real one scores higher."""
    gap: float
    """By how much it does, on average."""


class Stage(Protocol):
    """A stage, as `RunSpec` has it."""

    @property
    def name(self) -> str: ...


class RunStages(Protocol):
    """The stages of a run, as `RunSpec` has them."""

    @property
    def stages(self) -> Sequence[Stage]: ...
    def stage_at(self, epoch: int) -> Stage: ...


class RunFiles(Protocol):
    """Where the files of a run lie, as `Run` has it."""

    @property
    def spec(self) -> RunStages: ...
    @property
    def modules(self) -> list[str]: ...
    def metrics_path(self, module: str) -> Path: ...
    def published_path(self, module: str) -> Path: ...
    def workers_path(self, module: str) -> Path: ...
    @property
    def evaluations_path(self) -> Path: ...
    @property
    def validations_path(self) -> Path: ...
    @property
    def scores_path(self) -> Path: ...


class History:
    """The complete history of a run as of the last `refresh`. Its lists are read-only."""

    def __init__(self, run: RunFiles) -> None:
        self._run = run
        self._curves = {module: JsonLines(run.metrics_path(module), Columns, Columns.add) for module in run.modules}
        self._versions = {module: follow_published(run.published_path(module)) for module in run.modules}
        self._events = {module: JsonLines(run.workers_path(module), list[Line], _add_event) for module in run.modules}
        self._evaluations = follow_evaluations(run.evaluations_path)
        self._validations = follow_evaluations(run.validations_path)
        self._scores = follow_scores(run.scores_path)

    def refresh(self) -> bool:
        """Read what is new; whether there was anything."""
        files: list[JsonLines[Any]] = [*self._curves.values(), *self._versions.values(), *self._events.values()]
        return True in [file.refresh() for file in (*files, self._evaluations, self._validations, self._scores)]

    def curve(self, module: str) -> Columns:
        """The rows of `metrics.jsonl`, steps ascending, without those that a restart trained again."""
        return self._curves[module].content

    def losses(self, module: str) -> list[float]:
        """The first losses of a curve and the newest, for alarms."""
        curve = self.curve(module)
        return curve.losses(0, min(FIRST, len(curve) - LAST)) + curve.losses(len(curve) - LAST, len(curve))

    def scores(self, module: str) -> list[Score]:
        """The newest scores of a discriminator, none where its loss returns none."""
        curve = self.curve(module)
        return curve.scores(len(curve) - LAST, len(curve))

    def versions(self, module: str) -> Sequence[Checkpoint]:
        """Every version ever published, ascending."""
        return self._versions[module].content

    def events(self, module: str) -> Sequence[Line]:
        """The lines of `workers.jsonl`: when workers started, waited and exited."""
        return self._events[module].content

    def is_resting(self, module: str) -> bool:
        """Whether the newest learning rate of the module is 0."""
        rates = self.curve(module).position["lr"]
        return bool(rates) and rates[-1] == 0

    def evaluations(self) -> Sequence[EvaluationRecord]:
        return self._evaluations.content

    def evaluation_rows(self) -> Iterator[Line]:
        """One row an evaluation: step and epoch of the oldest checkpoint evaluated, the time, the metrics.

        What was measured on the test data for early stopping is among them, by epoch.
        """
        records, shared = self.evaluations(), [each for each in self._validations.content if each.data == TEST]
        if shared:
            evaluated = {tuple(sorted(each.versions.items())) for each in records}
            more = [each for each in shared if tuple(sorted(each.versions.items())) not in evaluated]
            records = sorted([*records, *more], key=lambda record: record.epoch)
        yield from self._rows_of(records)

    def validation_rows(self) -> Iterator[Line]:
        """One row an epoch that was measured on validation data; its metrics are called `valid.psnr` and so on."""
        for row in self._rows_of([each for each in self._validations.content if each.data == VALID]):
            yield {name if name in POSITION else f"{VALID}.{name}": value for name, value in row.items()}

    def score_rows(self) -> Iterator[Line]:
        """One row for each time that samples were scored; the metrics are called `fid_orchard:10000:test` and so on."""
        yield from self._rows_of(self._scores.content)

    def _rows_of(self, records: Sequence[EvaluationRecord]) -> Iterator[Line]:
        versions = {module: {v.version: v for v in self.versions(module)} for module in self._run.modules}
        for record in records:
            evaluated = [(m, versions.get(m, {}).get(version)) for m, version in record.versions.items()]
            # A module that rests is evaluated at an epoch after that of its version.
            steps = (each.step for m, each in evaluated if each and record.epochs.get(m, each.epoch) == each.epoch)
            step = min(steps, default=None)
            position = {"step": step, "epoch": min(record.epochs.values(), default=None), "at": record.at}
            yield position | {name: value for name, value in record.metrics.items() if value is not None}

    def rows(self) -> Iterator[Line]:
        """Everything measured, as rows of one wide table: the curves module by module, then the evaluations.

        Each row has `module`, `step`, `epoch`, `at` (Unix time) and `lr`, its scalars, and `seconds_compute` and so on.
        The module of an evaluation is `evaluation`. In a run of several stages each row has its `stage` as well.
        """
        for module in self._run.modules:
            yield from ({"module": module, **self._stage(row), **row} for row in self.curve(module).rows())
        measured = itertools.chain(self.evaluation_rows(), self.validation_rows(), self.score_rows())
        yield from ({"module": "evaluation", "lr": None, **self._stage(row), **row} for row in measured)

    def _stage(self, row: Line) -> dict[str, str]:
        """The stage that trained up to a row; empty in a run without stages."""
        epoch = row["epoch"] or 0
        return {"stage": self._run.spec.stage_at(max(0, math.ceil(epoch) - 1)).name} if self._run.spec.stages else {}


class RecentHistory:
    """Both ends of the curves and the newest versions of a run, which is what alarms need."""

    def __init__(self, run: RunFiles) -> None:
        self._run = run
        self._curves = {module: _recent_curve(run.metrics_path(module)) for module in run.modules}
        self._versions: dict[str, Sequence[Checkpoint]] = {}
        """Read when one is asked for: only alarms of live workers need them."""

    def losses(self, module: str) -> list[float]:
        return self._curves[module][0]

    def scores(self, module: str) -> list[Score]:
        return self._curves[module][1]

    def evaluations(self) -> list[EvaluationRecord]:
        """The newest ones."""
        _, lines = next(iter(tails(self._run.evaluations_path, END_BYTES)), (0, list[bytes]()))
        return [record for line in json_objects(lines) if (record := parse_evaluation(line))]

    def versions(self, module: str) -> Sequence[Checkpoint]:
        if module not in self._versions:
            self._versions[module] = last_published(self._run.published_path(module), RECENT_VERSIONS)
        return self._versions[module]


def _recent_curve(path: Path) -> tuple[list[float], list[Score]]:
    """As `History.losses` and `History.scores`.

    Rows of the end that a restart took back are made up for by reading further back.
    """
    end, head = Columns(), _columns(_head(path))
    for _, lines in tails(path, END_BYTES):
        end = _columns(lines)
        if len(end) >= LAST:
            break
    steps = end.position["step"][-LAST:]
    before = bisect.bisect_left(head.position["step"], steps[0]) if steps else len(head)
    newest = len(end) - LAST, len(end)
    return head.losses(0, min(FIRST, before)) + end.losses(*newest), end.scores(*newest)


def _head(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError), opened(path) as file:
        return file.read(HEAD_BYTES).split(b"\n")[:-1]
    return []


def _columns(lines: list[bytes]) -> Columns:
    columns = Columns()
    for line in json_objects(lines):
        columns.add({name: line[name] for name in _JUDGED & line.keys()})
    return columns


def _add_event(events: list[Line], line: Line) -> None:
    if isinstance(line.get("what"), str) and number(line.get("at")) is not None:
        events.append(line)


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
            self._append(self.seconds, scalars(line.get("seconds")))

    def rows(self) -> Iterator[Line]:
        """Every row: position, scalars, and `seconds_compute` and so on; what it lacks is left out."""
        spent = {f"seconds_{kind}": column for kind, column in self.seconds.items()}
        for row in range(len(self)):
            place = {name: _plain(name, column[row]) for name, column in self.position.items()}
            more = {**self.scalars, **spent}
            yield place | {name: column[row] for name, column in more.items() if not math.isnan(column[row])}

    def losses(self, begin: int, end: int) -> list[float]:
        """The losses of the rows in this range, without those at which the learning rate was 0."""
        return [loss for (loss,) in self._values(("loss",), begin, end)]

    def scores(self, begin: int, end: int) -> list[Score]:
        """The scores of the rows in this range, without those at which the learning rate was 0."""
        return [Score(accuracy, real - fake) for accuracy, real, fake in self._values(SCORES, begin, end)]

    def _values(self, names: Sequence[str], begin: int, end: int) -> Iterator[tuple[float, ...]]:
        columns, rate = [self.scalars.get(name, array("d")) for name in names], self.position["lr"]
        for row in range(max(0, begin), min(end, *map(len, columns))):
            values = tuple(column[row] for column in columns)
            if rate[row] != 0 and not any(map(math.isnan, values)):
                yield values

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


def scalars(line: Any) -> dict[str, float]:
    """The finite scalars of a line of `metrics.jsonl`."""
    items = line.items() if isinstance(line, dict) else ()
    return {n: float(v) for n, value in items if n not in POSITION and (v := number(value)) is not None}


def _plain(name: str, value: float) -> float | int | None:
    """As in the line: a step is a whole number."""
    if math.isnan(value):
        return None
    return int(value) if name == "step" and value.is_integer() else value
