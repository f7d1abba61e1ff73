"""A run is evaluated while it trains, each time with the versions of one epoch; training goes on as without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modtrain.monitoring.status import build_status
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.training import evaluation_points
from modtrain.training.evaluation import evaluate
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from tests.support.runs import finish, make_run, weights_of
from tests.support.three import recipe_of_three

JOINT = [["generator", "discriminator"]]


def measured(run: Run) -> dict[int, float | None]:
    return {record.epoch: record.metrics["mean"] for record in read_evaluations(run.evaluations_path)}


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (8, 1), (24, 2), (26, 3), (3000, 300)])
def test_by_default_a_run_has_some_ten_evaluations(epochs: int, every: int, tiny_recipe: Path) -> None:
    config = Config(recipe=str(tiny_recipe), epochs=epochs)
    assert new_spec(config, load_recipe(str(tiny_recipe)), JOINT).evaluate_every == every


def test_the_numbers_are_those_of_modtrain_evaluate_and_no_weight_changes(tmp_path: Path, tiny_recipe: Path) -> None:
    values = {"params": {"batches": 2}, "epochs": 5}
    never, often = (make_run(tmp_path / str(n), tiny_recipe, JOINT, evaluate_every=n, **values) for n in (0, 2))
    finish(never)
    finish(often)
    assert weights_of(often) == weights_of(never)
    assert not never.evaluations_path.exists()
    records = read_evaluations(often.evaluations_path)
    assert [dict(record.epochs) for record in records] == [{"generator": n, "discriminator": n} for n in (2, 4)]
    assert evaluate(often, version=records[1].versions)["metrics"] == records[1].metrics


def test_the_worker_that_completes_an_epoch_last_evaluates_it_however_far_another_one_is_ahead(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Publisher.__init__.__kwdefaults__, "grace_s", 0.0)
    recipe = recipe_of_three(tmp_path / "of_three.py", tiny_recipe)
    values = {"params": {"batches": 1}, "epochs": 12, "evaluate_every": 3}
    run = make_run(tmp_path / "run", recipe, [["third"], ["generator", "discriminator"]], **values)
    finish(run, "third")
    store = run.store("third")
    assert [store.meta(version).epoch for version in store.versions()] == [3, 6, 9, 10, 11, 12]
    assert measured(run) == {}
    finish(run, "generator", "discriminator")
    assert list(measured(run)) == [3, 6, 9]
    assert [set(record.epochs.values()) for record in read_evaluations(run.evaluations_path)] == [{3}, {6}, {9}]
    generator = run.store("generator")
    values = measured(run)
    best = max(values, key=lambda epoch: values[epoch] or 0.0)
    assert [generator.meta(version).epoch for version in generator.versions()] == [best, 10, 11, 12]


def test_of_two_workers_that_complete_an_epoch_at_the_same_moment_one_evaluates_it(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"params": {"batches": 1}, "epochs": 2, "evaluate_every": 1}
    recipe = recipe_of_three(tmp_path / "of_three.py", tiny_recipe)
    run = make_run(tmp_path / "run", recipe, [["third"], *JOINT], **values)
    finish(run, "third")
    at_once = []

    def evaluate_while_another_worker_is_there(run: Run, **options: Any) -> dict[str, Any]:
        if not at_once:
            at_once.append(
                other := Worker(run, ["third"], Heartbeat([]), Shutdown(run), WorkerEvents(run, []), device="cpu")
            )
            assert not other.evaluations.after_epoch(1)
        return evaluate(run, **options)

    monkeypatch.setattr(evaluation_points, "evaluate", evaluate_while_another_worker_is_there)
    finish(run, *JOINT[0])
    assert at_once
    assert [record.epoch for record in read_evaluations(run.evaluations_path)] == [1]


def test_versions_are_listed_only_where_an_evaluation_is_due(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr(CheckpointStore, "latest", lambda store: listed.append(store.module))
    run = make_run(tmp_path / "run", tiny_recipe, JOINT, params={"batches": 1}, epochs=3, evaluate_every=9)
    worker = Worker(run, run.modules, Heartbeat([]), Shutdown(run), WorkerEvents(run, []), device="cpu")
    assert not worker.evaluations.after_epoch(1)
    assert listed == []


def kill(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_an_evaluation_that_a_kill_interrupted_is_done_by_the_worker_that_resumes(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = (
        make_run(tmp_path / name, tiny_recipe, JOINT, epochs=4, evaluate_every=1) for name in ("whole", "killed")
    )
    finish(whole)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation_points, "evaluate", kill)
        with pytest.raises(KeyboardInterrupt):
            finish(killed)
    finish(killed)
    assert measured(killed) == measured(whole)
    assert weights_of(killed) == weights_of(whole)


def test_what_fails_is_said_and_stops_no_training(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(tiny_recipe.read_text().replace("return Evaluation(", "1 / 0; return Evaluation("))
    run = make_run(tmp_path / "run", recipe, JOINT, epochs=3, evaluate_every=1)
    finish(run)
    assert run.is_finished(run.modules)
    failure = build_status(read_snapshot(run))["evaluation_failure"]
    assert "ZeroDivisionError" in failure["says"]


STAGED = """
import dataclasses, importlib.util, sys
from modtrain.recipes.base import Stage
spec = importlib.util.spec_from_file_location("of_three", {recipe!r})
three = sys.modules["of_three"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(three)
stages = (
    Stage(name="first", epochs=3, trains=("third",)),
    Stage(name="then", epochs=4, trains=("generator", "discriminator")),
)
recipe = dataclasses.replace(three.recipe, stages=lambda params: stages, epochs=7)
"""


def test_a_module_that_rests_takes_part_with_the_version_that_it_has(tmp_path: Path, tiny_recipe: Path) -> None:
    (tmp_path / "staged.py").write_text(
        STAGED.format(recipe=str(recipe_of_three(tmp_path / "of_three.py", tiny_recipe)))
    )
    groups = {"third": ["third"], "generator": ["generator", "discriminator"]}
    values = {"params": {"batches": 1}, "epochs": 7, "evaluate_every": 2}
    run = make_run(tmp_path / "run", tmp_path / "staged.py", list(groups.values()), **values)
    for modules in groups.values():
        finish(run, *modules)
    records = read_evaluations(run.evaluations_path)
    assert [record.epoch for record in records] == [2, 4, 6]
    store = run.store("third")
    assert [store.meta(record.versions["third"]).epoch for record in records[1:]] == [3, 3]
    rows = [row for row in run.history() if row["module"] == "evaluation"]
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 2), (4, 4), (6, 6)]
