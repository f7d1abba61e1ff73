"""The history of a run: its curves, versions, evaluations and worker events, read as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.history import FIRST, LAST, History, RecentHistory
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.sweeps.trial import values_by_epoch
from tests.support import runs

TOGETHER = [["generator", "discriminator"]]


def append(path: Path, *lines: object) -> None:
    with path.open("ab") as file:
        for line in lines:
            file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


def point(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "epoch": step / 10, "lr": 0.1, "at": 1.0 + step, "loss": float(step), **more}


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    for module in run.modules:
        run.module_path(module).mkdir(parents=True)
    return run


def test_what_a_restart_trained_again_replaces_the_rows_before(run: Run) -> None:
    path = run.metrics_path("generator")
    append(path, point(20), point(40), point(60))
    history = History(run)
    assert history.refresh()
    append(path, point(40, loss=7.0), {"step": "60"}, {"nothing": 1}, {**point(50), "at": None})
    assert history.refresh()
    assert points(history) == [(20, 20.0), (40, 7.0)]
    assert len(history.curve("discriminator")) == 0
    assert not history.refresh()


def points(history: History) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in history.curve("generator").rows()]


def test_a_worker_that_resumes_from_a_step_takes_back_the_rows_behind_it(run: Run) -> None:
    path = run.metrics_path("generator")
    append(path, point(20), point(40), point(60))
    history = History(run)
    history.refresh()
    append(path, {"goes_on_from": 20, "at": 0.0})
    assert history.refresh()
    assert points(history) == [(20, 20.0)]
    append(path, point(50))
    history.refresh()
    again = History(run)
    again.refresh()
    assert points(history) == points(again) == [(20, 20.0), (50, 50.0)]


def test_the_list_of_runs_judges_the_same_losses_as_the_page_of_one(run: Run) -> None:
    path = run.metrics_path("generator")
    history = History(run)
    for begin, end in ((0, 25), (25, 200), (200, 350), (350, 2_000)):
        append(path, *(point(step) for step in range(begin, end)))
        history.refresh()
        assert RecentHistory(run).losses("generator") == history.losses("generator"), (begin, end)
    assert len(history.losses("generator")) == FIRST + LAST
    assert RecentHistory(run).scores("generator") == history.scores("generator") == []
    scores = {"accuracy": 0.75, "real_score": 1.5, "fake_score": -0.5}
    append(path, *(point(step, **scores) for step in range(2_000, 2_010)))
    history.refresh()
    assert RecentHistory(run).scores("generator") == history.scores("generator") == [(0.75, 2.0)] * 10
    for back, beyond in ((1_900, 1_950), (900, 1_300), (10, 12)):
        append(path, {"goes_on_from": back}, *(point(step, loss=7.0) for step in range(back + 1, beyond)))
        history.refresh()
        assert RecentHistory(run).losses("generator") == history.losses("generator"), (back, beyond)


def test_a_run_s_history_is_one_table_of_curves_and_evaluations(run: Run) -> None:
    append(run.metrics_path("generator"), point(20, seconds={"compute": 1.5}))
    run.evaluation_path.mkdir()
    epochs = {"generator": 2, "discriminator": 2}
    append(run.evaluations_path, {"at": 9.0, "versions": epochs, "epochs": epochs, "metrics": {"mean": 0.5}})
    curve, evaluation = run.history()
    assert curve == {"module": "generator", "seconds_compute": 1.5, **point(20)}
    assert (evaluation["module"], evaluation["epoch"], evaluation["mean"]) == ("evaluation", 2, 0.5)
    assert {"module", "step", "epoch", "at", "lr"} <= evaluation.keys()


def test_versions_are_in_their_order_each_once_without_foreign_lines(run: Run) -> None:
    store = CheckpointStore(run.module_path("generator"))
    publisher = Publisher(store, "worker")
    peers = {"discriminator": {"versions": [3], "epoch": 1}}
    for version in range(3):
        publisher.publish({"weights.safetensors": b"x"}, epoch=version, step=version, peers=peers)
    path = run.published_path("generator")
    lines = path.read_bytes().splitlines(keepends=True)
    foreign = [b'{"version": 7}\n', json.dumps({**json.loads(lines[0]), "peers": {"x": 1}}).encode() + b"\n"]
    path.write_bytes(lines[0] + lines[2] + lines[1] + lines[2] + b"".join(foreign))
    history = History(run)
    assert history.refresh()
    versions = history.versions("generator")
    assert [(each.version, each.epoch, each.peers) for each in versions] == [(v, v, peers) for v in range(3)]


def test_of_two_evaluations_of_an_epoch_the_first_counts_and_of_the_same_versions_the_last(run: Run) -> None:
    run.evaluation_path.mkdir()

    def evaluation(version: int, other: int, mean: float) -> dict[str, Any]:
        epochs = {"generator": version, "discriminator": other}
        return {"at": 1.0, "versions": epochs, "epochs": epochs, "metrics": {"mean": mean}}

    lines = evaluation(4, 4, 0.8), evaluation(5, 4, 0.5), evaluation(5, 5, 0.6), evaluation(5, 5, 0.7)
    append(run.evaluations_path, *lines)
    assert values_by_epoch(run, "mean") == {4: 0.8, 5: 0.6}
    history = History(run)
    history.refresh()
    assert [record.metrics["mean"] for record in history.evaluations()] == [0.8, 0.5, 0.7]


def test_worker_events_are_read_without_foreign_lines(run: Run) -> None:
    append(run.workers_path("generator"), {"what": "began", "at": 1.0}, {"what": 1, "at": 1.0})
    history = History(run)
    assert history.refresh()
    assert history.events("generator") == [{"what": "began", "at": 1.0}]
