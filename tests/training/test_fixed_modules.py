"""Modules that are never trained: each worker that reads one builds it, with weights of a file or another run."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import nn

import modtrain
from modtrain.dashboard.page_data import Source
from modtrain.errors import InputError
from modtrain.recipes.base import Module, Reads
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_plan import RunPlan, find_target, plan_run
from modtrain.scheduling.weights_reference import find_fixed_weights
from modtrain.storage import filesystem
from modtrain.training.step_costs import step_costs
from tests.support import SUPPORT
from tests.support.command import typed
from tests.support.runs import finish, start_worker

RECIPE = SUPPORT / "fixed_features.py"
Plan = Callable[..., RunPlan]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file for the features: twos, and the weights of a later layer, which the module leaves out."""
    path = tmp_path / "features.pth"
    torch.save({"weight": torch.full((2, 4), 2.0), "bias": torch.zeros(2), "later.weight": torch.ones(9, 2)}, path)
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    def plan(features: object = None, name: str = "run", **more: Any) -> RunPlan:
        params = {} if features is None else {"features": str(features)}
        settings = {"recipe": str(RECIPE), "root": str(tmp_path / "runs"), "name": name, "params": params} | more
        return plan_run(find_target(Config(**settings)))

    return plan


def test_a_fixed_network_serves_the_workers_that_read_it_and_is_neither_placed_nor_published(
    plan: Plan, weights: Path
) -> None:
    run = plan(weights).write()
    assert run.spec.placement == [["generator"], ["judge"]]
    named = run.spec.fixed["features"]
    assert (named.path, named.sha256) == (str(weights), hashlib.sha256(weights.read_bytes()).hexdigest())
    other = start_worker(run, "judge")
    finish(run, "generator")
    output, _ = other.communicate(timeout=120)
    assert other.returncode == 0, output
    assert sorted(path.name for path in (run.path / "modules").iterdir()) == ["generator", "judge"]
    assert list(run.store("generator").latest().peers) == ["judge"]  # type: ignore[union-attr]
    assert run.is_finished(run.modules)
    status = json.loads(typed("status", run.path, "--json").out)
    assert list(status["modules"]) == ["generator", "judge"]
    evaluation = json.loads(typed("evaluate", run.path, "--json").out)
    assert (evaluation["metrics"], list(evaluation["versions"])) == ({"feature": 16.0}, ["generator", "judge"])
    model = modtrain.load(run)
    assert set(model.networks) == {"generator", "judge", "features"}
    assert model.networks["features"].weight.tolist() == [[2.0] * 4] * 2  # type: ignore[union-attr]
    assert not any(weight.requires_grad for weight in model.networks["features"].parameters())


def test_another_file_under_its_name_is_an_error_and_so_is_none(plan: Plan, weights: Path) -> None:
    run = plan(weights, nodes=1).write()
    torch.save({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, weights)
    with pytest.raises(InputError, match=r"features.pth has changed since the run was created; put the file back"):
        finish(run)
    weights.unlink()
    with pytest.raises(InputError, match=r"The weights .*features.pth are gone; put the file back"):
        finish(run)


def test_its_weights_may_be_the_average_of_a_module_of_another_run(plan: Plan) -> None:
    source = plan(name="source", nodes=1).write()
    finish(source)
    newest = source.store("generator").latest()
    assert newest
    recipe = load_recipe(str(RECIPE))
    params = recipe.params(features=f"{source.path}#generator@{newest.version}")
    found = find_fixed_weights(recipe, params)["features"]
    assert found.path.endswith("ema.safetensors")
    assert safetensors.torch.load(found.read())["weight"].shape == (4, 4)


@pytest.mark.parametrize("has_links", [True, False])
def test_weights_of_another_run_stay_where_that_run_prunes_them_and_where_the_run_is_moved(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError(errno.EXDEV, "another file system")))
    (tmp_path / "wide.py").write_text(RECIPE.read_text().replace("nn.Linear(4, 2)", "nn.Linear(4, 4)"))
    source = plan(name="source", recipe=str(tmp_path / "wide.py"), nodes=1).write()
    finish(source)
    reference, folder = f"{source.path}#generator@0", source.store("generator").folder(0)
    weights = safetensors.torch.load_file(folder / "ema.safetensors")["weight"]
    run = plan(reference, recipe=str(tmp_path / "wide.py"), nodes=1, init={"generator": f"{source.path}@0"}).write()
    filesystem.retire_folder(folder)
    finish(run)
    begun = safetensors.torch.load_file(run.store("generator").folder(0) / "weights.safetensors")["weight"]
    assert torch.equal(begun, weights)
    shutil.rmtree(source.path)
    moved = run.path.rename(tmp_path / "moved")
    assert torch.equal(modtrain.load(moved).networks["features"].weight, weights)  # type: ignore[arg-type]
    named = run.spec.fixed["features"]
    assert f"features (fixed)  {reference}, sha256 {named.sha256[:12]}" in typed("status", moved).out
    assert Source(tmp_path).run("moved")["run"]["fixed"] == {"features": named.model_dump()}


def test_without_a_file_every_process_of_a_run_builds_the_same_one(plan: Plan) -> None:
    run = plan(nodes=1, seed=3).write()
    assert run.spec.fixed == {}
    assert step_costs(run, load_recipe(str(RECIPE))).keys() == {"generator", "judge"}
    finish(run)
    first, second = (modtrain.load(run).networks["features"].weight for _ in range(2))
    assert torch.equal(first, second)  # type: ignore[arg-type]


def test_what_is_wrong_with_its_weights_is_said_before_there_is_a_run(
    plan: Plan, weights: Path, tmp_path: Path
) -> None:
    for reference, expected in {
        tmp_path / "none.pth": "The weights of features: there is no file .*none.pth",
        tmp_path / "runs": "There is no run in",
        "runs#a#b": "There is no run in runs#a",
        weights.with_suffix(""): "There is no run in .*features",
        Path(__file__): "The weights of features: .* is not allowed; give a file",
    }.items():
        with pytest.raises(InputError, match=expected):
            plan(reference)
    with pytest.raises(InputError, match="--init features: the module is never trained; its weights are those of the"):
        plan(weights, init=[f"features={weights}"])
    with pytest.raises(InputError, match="--nodes 3 is more than the recipe's 2 modules"):
        plan(weights, nodes=3)
    torch.save({"weight": torch.zeros(3, 4)}, weights)
    with pytest.raises(InputError, match=r"features.pth does not fit features: bias is missing, weight is \(3, 4\)"):
        plan(weights)
    assert not (tmp_path / "runs/run").exists()


def linear(params: object) -> nn.Module:
    return nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda modules: Module(build=linear), "`loss` of a module is None, but must be a function"),
        (lambda modules: Module(build=linear, weights="x.pth"), "`weights` of a module is 'x.pth', but must be a func"),
        (
            lambda modules: dataclasses.replace(modules["judge"], weights=lambda params: None),
            "is never trained; give it no",
        ),
    ],
)
def test_a_module_with_weights_has_no_loss(change: Callable[[Any], Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        change(load_recipe(str(RECIPE)).modules)


def test_a_recipe_trains_something_and_reads_one_version_of_what_is_fixed() -> None:
    recipe = load_recipe(str(RECIPE))
    with pytest.raises(InputError, match="The recipe trains none of its modules"):
        dataclasses.replace(recipe, modules={"features": recipe.modules["features"]})
    judge = dataclasses.replace(recipe.modules["judge"], reads=(Reads("features", last=2),))
    with pytest.raises(InputError, match="'judge' reads several versions of 'features', which is never trained"):
        dataclasses.replace(recipe, modules={**recipe.modules, "judge": judge})


def test_the_check_finds_weights_that_are_no_reference(tmp_path: Path, weights: Path) -> None:
    assert typed("check", RECIPE, "--set", f"features={weights}").code == 0
    text = RECIPE.read_text().replace("weights=lambda params: params.features", "weights=lambda params: 3")
    (tmp_path / "three.py").write_text(text)
    found = typed("check", tmp_path / "three.py")
    assert (found.code, "returned an int; it must return a file, RUN#MODULE@VERSION, or None" in found.out) == (2, True)
