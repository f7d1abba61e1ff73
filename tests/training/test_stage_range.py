"""A run ends after one of its stages and goes on later, or begins after a stage of an older run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from modtrain.errors import InputError, PeerTimeout
from modtrain.monitoring.status import build_status
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import parameters
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_plan import RunPlan, find_target, plan_run
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.sweeps import space
from tests.support.command import Terminal, typed
from tests.support.runs import finish, make_run, weights_of
from tests.support.staged import staged_recipe

TOGETHER = [["recogniser", "generator", "discriminator"]]
SMALL: dict[str, Any] = {"params": {"batches": 2}, "epochs": 6}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    return staged_recipe(tmp_path_factory.mktemp("recipe") / "staged.py", tiny_recipe)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory, staged: Path) -> Run:
    """A run of the first stage alone."""
    run = make_run(tmp_path_factory.mktemp("first") / "run", staged, TOGETHER, until_stage="recognise", **SMALL)
    finish(run)
    return run


def planned(run: Run, **values: Any) -> RunPlan:
    """The plan of the command with which the run was made, with other settings."""
    names = {"name": run.name, "root": str(run.path.parent), "recipe": run.spec.recipe}
    return plan_run(find_target(Config(**names, **{**SMALL, **values})))


def published(run: Run, module: str) -> list[tuple[int, bool]]:
    return [(each.epoch, each.final) for each in run.store(module).history()]


def test_a_run_ends_after_a_stage_and_goes_on_later_bit_identical(
    tmp_path: Path, staged: Path, first_stage: Run
) -> None:
    complete = make_run(tmp_path / "complete", staged, TOGETHER, **SMALL)
    finish(complete)
    assert first_stage.is_finished(first_stage.modules)
    assert [stage.name for stage in first_stage.spec.later_stages] == ["translate"]
    assert (first_stage.spec.epochs, first_stage.spec.planned_epochs) == (2, 6)
    run = Run.open(shutil.copytree(first_stage.path, tmp_path / "run"))
    plan = planned(run, until_stage="translate")
    assert plan.notes == ["Goes on until the end of its stage translate, epoch 6."]
    run = plan.write()
    assert [run.is_finished([module]) for module in run.modules] == [True, False, False]
    finish(run)
    assert weights_of(run) == weights_of(complete), "schedules cover the later stages from the beginning"
    assert published(run, "recogniser") == published(complete, "recogniser")
    assert [epoch for epoch, final in published(run, "generator") if final] == [0, 6]


def test_status_says_that_a_run_which_ended_after_a_stage_may_go_on_and_which_modules_it_has_not_trained(
    first_stage: Run, type_: Terminal
) -> None:
    status = json.loads(type_("status", first_stage.path, "--json").out)
    command = f"`modtrain launch {first_stage.path} --until-stage translate` goes on with translate."
    assert (status["state"], status["interruption"]) == ("finished", None)
    assert status["continuation"] == f"ended after its stage recognise; {command}"
    assert status["continuation"] in " ".join(type_("status", first_stage.path).out.split())
    states = {name: module["state"] for name, module in status["modules"].items()}
    assert states == {"recogniser": "finished", "generator": "resting", "discriminator": "resting"}


def test_a_module_that_its_schedule_never_trains_is_not_shown_as_finished(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = tmp_path / "rests.py"
    recipe.write_text(tiny_recipe.read_text().replace("1 - progress / 2", "0.0"))
    run = make_run(tmp_path / "run", recipe, [["generator", "discriminator"]], epochs=1)
    finish(run)
    status = build_status(read_snapshot(run))
    assert (status["state"], status["progress"], status["continuation"]) == ("finished", 1.0, None)
    assert {name: (module["state"], module["age_s"]) for name, module in status["modules"].items()} == {
        "generator": ("finished", None),
        "discriminator": ("resting", None),
    }


def test_the_command_that_made_a_run_until_a_stage_resumes_it(first_stage: Run) -> None:
    for values in ({"until_stage": "recognise"}, {}):
        plan = planned(first_stage, **values)
        assert (plan.notes, plan.run.spec) == ([], first_stage.spec)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"until_stage": "translat"}, "until_stage is 'recognise', not 'translat'"),
        ({"epochs": 7}, "epochs is 6, not 7"),
        ({"from_stage": "other@recognise"}, "from_stage is not set, not '/.*other@recognise'"),
    ],
)
def test_a_run_goes_on_until_its_planned_stages_only(first_stage: Run, values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        planned(first_stage, **values)


def test_a_run_begins_after_a_stage_of_another_one_with_its_weights(
    tmp_path: Path, staged: Path, first_stage: Run
) -> None:
    made = typed("launch", "--recipe", staged, "--root", tmp_path, "--from-stage", first_stage.path, "--dry-run").out
    assert "recognise: " not in made
    assert f"generator ({first_stage.path}#generator@" in "".join(made.split()).replace("generator(", "generator (")
    run = make_run(tmp_path / "run", staged, TOGETHER, from_stage=str(first_stage.path), seed=5, **SMALL)
    assert [(stage.name, stage.epochs) for stage in run.spec.stages] == [("translate", 4)]
    assert run.spec.from_stage is not None
    assert (run.spec.from_stage.epochs, run.spec.planned_epochs) == (2, 6)
    finish(run)
    assert published(run, "recogniser") == [(0, True)]
    begun, ended = run.store("recogniser"), first_stage.store("recogniser")
    first, last = (safetensors.torch.load(store.read(store.newest()[0], WEIGHTS)) for store in (begun, ended))
    assert all(torch.equal(first[name], last[name]) for name in last)
    named = dataclasses.replace(run, spec=run.spec)
    plan = planned(named, from_stage=str(first_stage.path), seed=5)
    assert plan.notes == [], "the same command resumes it"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("@translate", "run has not completed the stage translate; see `modtrain status"),
        (
            "@translat",
            "older@translat: there is no such stage; there are recognise, translate. Did you mean 'translate'",
        ),
        ("@a@b", "give a run and one of its stages, as RUN@STAGE"),
    ],
)
def test_a_stage_that_another_run_has_not_completed_is_refused(
    tmp_path: Path, staged: Path, first_stage: Run, reference: str, says: str
) -> None:
    path = shutil.copytree(first_stage.path, tmp_path / "older")
    run = planned(Run.open(path), until_stage="translate").write()  # it may go on, but has not
    with pytest.raises(InputError, match=says.replace("run has", "older has")):
        make_run(tmp_path / "run", staged, TOGETHER, from_stage=f"{run.path}{reference}", **SMALL)


def test_a_run_of_other_modules_has_no_weights_to_begin_with(tmp_path: Path, staged: Path, first_stage: Run) -> None:
    other = tmp_path / "other.py"
    other.write_text(staged.read_text().replace("recogniser", "classifier"))
    says = "that run trains recogniser, but the recipe has classifier, generator, discriminator; give a run with"
    modules = [["classifier", "generator", "discriminator"]]
    with pytest.raises(InputError, match=says):
        make_run(tmp_path / "run", other, modules, from_stage=f"{first_stage.path}@recognise", **SMALL)


def test_a_run_of_other_stages_or_none_is_refused_by_their_names(
    tmp_path: Path, staged: Path, first_stage: Run, tiny_recipe: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(staged.read_text().replace("recognise", "learn").replace("learnr", "recogniser"))
    says = "has completed the stage recognise, but the recipe has learn, translate; give a run with the same stages"
    with pytest.raises(InputError, match=says):
        make_run(tmp_path / "run", other, TOGETHER, from_stage=str(first_stage.path), **SMALL)
    without = make_run(tmp_path / "without", tiny_recipe, [["generator", "discriminator"]], **SMALL)
    with pytest.raises(InputError, match="that run has no stages; give one with those of the recipe"):
        make_run(tmp_path / "run", staged, TOGETHER, from_stage=str(without.path), **SMALL)


def test_a_stage_that_is_left_for_later_is_not_completed(tmp_path: Path, staged: Path, first_stage: Run) -> None:
    with pytest.raises(InputError, match="run has not completed the stage translate; see"):
        make_run(tmp_path / "run", staged, TOGETHER, from_stage=f"{first_stage.path}@translate", **SMALL)


def test_a_worker_that_enters_a_stage_waits_for_all_others_and_says_for_which_stage(
    tmp_path: Path, staged: Path
) -> None:
    apart = [["recogniser"], ["generator", "discriminator"]]
    run = make_run(tmp_path / "run", staged, apart, peer_timeout_s=0.05, max_staleness="none", **SMALL)
    with pytest.raises(PeerTimeout, match="for recogniser to publish epoch 0"):
        finish(run, "generator", "discriminator")
    work_until_first_epoch(run)
    with pytest.raises(PeerTimeout, match="to publish epoch 2 of the stage recognise; it is at 1"):
        finish(run, "generator", "discriminator")


def work_until_first_epoch(run: Run) -> None:
    """The recogniser's first epoch, as if its worker had been killed then."""
    finish(run, "recogniser")
    for checkpoint in run.store("recogniser").newest(where=lambda each: each.epoch > 1):
        filesystem.retire_folder(run.store("recogniser").folder(checkpoint.version))


def test_stages_are_named_only_where_the_recipe_has_them(tmp_path: Path, staged: Path, tiny_recipe: Path) -> None:
    with pytest.raises(InputError, match="--until-stage fade: the recipe has no stages; leave it out"):
        make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], until_stage="fade")
    with pytest.raises(InputError, match="--until-stage fade: there is no such stage; there are recognise, translate"):
        make_run(tmp_path / "run", staged, TOGETHER, until_stage="fade", **SMALL)


def test_a_parameter_of_one_stage_is_set_by_its_name_and_the_same_command_resumes_the_run(
    tmp_path: Path, staged: Path
) -> None:
    of_stages = {"params": {"batches": 2, "stages": {"translate": {"lr": 0.5}, "recognise": {"batches": 1}}}}
    run = make_run(tmp_path / "run", staged, TOGETHER, **{**SMALL, **of_stages})
    assert {stage.name: stage.params for stage in run.spec.stages} == {
        "recognise": {"lr": 0.1, "batches": 1},
        "translate": {"lr": 0.5},
    }
    assert "stages" not in run.spec.params
    words = ("launch", "--recipe", staged, "--root", tmp_path, "--set", "stages.translate.lr=0.5", "--dry-run")
    assert "translate: 2 epochs, trains generator, discriminator; lr 0.5" in typed(*words).out
    finish(run)
    assert published(run, "recogniser")[-1] == (2, True)
    rates = {row["lr"] for row in run.history() if row["module"] == "generator"}
    assert rates == {0.5}, "the loss of the tiny generator has no schedule"
    assert planned(run, **of_stages).notes == []
    with pytest.raises(InputError, match=r"stages\.translate\.lr is 0\.5, not 0\.25"):
        planned(run, params={"batches": 2, "stages": {"translate": {"lr": 0.25}}})


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ({"translat": {"lr": 0.5}}, "There is no stage 'translat'; name one of recognise, translate. Did you mean"),
        ({"translate": {"l": 0.5}}, "There is no parameter 'l'"),
        ({"translate": 3}, "it has parameters by the name of a stage, as in stages.fade.lr=1e-4"),
    ],
)
def test_a_parameter_of_a_stage_that_does_not_exist_is_refused(
    tmp_path: Path, staged: Path, stages: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        make_run(tmp_path / "run", staged, TOGETHER, params={"stages": stages}, epochs=6)


def test_a_sweep_varies_a_parameter_of_a_stage(tmp_path: Path, staged: Path) -> None:
    names = [parameter.name for parameter in parameters(load_recipe(str(staged)).params)]
    assert space.resolve(["stages.translate.lr", "lr"], names) == {
        "stages.translate.lr": ("stages.translate.lr",),
        "lr": ("lr",),
    }
    with pytest.raises(InputError, match=r"There is no parameter 'stages\.translate\.x' to vary"):
        space.resolve(["stages.translate.x"], names)
    planned_sweep = typed(
        "sweep", "--recipe", staged, "--root", tmp_path, "--name", "s", "--epochs", 6, "--no-check",
        "--vary", "stages.translate.lr=0.1,0.2", "--dry-run",
    ).out  # fmt: skip
    assert "stages.translate.lr" in planned_sweep
