"""Evaluations of a run: the lines of `evaluation/metrics.jsonl`, with the one parser for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.storage.json_lines import GrowingFile, JsonLines, integer, number, parsed_lines, read_json_lines, text


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation: which versions were evaluated, and what was measured."""

    versions: Mapping[str, int]
    epochs: Mapping[str, int]
    """Epochs completed, by module."""
    metrics: Mapping[str, float | None]
    """None where a value was not finite."""
    grid: str | None
    """Path of the sample grid."""
    at: float | None
    """Unix time by the evaluator's clock."""

    @property
    def epoch(self) -> int:
        """Epochs completed by the module that is furthest behind; 0 where the line does not say."""
        return min(self.epochs.values(), default=0)


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
    """Every evaluation in a file, oldest first."""
    return read_json_lines(path, parse_evaluation)


def follow_evaluations(path: Path) -> JsonLines[EvaluationRecord]:
    """The evaluations in a file that grows; a repeated evaluation of the same versions replaces the one before."""
    return JsonLines(path, parse_evaluation, _insert)


class EvaluationSummary:
    """The newest evaluation and the range of each metric, without keeping all of them."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self.newest: EvaluationRecord | None = None
        self.ranges: dict[str, tuple[float, float]] = {}
        """Lowest and highest value of each metric over all evaluations."""
        self._file = GrowingFile(path)

    def refresh(self) -> bool:
        """Read what is new; whether there was anything."""
        changed, replaced = self._file.refresh()
        if replaced:
            self.newest, self.ranges = None, {}
        for record in parsed_lines(self._file, parse_evaluation) if changed else ():
            self.newest = record
            for name, value in record.metrics.items():
                if value is not None:
                    low, high = self.ranges.get(name, (value, value))
                    self.ranges[name] = min(low, value), max(high, value)
        return changed


def metric_by_epoch(records: list[EvaluationRecord], metric: str) -> dict[int, float]:
    """A metric by epoch, of several evaluations of one epoch the first; NaN where it was not finite."""
    values: dict[int, float] = {}
    for record in records:
        if record.epoch > 0 and metric in record.metrics:
            value = record.metrics[metric]
            values.setdefault(record.epoch, math.nan if value is None else value)
    return values


def _insert(records: list[EvaluationRecord], record: EvaluationRecord) -> None:
    if records and (records[-1].versions, records[-1].grid) == (record.versions, record.grid):
        records.pop()
    records.append(record)
