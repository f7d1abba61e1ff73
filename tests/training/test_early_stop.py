"""A run ends once its validation no longer gets better, at the same epoch also after kills, and apart as well."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modtrain.dashboard.page_data import Source
from modtrain.errors import InputError
from modtrain.monitoring.status import build_status
from modtrain.scheduling import standalone_worker
from modtrain.scheduling.config import Config, read_config
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.early_stop import EarlyStop
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.sweeps.sweep import Sweep, new_sweep
from modtrain.training import evaluation_points
from modtrain.training.evaluation import final_evaluation
from modtrain.training.inference.model import load
from modtrain.training.pins import Pins
from modtrain.training.recipe_check.check import check_recipe
from tests.support.command import typed
from tests.support.peaked import peaked_recipe
from tests.support.runs import finish, make_run, start_worker, weights_of
from tests.support.three import recipe_of_three

JOINT = [["generator", "discriminator"]]
STOPS = {"params": {"batches": 1}, "epochs": 30, "early_stop": "score,window=3,patience=2"}


@pytest.fixture(scope="module")
def peaked(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """The tiny recipe with a score that is highest after epoch 3 on validation data, after epoch 20 on test data."""
    return peaked_recipe(tmp_path_factory.mktemp("peaked") / "peaked.py", tiny_recipe)


def ends(run: Run) -> dict[str, tuple[int, bool]]:
    """Epoch of the newest version of each module, and whether it is final."""
    newest = {module: run.store(module).latest() for module in run.modules}
    return {module: (checkpoint.epoch, checkpoint.final) for module, checkpoint in newest.items() if checkpoint}


def test_it_stops_where_the_mean_has_not_become_better_on_the_validation_data(tmp_path: Path, peaked: Path) -> None:
    run = make_run(tmp_path / "run", peaked, JOINT, **STOPS)
    finish(run)
    assert ends(run) == dict.fromkeys(run.modules, (6, True))
    assert [record.epoch for record in read_evaluations(run.validations_path)] == list(range(1, 7))
    outcome = run.early_stop_outcome()
    assert outcome is not None
    assert outcome.best is not None
    assert (outcome.best.epoch, outcome.stopped_at) == (4, 6)
    status = build_status(read_snapshot(run))
    assert (status["state"], status["progress"]) == ("finished", 1.0)
    assert status["early_stop"]["says"] == (
        "Stopped early at epoch 6: no better mean for 2 epochs. Best at epoch 4, by the mean of score over 3 epochs "
        "(9.3333); the best single epoch is 3 (10)."
    )
    versions = run.store("generator").versions()
    finish(run)
    assert run.store("generator").versions() == versions, "it is finished"
    with pytest.raises(InputError, match="has stopped early, at epoch 6"):
        plan_run(find_target(Config(root=str(tmp_path), name="run", epochs=60), named_by_folder=True))


def kill(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["evaluate", "_ends_early"])
def test_a_run_that_is_killed_anywhere_stops_at_the_same_epoch_with_the_same_weights(
    where: str, tmp_path: Path, peaked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each validation, and after each one before it is acted upon."""
    whole, killed = (make_run(tmp_path / name, peaked, JOINT, **STOPS) for name in ("whole", "killed"))
    finish(whole)
    subject = evaluation_points if where == "evaluate" else evaluation_points.EvaluationPoints
    real, kills = getattr(subject, where), set[int]()

    def killing(*arguments: object, **more: object) -> object:
        epoch = run_epoch(killed)
        if epoch not in kills:
            kills.add(epoch)
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(subject, where, killing)
    while not killed.is_finished(killed.modules):
        with contextlib.suppress(KeyboardInterrupt):
            finish(killed)
    assert len(kills) >= 6
    assert ends(killed) == ends(whole)
    assert weights_of(killed) == weights_of(whole)
    first, second = (read_evaluations(run.validations_path) for run in (whole, killed))
    assert [record.metrics for record in first] == [record.metrics for record in second]


def run_epoch(run: Run) -> int:
    return min(epoch for epoch, _ in ends(run).values())


def test_apart_the_others_leave_as_well_and_a_stage_before_the_last_one_does_not_count(
    tmp_path: Path, peaked: Path
) -> None:
    recipe = recipe_of_three(tmp_path / "of_three.py", peaked)
    with recipe.open("a") as file:
        file.write(
            "\nfrom modtrain.recipes.base import Stage\n"
            "stages = (Stage(name='a', epochs=5, trains=('third',)), Stage(name='b', epochs=25))\n"
            "recipe = dataclasses.replace(recipe, stages=lambda params: stages, epochs=30)\n"
        )
    run = make_run(tmp_path / "run", recipe, [["generator", "discriminator"], ["third"]], **STOPS)
    workers = [start_worker(run, modules) for modules in ("generator,discriminator", "third")]
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert all(final for _, final in ends(run).values())
    outcome = run.early_stop_outcome()
    assert outcome is not None
    stopped_at = outcome.stopped_at
    assert stopped_at is not None
    assert read_evaluations(run.validations_path)[0].epoch == 6
    assert max(epoch for epoch, _ in ends(run).values()) >= stopped_at


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 5}, "A run of 5 epochs cannot stop early: that takes a window of 3 epochs and a patience of 2"),
        ({"early_stop": {"metric": "score", "windo": 3}}, "early_stop = .* is not allowed"),
        ({"early_stop": "score,windo=3"}, "Did you mean 'window'"),
    ],
)
def test_what_can_never_stop_or_is_no_rule_is_refused(
    options: dict[str, object], says: str, tmp_path: Path, peaked: Path
) -> None:
    with pytest.raises(InputError, match=says):
        make_run(tmp_path / "run", peaked, JOINT, **{**STOPS, **options})


def test_a_metric_that_is_not_measured_is_refused_by_the_check_of_a_launch(tmp_path: Path, peaked: Path) -> None:
    result = typed("launch", "--recipe", peaked, "--root", tmp_path, "--early-stop", "scor,window=1,patience=1")
    assert result.code == 2
    assert "early_stop names 'scor', which `evaluate` does not measure; it has score, mean. Did you mean" in result.err


def test_the_best_versions_survive_and_are_evaluated_applied_and_loaded_as_best(
    tmp_path: Path, peaked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Publisher.__init__.__kwdefaults__, "grace_s", 0.0)
    run = make_run(tmp_path / "run", peaked, JOINT, **STOPS)
    finish(run)
    store = run.store("generator")
    assert [store.meta(version).epoch for version in store.versions()] == [3, 4, 5, 6, 6]
    assert json.loads((run.module_path("generator") / "pins.json").read_text()) == {
        "3": "best single epoch",
        "4": "best",
    }
    assert {checkpoint.epoch for checkpoint in load(run, best=True).checkpoints.values()} == {4}
    judged = json.loads(typed("evaluate", run.path, "--best", "--json", "--device", "cpu").out)
    assert (judged["epochs"], judged["metrics"]["score"]) == ({"generator": 4, "discriminator": 4}, 10 - abs(20 - 4))
    final = final_evaluation(run)
    assert final is not None
    assert final.epoch == 4, "early stopping gives the best versions"


def test_pins_are_the_best_and_what_these_and_last_ones_were_trained_against(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator"], ["discriminator"]])
    publishers = {module: Publisher(run.store(module), "test", keep=1, grace_s=0) for module in run.modules}
    for version in range(6):
        names = {"discriminator": {"versions": [version, version - 1], "epoch": 0, "step": 0}} if version else {}
        publishers["generator"].publish({}, epoch=version, step=version, peers=names, final=version == 5)
    evaluation = {"versions": {"generator": 2, "discriminator": 3}, "epochs": {}, "metrics": {"mean": 1.0}}
    run.evaluation_path.mkdir()
    run.evaluations_path.write_text(json.dumps(evaluation) + "\n")
    learner = SimpleNamespace(name="discriminator", publisher=publishers["discriminator"])
    for version in range(9):
        Pins(run, [learner]).update()
        publishers["discriminator"].publish({}, epoch=version, step=version)
    assert run.store("discriminator").versions() == [3, 4, 5, 8]
    assert Publisher(run.store("discriminator"), "next").pins == {
        3: "best",
        4: "the last generator, 5, was trained against it",
        5: "the last generator, 5, was trained against it",
    }


def test_every_view_has_the_validations_and_what_they_decided(tmp_path: Path, peaked: Path) -> None:
    run = make_run(tmp_path / "run", peaked, JOINT, **STOPS, evaluate_every=2)
    finish(run)
    rows = [row for row in run.history() if row["module"] == "evaluation"]
    assert [(row["epoch"], row["score"]) for row in rows if "score" in row] == [(2, -8.0), (4, -6.0), (6, -4.0)]
    validated = {row["epoch"]: row["valid.score"] for row in rows if "valid.score" in row}
    assert validated == {epoch: 10.0 - abs(3 - epoch) for epoch in range(1, 7)}
    page = Source(tmp_path).run("run")
    assert page["run"]["early_stop"]["says"].startswith("Stopped early at epoch 6: ")
    curves = {curve["name"]: curve["value"] for curve in page["curves"] if curve["module"] == "evaluation"}
    assert (curves["score"], curves["valid.score"]) == ([-8.0, -6.0, -4.0], list(validated.values()))
    assert "Stopped early at epoch 6: " in typed("status", run.path).out
    assert page["time"][0]["evaluation"] >= 0


def test_without_validation_data_an_epoch_is_measured_once_on_the_test_data_and_has_one_curve(
    tmp_path: Path, peaked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, measured = tmp_path / "untested.py", list[dict[str, int]]()
    recipe.write_text(peaked.read_text().replace("test=20, valid=3,", "test=3,"))
    real = evaluation_points.evaluate

    def counted(*arguments: Any, **more: Any) -> object:
        measured.append(more["version"])
        return real(*arguments, **more)

    monkeypatch.setattr(evaluation_points, "evaluate", counted)
    run = make_run(tmp_path / "run", recipe, JOINT, **STOPS, evaluate_every=2)
    finish(run)
    scores = {epoch: 10.0 - abs(3 - epoch) for epoch in range(1, 7)}
    assert len(measured) == len(scores), "epochs 2, 4 and 6 are evaluated and validated"
    validations, evaluations = map(read_evaluations, (run.validations_path, run.evaluations_path))
    assert {record.epoch: record.metrics["score"] for record in validations} == scores
    assert [record.epoch for record in evaluations] == [2, 4, 6]
    stopped = build_status(read_snapshot(run))["early_stop"]
    assert (stopped["stopped_at"], stopped["on_test"]) == (6, True)
    assert stopped["says"].endswith("All of it is of the test data: there is no validation data.")
    curves = {
        curve["name"]: curve for curve in Source(tmp_path).run("run")["curves"] if curve["module"] == "evaluation"
    }
    assert curves.keys() == {"score", "mean"}
    assert dict(zip(curves["score"]["epoch"], curves["score"]["value"], strict=True)) == scores
    assert check_recipe(run.spec, lambda findings: None).warnings == [
        "Early stopping measures on the test data: there is no validation data."
    ]


def test_a_rule_of_the_recipe_that_cannot_act_in_so_few_epochs_is_said_and_no_error(
    tmp_path: Path, peaked: Path
) -> None:
    recipe = tmp_path / "ruled.py"
    rule = "recipe = dataclasses.replace(recipe, early_stop=EarlyStop('score'))\n"
    recipe.write_text(f"import dataclasses\nfrom modtrain import EarlyStop\n{peaked.read_text()}\n\n{rule}")
    recipe.write_text(recipe.read_text().replace("from __future__ import annotations\n", ""))
    plan = plan_run(find_target(Config(recipe=str(recipe), root=str(tmp_path), epochs=100)))
    assert plan.run.spec.early_stop is not None
    assert list(plan.notes) == [
        "A run of 100 epochs cannot stop early: that takes a window of 50 epochs and a patience of 50. Train for more "
        "epochs, or shorten them, as in --early-stop score,window=5,patience=5."
    ]
    off = plan_run(find_target(Config(recipe=str(recipe), root=str(tmp_path), early_stop="none")))
    assert (off.run.spec.early_stop, list(off.notes)) == (None, [])


def test_a_sweep_gives_its_trials_the_rule(tmp_path: Path, peaked: Path) -> None:
    config = Config(recipe=str(peaked), epochs=30, early_stop=STOPS["early_stop"], params={"batches": 1})
    sweep = Sweep.create(tmp_path / "sweep", new_sweep(config, {"lr": [0.01]}, metric="score"))
    trial = sweep.begin(0)
    assert trial.spec.early_stop == EarlyStop("score", 3, 2)
    standalone_worker.train(trial, trial.modules, threads=1)
    result = sweep.trial(0)
    assert (result.state, result.result) == ("finished", 10 - abs(20 - 4)), "it is ranked by its best versions"
    assert read_config(None, sweep.spec.config).model_dump()["early_stop"]["window"] == 3
