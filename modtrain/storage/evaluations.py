"""Evaluations of a run: the lines of `evaluation/metrics.jsonl`, with their one parser, and which worker makes one."""

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
from modtrain.storage.layout import CLAIM_FILE, CLAIMS
from modtrain.storage.manifest import holds, read_json
from modtrain.storage.process_identity import ProcessIdentity

VALID = "valid"
"""Before the name of a metric, as in `valid.psnr`: it was measured on the validation data."""
TEST = "test"
"""What early stopping measures on where there is no validation data; the metric has its own name then."""


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
    data: str = VALID
    """What was measured for early stopping: `valid`, or `test`."""

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


def claim_evaluation(folder: Path, epoch: int, worker: str) -> bool:
    """Claim an epoch for this process to evaluate: True in at most one of all workers. Raises OSError.

    `folder` is the run's `evaluation/`. A claim appears by one rename, and holds while its process may be running. One
    of the same `worker` is of an earlier process of it, which resumes at the epoch that it was evaluating: so the claim
    of a process on another machine, of which it cannot be known whether it runs, lasts until its worker is resumed.
    """
    claims, names = folder / CLAIMS, filesystem.names(folder / CLAIMS)
    earlier = sorted(int(name[9:]) for name in names if name.startswith(f"{epoch:08d}-") and name[9:].isdecimal())
    if earlier and _is_held(claims / _claim_name(epoch, earlier[-1]) / CLAIM_FILE, worker):
        return False
    own = claims / _claim_name(epoch, earlier[-1] + 1 if earlier else 0)
    content = json.dumps({"worker": worker, **vars(ProcessIdentity.current())}).encode()
    filesystem.make_folder(claims)
    try:
        filesystem.publish_folder(claims, own.name, {CLAIM_FILE: content})
    except OSError as error:
        if not holds(own / CLAIM_FILE, content):  # else it reported an error, but succeeded
            if isinstance(error, FileExistsError):
                return False
            raise
    for name in names:
        if name[:8].isdecimal() and int(name[:8]) < epoch:
            filesystem.retire_folder(claims / name)
    return True


def _claim_name(epoch: int, number: int) -> str:
    """Of several claims of an epoch the one with the highest number counts."""
    return f"{epoch:08d}-{number}"


def _is_held(path: Path, worker: str) -> bool:
    """Whether a claim is of another worker, whose process may be running; so also one that is being removed."""
    try:
        claim = read_json(path)
    except InputError:  # damaged
        return False
    return claim.get("worker") != worker and ProcessIdentity.parse(claim).is_running() is not False


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
        data=text(line.get("data")) or VALID,
    )


def read_evaluations(path: Path) -> list[EvaluationRecord]:
    """Every evaluation in a file, oldest first; OSError where storage does not give it."""
    return [record for line in read_json_lines(path) if (record := parse_evaluation(line)) is not None]


def follow_evaluations(path: Path) -> JsonLines[list[EvaluationRecord]]:
    """The evaluations in a file that grows; a repeated evaluation of the same versions replaces the one before."""
    return JsonLines(path, list[EvaluationRecord], _add)


def follow_scores(path: Path) -> JsonLines[list[EvaluationRecord]]:
    """The scores of samples in a file that grows; what was measured again replaces the record before."""
    return JsonLines(path, list[EvaluationRecord], _add_scores)


class EvaluationSummary:
    """The newest evaluation and the range of each metric, without keeping all of them."""

    def __init__(self) -> None:
        self.newest: EvaluationRecord | None = None
        self.ranges: dict[str, tuple[float, float]] = {}
        """Lowest and highest value of each metric over all evaluations."""
        self.measured: set[str] = set()
        """The names of all metrics, also of those that were never finite."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the file."""
        self.newest = (record := parse_evaluation(line)) or self.newest
        for name, value in record.metrics.items() if record else ():
            self.measured.add(name)
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


def _add_scores(records: list[EvaluationRecord], line: Mapping[str, Any]) -> None:
    if record := parse_evaluation(line):
        of = record.versions, record.metrics.keys()
        records[:] = [each for each in records if (each.versions, each.metrics.keys()) != of]
        records.append(record)
