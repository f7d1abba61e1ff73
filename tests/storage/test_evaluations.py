"""The evaluations of a run, as `modtrain evaluate` writes them and as foreign lines may look."""

from __future__ import annotations

import json
import math
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest

from modtrain.storage.evaluations import (
    EvaluationSummary,
    claim_evaluation,
    follow_evaluations,
    metric_by_epoch,
    parse_evaluation,
    read_evaluations,
)
from modtrain.storage.json_lines import JsonLines
from modtrain.storage.layout import CLAIM_FILE, CLAIMS
from modtrain.storage.process_identity import ProcessIdentity


def line(generator: int, discriminator: int, **more: Any) -> dict[str, Any]:
    epochs = {"generator": generator, "discriminator": discriminator}
    return {"at": 5.0, "versions": epochs, "epochs": epochs, "metrics": {"mean": 0.5}, **more}


def test_an_evaluation_counts_for_the_epoch_of_the_module_that_is_furthest_behind() -> None:
    record = parse_evaluation(line(5, 3, grid="grids/5.png"))
    assert record is not None
    assert (record.epoch, record.metrics, record.grid, record.at) == (3, {"mean": 0.5}, "grids/5.png", 5.0)


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"metrics": {"mean": 1}},
        {**line(1, 1), "versions": {"generator": [1]}},
        {**line(1, 1), "epochs": 3},
        {**line(1, 1), "metrics": [0.5]},
    ],
)
def test_a_foreign_line_is_no_evaluation(foreign: dict[str, Any]) -> None:
    assert parse_evaluation(foreign) is None


def test_fields_of_a_wrong_type_are_left_out() -> None:
    record = parse_evaluation(line(1, 1, grid=7, at="now", metrics={"mean": "abc", "std": True, "huge": 10**400}))
    assert record is not None
    assert (record.grid, record.at, record.metrics) == (None, None, {"mean": None, "std": None, "huge": None})


def test_a_repeated_evaluation_of_the_same_versions_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [line(1, 1), line(1, 1, metrics={"mean": 0.9}), line(2, 1), line(1, 1)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    evaluations = follow_evaluations(path)
    evaluations.refresh()
    assert [(each.versions["generator"], each.metrics["mean"]) for each in evaluations.content] == [
        (1, 0.9),
        (2, 0.5),
        (1, 0.5),
    ]
    assert len(read_evaluations(path)) == 4


def test_of_several_evaluations_of_an_epoch_the_first_counts_for_pruning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [line(0, 0), line(1, 1), line(1, 1, metrics={"mean": 0.9}), line(2, 2, metrics={"mean": None})]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    values = metric_by_epoch(read_evaluations(path), "mean")
    assert (values[1], math.isnan(values[2]), values.keys()) == (0.5, True, {1, 2})


def test_the_range_of_a_metric_follows_the_file_also_where_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path, EvaluationSummary, EvaluationSummary.add)
    assert not lines.refresh() or lines.content.newest is None
    for value in (0.5, 0.9, None, 0.2):
        with path.open("a") as file:
            file.write(json.dumps(line(1, 1, metrics={"mean": value})) + "\n")
        assert lines.refresh()
    assert lines.content.ranges == {"mean": (0.2, 0.9)}
    assert lines.content.newest is not None
    assert lines.content.newest.metrics == {"mean": 0.2}
    other = tmp_path / "other"
    other.write_text(json.dumps(line(3, 3, metrics={"mean": 7.0})) + "\n")
    other.rename(path)
    assert lines.refresh()
    assert lines.content.ranges == {"mean": (7.0, 7.0)}


def test_of_several_workers_one_evaluates_an_epoch_and_later_ones_are_free(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    assert [claim_evaluation(folder, 3, worker) for worker in ("a", "b", "c")] == [True, False, False]
    assert [claim_evaluation(folder, 5, worker) for worker in ("b", "a")] == [True, False]
    assert [path.name for path in (folder / CLAIMS).iterdir()] == ["00000005-0"], "those of earlier epochs are removed"


def test_the_claim_of_a_process_that_has_ended_or_of_an_earlier_one_of_the_worker_is_replaced(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=claim_evaluation, args=(tmp_path, 3, "a"))
    child.start()
    child.join()
    assert [claim_evaluation(tmp_path, 3, worker) for worker in ("b", "c", "b")] == [True, False, True]
    assert sorted(path.name for path in (tmp_path / CLAIMS).iterdir()) == ["00000003-0", "00000003-1", "00000003-2"]


@pytest.mark.parametrize(
    ("host", "worker", "may"), [("elsewhere", "a", True), ("elsewhere", "b", False), ("", "b", True)]
)
def test_the_claim_of_a_process_elsewhere_lasts_until_its_worker_is_resumed(
    tmp_path: Path, host: str, worker: str, may: bool
) -> None:
    path = tmp_path / CLAIMS / "00000003-0" / CLAIM_FILE
    path.parent.mkdir(parents=True)
    identity = ProcessIdentity(host or socket.gethostname(), 1, 1)
    path.write_text(json.dumps({"worker": "a", **vars(identity)}))
    assert claim_evaluation(tmp_path, 3, worker) is may


def test_a_damaged_claim_is_none(tmp_path: Path) -> None:
    path = tmp_path / CLAIMS / "00000003-0" / CLAIM_FILE
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert claim_evaluation(tmp_path, 3, "b")
