"""Evaluations of a run: the lines of `evaluation/metrics.jsonl`, with the one parser for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.json_lines import JsonLines, integer, number, read_json_lines, text
from modtrain.storage.manifest import read_json

VALID = "valid"
"""Before the name of a metric, as in `valid.psnr`: it was measured on the validation data."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation: which versions were evaluated, and what was measured."""

    versions: Mapping[str, int]
    epochs: Mapping[str, int]
    """Epochs completed, by module."""
    metrics: Mapping[str, float | None]
    """None where a value was not finite."""
    grid: str | None
    at: float | None
    """Unix time by the evaluator's clock."""

    @property
    def epoch(self) -> int:
        """Epochs completed by the module that is furthest behind; 0 where the line does not say."""
        return min(self.epochs.values(), default=0)


@dataclass(frozen=True, kw_only=True)
class EvaluationFailure:
    """Why the last evaluation of a run failed."""

    says: str
    exit_code: int


def write_failure(path: Path, failure: EvaluationFailure | None) -> None:
    """Record that the evaluation failed; None removes the record, since it has succeeded."""
    if failure is None:
        path.unlink(missing_ok=True)
        return
    filesystem.make_folder(path.parent)
    filesystem.replace_file(path, json.dumps(asdict(failure)).encode())


def read_failure(path: Path) -> EvaluationFailure | None:
    """Why the last evaluation failed; None where it did not, or the file does not say."""
    try:
        values = read_json(path)
    except InputError:
        return None
    says, code = text(values.get("says")), integer(values.get("exit_code"))
    return EvaluationFailure(says=says, exit_code=code if code and 0 < code < 256 else 1) if says else None


def parse_evaluation(line: Mapping[str, Any]) -> EvaluationRecord | None:
    """The record of a JSON line; None for a foreign one."""
    versions, epochs, metrics = line.get("versions"), line.get("epochs"), line.get("metrics")
    if not (isinstance(versions, dict) and isinstance(epochs, dict) and isinstance(metrics, dict)):
        return None
    if any(integer(value) is None for value in versions.values()):
        return None
    return EvaluationRecord(
        versions=versions,
        epochs={name: epoch for name, value in epochs.items() if (epoch := integer(value)) is not None},
        metrics={name: number(value) for name, value in metrics.items()},
        grid=text(line.get("grid")),
        at=number(line.get("at")),
    )


def read_evaluations(path: Path) -> list[EvaluationRecord]:
    """Every evaluation in a file, oldest first; OSError where storage does not give it."""
    return [record for line in read_json_lines(path) if (record := parse_evaluation(line)) is not None]


def follow_evaluations(path: Path) -> JsonLines[list[EvaluationRecord]]:
    """The evaluations in a file that grows; a repeated evaluation of the same versions replaces the one before."""
    return JsonLines(path, list[EvaluationRecord], _add)


class EvaluationSummary:
    """The newest evaluation and the range of each metric, without keeping all of them."""

    def __init__(self) -> None:
        self.newest: EvaluationRecord | None = None
        self.ranges: dict[str, tuple[float, float]] = {}
        """Lowest and highest value of each metric over all evaluations."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the file."""
        self.newest = (record := parse_evaluation(line)) or self.newest
        for name, value in record.metrics.items() if record else ():
            if value is not None:
                low, high = self.ranges.get(name, (value, value))
                self.ranges[name] = min(low, value), max(high, value)


def metric_by_epoch(records: list[EvaluationRecord], metric: str) -> dict[int, float]:
    """A metric by epoch, of several evaluations of one epoch the first; NaN where it was not finite."""
    values: dict[int, float] = {}
    for record in records:
        if record.epoch > 0 and metric in record.metrics:
            value = record.metrics[metric]
            values.setdefault(record.epoch, math.nan if value is None else value)
    return values


def _add(records: list[EvaluationRecord], line: Mapping[str, Any]) -> None:
    if record := parse_evaluation(line):
        if records and (records[-1].versions, records[-1].grid) == (record.versions, record.grid):
            records.pop()
        records.append(record)
