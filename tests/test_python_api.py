"""The Python API: what is typed wrongly is answered with one sentence, as on the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modtrain
from modtrain.errors import InputError
from modtrain.scheduling.run_plan import target_of
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from modtrain.sweeps import runner
from modtrain.sweeps.sweep import new_sweep
from modtrain.training.evaluation import evaluate
from tests.support import runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    path = tmp_path_factory.mktemp("api") / "trained"
    run = runs.make_run(path, tiny_recipe, [["generator", "discriminator"]], epochs=1, params={"batches": 2})
    runs.finish(run)
    return run


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda run: run.store("genrator"), "has no module 'genrator'; it has generator, discriminator. Did you mean "),
        (lambda run: modtrain.load(run, device="gpu"), "device = 'gpu' is not allowed; use auto, cpu, cuda, cuda:1 or"),
        (lambda run: modtrain.load(run, device="mps"), "--device mps is not available: it is the GPU of a Mac."),
        (lambda run: modtrain.load(run, version="240"), "version = '240' is not allowed; give a number, or numbers by"),
        (lambda run: modtrain.load(run, version=[1, 2]), r"version = \[1, 2\] is not allowed; give a number"),
        (lambda run: modtrain.load(run, version={"generator": "1"}), "is not allowed; give a number, or numbers by"),
        (lambda run: modtrain.load(run, version=-1), r"Version -1 of generator does not exist. Available: 0, 1\."),
        (lambda run: modtrain.load(run, best=1), "best = 1 is not allowed; give True, or the name of a metric."),
        (lambda run: modtrain.load(5), "run is a int; give a Run, or its folder, such as 'runs/apples'"),
        (lambda run: evaluate(run.path / "none"), "There is no run in"),
        (lambda run: modtrain.launch("my_gan.py"), "launch takes a Config or a Run, not 'my_gan.py'; such as launch"),
        (lambda run: modtrain.launch({"nodes": 2}), "launch takes a Config or a Run, not {'nodes': 2}; such as launch"),
        (lambda run: new_sweep({"nodes": 1}, {"seed": "1..3"}), "config is a dict; give a Config, such as Config"),
        (
            lambda run: new_sweep(config_of(run), ["seed=1"]),
            "the space is a list; give names and values, such as {",
        ),
        (lambda run: new_sweep(config_of(run), {"seed": "1..3"}, trials=0), "trials = 0 is not allowed; give a whole"),
        (
            lambda run: new_sweep(config_of(run), {"seed": "1..3"}, trials="2"),
            "trials = '2' is not allowed; give a",
        ),
        (lambda run: runner.run(run.path, "local"), "is a run, not a sweep"),
        (lambda run: modtrain.Config(init=["a=1", "a=2"]), "--init names a twice; a module begins with one set of"),
    ],
)
def test_a_mistake_is_an_error_that_says_what_is_allowed(
    trained: Run, call: Callable[[Any], object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        call(trained)


def config_of(run: Run) -> modtrain.Config:
    return modtrain.Config(recipe=run.spec.recipe, nodes=1)


def test_the_values_of_a_sweep_may_be_any_sequence(trained: Run, tmp_path: Path) -> None:
    spec = new_sweep(config_of(trained), {"seed": range(3), "lr": (0.1, 0.2)})
    assert (spec.trials, spec.space[1]["choices"]) == (6, (0.1, 0.2))
    with pytest.raises(InputError, match="at_once = 0 is not allowed; give the number of trials at a time, from 1"):
        runner.run(modtrain.Sweep.create(tmp_path / "sweep", spec), "local", at_once=0)


def test_a_run_may_be_given_as_the_path_of_its_folder(trained: Run) -> None:
    assert evaluate(str(trained.path), device="cpu")["versions"] == {"generator": 1, "discriminator": 1}
    assert Run.open(str(trained.path)) == trained


def test_a_launch_takes_the_run_that_it_resumes(trained: Run) -> None:
    target = target_of(trained)
    assert (target.run, target.resumes) == (trained, True)


def test_the_initial_weights_of_a_run_that_has_nothing_else_are_loaded(trained: Run, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(trained.path, tmp_path / "begun"))
    for module in run.modules:
        filesystem.retire_folder(run.store(module).folder(1))
    assert modtrain.load(run, device="cpu").versions == {"generator": 0, "discriminator": 0}


def test_paths_of_a_config_may_be_those_of_pathlib(tiny_recipe: Path) -> None:
    config = modtrain.Config(recipe=tiny_recipe, root=Path("runs"), init={"generator": Path("runs/other")})
    assert (config.recipe, config.root, config.init) == (str(tiny_recipe), "runs", {"generator": "runs/other"})
