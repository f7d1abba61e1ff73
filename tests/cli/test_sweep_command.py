"""`modtrain sweep` and `sweep-status`: wrong input, dry runs, and tables of existing trials."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from safetensors.torch import save_file

from modtrain import Sweep
from modtrain.cli import app
from modtrain.errors import InputError, ModtrainError
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling import standalone_worker
from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import new_sweep
from modtrain.sweeps.trials import read_trials
from tests.conftest import TINY
from tests.support import SUPPORT
from tests.support.command import Result, Terminal
from tests.support.runs import finish

PAINTING = SUPPORT / "painting.py"
LRS = ("--vary", "lr=0.005,0.01")


@pytest.fixture
def sweep(type_: Terminal, tmp_path: Path) -> Any:
    """The command, on the tiny recipe, in a folder of its own."""

    def typed(*words: object) -> Result:
        return type_("sweep", "--recipe", TINY, "--backend", "local", "--root", tmp_path / "runs", *words)

    return typed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Say what varies"),
        (["--vary", "lr"], "--vary takes name=values"),
        (["--vary", "rl=1,2"], "There is no parameter 'rl' to vary"),
        (["--vary", "opponants=1,2"], "Did you mean 'opponents'?"),
        (["--vary", "lr=0.1,tall"], "lr = 'tall' is not allowed"),
        (["--vary", "epochs=0,1"], "epochs = 0 is not allowed"),
        (["--vary", "lr=1e-4..1e-2"], "needs a number of points of lr"),
        ([*LRS, "--vary", "lr=1"], "--vary lr is given twice"),
        ([*LRS, "--sampler", "sobl", "--trials", 3], "Did you mean 'sobol'?"),
        ([*LRS, "--sampler", "random"], "give --trials"),
        ([*LRS, "--trials", 3], "more than the grid has points: 2"),
        ([*LRS, "--trials", 0], "trials = 0 is not allowed"),
        ([*LRS, "--prune"], "give --metric"),
        ([*LRS, "--prune=midian", "--metric", "mean"], "Did you mean 'median'?"),
        ([*LRS, "--prune", "midian", "--metric", "mean"], "Did you mean 'median'?"),
        ([*LRS, "--sampler", "tpe", "--trials", 3], "give --metric"),
        ([*LRS, "--metric", "generatr.loss"], "Did you mean 'generator'?"),
        ([*LRS, "--metric", "generator"], "such as generator.loss"),
        ([*LRS, "--nodes-per-trial", 3], "--nodes-per-trial 3 is more than the recipe's 2 modules"),
        ([*LRS, "--nodes", 1], "--nodes 1 is less than one trial needs"),
        ([*LRS, "--opponants", 3], "Did you mean '--opponents'?"),
        ([*LRS, "--set", "batches=many"], "batches = 'many' is not allowed"),
        ([*LRS, "--space", "nowhere.yaml"], "The space nowhere.yaml cannot be read"),
        ([*LRS, "--name", "a/b"], "cannot be called 'a/b'"),
        ([*LRS, "--backend", "lokal"], "Did you mean 'local'?"),
        ([*LRS, "--backend", "local", "--address", "here:1"], "--address here:1 is not for --backend local"),
        ([*LRS, "--queue", "long"], "queue"),
        ([*LRS, "--wait"], "--wait is for arrays"),
        ([*LRS, "--dataroot", "nowhere"], "--dataroot nowhere does not exist"),
        (["nowhere"], "There is no sweep in nowhere"),
        ([TINY], "give it as --recipe"),
    ],
)
def test_an_error_is_one_sentence_and_nothing_is_created(
    words: list[object], sentence: str, sweep: Any, tmp_path: Path
) -> None:
    result = sweep(*words)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.startswith("modtrain: ")
    assert result.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_metric_of_a_recipe_without_evaluation_is_refused_at_once(sweep: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "silent.py"
    recipe.write_text(TINY.read_text().replace("    evaluate=evaluate,\n", ""))
    result = sweep(*LRS, "--recipe", recipe, "--metric", "mean")
    assert (result.code, "the recipe has no `evaluate`" in result.err) == (2, True)
    assert sweep(*LRS, "--recipe", recipe, "--metric", "generator.loss", "--dry-run").code == 0


def test_a_taken_name_and_a_root_that_is_a_file_are_errors(sweep: Any, tmp_path: Path) -> None:
    (tmp_path / "runs/other").mkdir(parents=True)
    result = sweep(*LRS, "--name", "other")
    assert (result.code, "exists and is not a sweep" in result.err) == (2, True)
    (tmp_path / "file").write_text("")
    result = sweep(*LRS, "--root", tmp_path / "file")
    assert (result.code, "is a file, but must be a folder" in result.err) == (2, True)


DRY_RUNS = """
import contextlib, io, sys, tracemalloc
from modtrain.cli import main

for number, trials in enumerate((10, 10, 300)):  # the first one loads what they need
    sys.argv[7:] = ["--vary", f"seed=1..{trials}", "--name", f"dry-{number}"]
    out = io.TextIOWrapper(io.BytesIO())
    tracemalloc.start()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    out.seek(0)
    print(peak_mb, out.read().splitlines()[-1])
"""
"""Prints for each dry run its peak of memory, and its last line."""


def test_a_dry_run_of_many_trials_takes_no_more_memory_than_one_of_ten(tmp_path: Path) -> None:
    options = ("--nodes-per-trial=1", "--backend=slurm", "--dry-run")
    command = [sys.executable, "-c", DRY_RUNS, "sweep", f"--recipe={TINY}", f"--root={tmp_path}", *options]
    environment = os.environ | {"PATH": str(tmp_path)}  # no scheduler is needed
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    _, ten, many = done.stdout.splitlines()
    assert "The scripts of 10 trials" in ten
    assert "The scripts of 300 trials" in many
    assert float(many.split()[0]) < float(ten.split()[0]) + 1


def test_a_sweep_whose_scripts_were_only_written_keeps_its_backend_and_its_options(
    sweep: Any, type_: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = ("--backend", "slurm", "--queue", "long", "--dependency", "afterok:7")
    assert "--dependency=afterok:7" in sweep(*LRS, *options, "--name", "rates", "--dry-run").out
    result = type_("sweep", tmp_path / "runs" / "rates", "--dry-run")
    assert (result.code, "#SBATCH --partition=long" in result.out) == (0, True)
    assert "--dependency" not in result.out, "that was meant once"
    result = type_("sweep", tmp_path / "runs" / "rates")
    assert (result.code, "sbatch is not on this machine" in result.err) == (2, True)


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_dry_run_shows_what_would_run_and_creates_nothing(backend: str, sweep: Any, tmp_path: Path) -> None:
    result = sweep(
        *LRS, "--vary", "seed=1..3", "--backend", backend, "--metric", "mean", "--max-running", 2, "--dry-run"
    )
    assert result.code == 0
    for expected in ("lr, seed", "6 by grid, each with 2 workers", "mean (more is better)", "Nothing was created."):
        assert expected in result.out
    assert f"The recipe was not checked: `modtrain check {TINY}` checks it" in result.out
    assert "not checked" not in sweep(*LRS, "--backend", backend, "--max-running", 2, "--no-check", "--dry-run").out
    assert not (tmp_path / "runs").exists()


def test_a_sweep_takes_the_settings_of_a_run_that_a_launch_takes() -> None:
    program: Any = typer.main.get_command(app)
    launch, sweep = ({param.name for param in program.commands[name].params} for name in ("launch", "sweep"))
    assert (launch & Config.model_fields.keys()) - sweep == {"place", "hold_schedule"}


def made(path: Path, varied: dict[str, Any], recipe: Path = TINY, **decided: Any) -> Sweep:
    """A sweep in which no trial has begun."""
    return Sweep.create(path, new_sweep(Config(recipe=str(recipe), nodes=1), varied, **decided))


def train(sweep: Sweep, number: int) -> Run:
    """Train a trial as its worker does, in this process."""
    run = sweep.begin(number)
    with contextlib.suppress(ModtrainError):
        standalone_worker.train(run, run.modules, threads=1)
    return run


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep with a trial in every state: 0 and 4 finished, 1 failed, 2 pruned, 3 stopped, 5 not begun."""
    sweep = made(
        tmp_path_factory.mktemp("the sweeps") / "some",
        {"lr": [0.005, 0.01, 0.02], "nan_at": [-1, 5]},
        metric="mean",
        maximize=False,
    )
    sweep.begin(2).request_stop("the others are better", kind="pruned", sender="modtrain sweep")
    sweep.begin(3).request_stop("lunch", sender="modtrain stop")
    for number in range(5):
        train(sweep, number)
    return sweep


def parsed(text: str) -> Any:
    """JSON that knows no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_table_is_sorted_best_first_and_says_why_a_trial_failed(some: Sweep, type_: Terminal) -> None:
    output = type_("sweep-status", some.path)
    assert output.code == 0
    assert output.out.startswith("some  stopped  6 trials: 1 failed, 1 stopped, 1 pruned, 1 created, 2 finished\n")
    lines = output.out.splitlines()
    assert lines[2].split() == ["trial", "state", "mean", "lr", "nan_at", "epoch"]
    assert [line.split()[1] for line in lines[3:9]] == [
        "finished",
        "finished",
        "failed",
        "pruned",
        "stopped",
        "created",
    ]
    results = {
        trial["number"]: trial["result"] for trial in parsed(type_("sweep-status", some.path, "--json").out)["trials"]
    }
    assert [int(line.split()[0]) for line in lines[3:5]] == sorted([0, 4], key=lambda number: results[number])
    assert "trial 1 failed: 'loss' of generator became nan at step 5" in output.out
    assert {int(line.split()[0]): line.split()[-1] for line in lines[5:9]} == {1: "0", 2: "0", 3: "0", 5: "5"}
    assert type_("status", some.path).out == output.out


def test_json_has_everything_of_every_trial(some: Sweep, type_: Terminal) -> None:
    data = parsed(type_("sweep-status", some.path, "--json").out)
    about = {name: data[name] for name in ("sweep", "path", "sampler", "metric", "maximize")}
    assert about == {"sweep": "some", "path": str(some.path), "sampler": "grid", "metric": "mean", "maximize": False}
    assert data["counts"] == {"failed": 1, "stopped": 1, "pruned": 1, "created": 1, "finished": 2}
    trials = {trial["number"]: trial for trial in data["trials"]}
    assert list(trials[0]["metrics"]) == ["mean"]
    assert (trials[0]["values"], trials[0]["epoch"]) == ({"lr": 0.005, "nan_at": -1}, 3)
    assert (trials[1]["exit_code"], trials[1]["result"]) == (5, None)
    assert (trials[1]["epoch"], trials[5]["epoch"]) == (0, None)
    assert "became nan at step 5" in trials[1]["why"]
    assert (trials[2]["why"], trials[3]["why"]) == ("the others are better", "lunch")
    assert trials[5]["values"] == {"lr": 0.02, "nan_at": 5}
    assert trials[5]["path"] == str(some.path / "trial-0005")
    assert parsed(type_("status", some.path, "--json").out) == data


def test_csv_has_a_line_a_trial_for_spreadsheets(some: Sweep, type_: Terminal) -> None:
    text = type_("sweep-status", some.path, "--csv").out
    assert text.splitlines()[0] == "trial,state,lr,nan_at,epoch,mean,why"
    rows = {int(row["trial"]): row for row in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 6
    assert float(rows[0]["mean"]) == pytest.approx(
        json.loads(type_("sweep-status", some.path, "--json").out)["trials"][[*rows].index(0)]["result"]
    )
    assert (rows[5]["lr"], rows[5]["nan_at"], rows[5]["mean"]) == ("0.02", "5", "")
    assert (rows[1]["epoch"], rows[5]["epoch"]) == ("0", "")


def test_a_trial_that_there_is_not_is_no_trial_that_has_not_begun(some: Sweep) -> None:
    assert some.run(5) is None
    for number in (6, 99, -1):
        with pytest.raises(InputError, match=rf"^some has no trial {number}; its trials are 0 to 5\.$"):
            some.run(number)


def test_another_metric_sorts_the_same_trials_also_one_of_training(some: Sweep, type_: Terminal) -> None:
    data = parsed(type_("sweep-status", some.path, "--metric", "generator.loss", "--json").out)
    results = [trial["result"] for trial in data["trials"]]
    there = [result for result in results if result is not None]
    assert len(there) >= 2
    assert results == [*sorted(there, reverse=True), *[None] * (6 - len(there))]
    less = parsed(type_("sweep-status", some.path, "--metric", "generator.loss", "--minimize", "--json").out)
    assert [trial["result"] for trial in less["trials"]][: len(there)] == sorted(there)
    assert (data["maximize"], less["maximize"]) == (True, False)
    output = type_("sweep-status", some.path, "--metric", "meen")
    assert (output.code, "Did you mean 'mean'?" in output.err) == (2, True)


def test_a_result_that_is_not_finite_is_null_and_has_a_reason(tmp_path: Path, type_: Terminal) -> None:
    sweep = made(tmp_path / "inf", {"bold": [True, False]}, PAINTING, metric="perfect")
    train(sweep, 0)
    output = type_("sweep-status", sweep.path)
    assert "trial 0 finished: perfect is not finite." in output.out
    assert "true" in output.out
    trial = parsed(type_("sweep-status", sweep.path, "--json").out)["trials"][0]
    assert (trial["result"], trial["metrics"]["perfect"]) == (None, None)
    assert "nan" not in type_("sweep-status", sweep.path, "--csv").out


def test_a_finished_trial_without_the_metric_names_the_existing_ones_or_the_next_command(
    tmp_path: Path, type_: Terminal
) -> None:
    sweep = made(tmp_path / "typo", {"lr": [0.01, 0.02]}, metric="meen")
    train(sweep, 0)
    finish(sweep.begin(1))  # its worker was killed before it came to the evaluation
    result = type_("sweep-status", sweep.path).out
    assert "trial 0 finished: The evaluation has no 'meen'; it has mean. Did you mean 'mean'?" in result
    assert (
        f"trial 1 finished: It was not evaluated at its end; `modtrain evaluate {sweep.run_path(1)}` evaluates it"
        in result
    )
    last = sweep.trial(1, "running")  # its worker has published its last version and evaluates it
    assert (last.state, last.is_evaluating, last.why) == ("finished", True, "")
    assert not sweep.trial(1, "ended").is_evaluating


def test_a_damaged_trial_is_named_and_costs_no_other(tmp_path: Path, type_: Terminal) -> None:
    sweep = made(tmp_path / "hurt", {"lr": [0.01, 0.02, 0.03, 0.04]}, metric="mean")
    for number in range(3):
        train(sweep, number)
    (sweep.run_path(1) / "run.json").write_text("{")
    spec = parsed((sweep.run_path(2) / "run.json").read_text())
    (sweep.run_path(2) / "run.json").write_text(json.dumps({**spec, "trial": {"number": 2, "values": 5}}))
    output = type_("sweep-status", sweep.path)
    assert (output.code, output.err) == (0, "")
    assert output.out.startswith("hurt  stopped  4 trials: 2 failed, 1 created, 1 finished\n")
    for number in (1, 2):
        assert f"trial {number} failed: {sweep.run_path(number) / 'run.json'} is damaged" in output.out
    assert type_("status", sweep.path).out == output.out
    data = parsed(type_("sweep-status", sweep.path, "--metric", "generator.loss", "--json").out)
    assert [trial["result"] is not None for trial in data["trials"]] == [True, False, False, False]
    for how in ("--csv", "--json"):
        output = type_("history", sweep.path, how)
        rows = parsed(output.out) if how == "--json" else list(csv.DictReader(io.StringIO(output.out)))
        assert {int(row["trial"]) for row in rows} == {0}
        assert output.code == 1
        assert output.err.startswith("modtrain: Skipped 2 trials that cannot be read: ")
        assert str(sweep.run_path(1)) in output.err
    assert "Asked 0 running trials to publish and exit" in type_("stop", sweep.path).out
    assert type_("cancel", sweep.path).code == 0


def test_a_damaged_trial_is_left_out_of_a_retry_and_the_others_run(tmp_path: Path, type_: Terminal) -> None:
    sweep = made(tmp_path / "hurt", {"lr": [0.01, 0.02, 0.03]}, metric="mean")
    train(sweep, 0)
    sweep.begin(1)
    (sweep.run_path(1) / "run.json").write_text("{")
    result = type_("sweep", sweep.path, "--backend", "local", "--max-running", 1, "--retry-failed")
    assert f"trial 1 is left out: {sweep.run_path(1) / 'run.json'} is damaged" in result.out
    assert [trial.state for trial in read_trials(sweep)] == ["finished", "failed", "finished"]
    assert "--retry-failed" not in result.out, "the damaged trial cannot run again"


def test_a_pruner_is_one_also_where_a_folder_has_its_name(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "median").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "median" in sweep(*LRS, "--metric", "mean", "--prune", "median", "--dry-run").out


def test_the_direction_of_a_metric_is_the_recipe_s_unless_it_is_given(tmp_path: Path) -> None:
    recipe = tmp_path / "down.py"
    down = 'evaluate=evaluate,\n    lower_is_better=("mean",),'
    recipe.write_text(TINY.read_text().replace("evaluate=evaluate,", down))
    sweep = made(tmp_path / "down", {"lr": [0.01]}, recipe, metric="mean")
    assert not sweep.spec.maximize
    assert sweep.begin(0).spec.lower_is_better == ["mean"]
    assert made(tmp_path / "up", {"lr": [0.01]}, recipe, metric="mean", maximize=True).spec.maximize
    assert made(tmp_path / "loss", {"lr": [0.01]}, recipe, metric="generator.loss").spec.maximize
    assert made(tmp_path / "silent", {"lr": [0.01]}, metric="mean").spec.maximize


def test_the_command_takes_the_direction_of_a_metric_from_the_recipe(tmp_path: Path, type_: Terminal) -> None:
    recipe = tmp_path / "down.py"
    down = 'evaluate=evaluate,\n    lower_is_better=("mean",),'
    recipe.write_text(TINY.read_text().replace("evaluate=evaluate,", down))
    words = ("sweep", "--backend", "local", "--root", tmp_path / "runs", *LRS, "--metric", "mean", "--dry-run")
    assert "mean (less is better)" in type_(*words, "--recipe", recipe).out
    assert "mean (more is better)" in type_(*words, "--recipe", TINY).out
    assert type_(*words[:-3], "--recipe", recipe, "--name", "later", "--epochs", 1).code == 0
    assert type_("sweep", tmp_path / "runs" / "later", "--backend", "local", "--metric", "mean").code == 0
    assert not Sweep.open(tmp_path / "runs" / "later").spec.maximize, "its direction comes with the metric"
    config = tmp_path / "up.yaml"
    config.write_text(f"recipe: {recipe}\nsweep: {{maximize: true}}\n")
    assert "mean (more is better)" in type_("sweep", config, *words[1:]).out


def test_a_metric_that_is_misspelt_in_the_recipe_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = tmp_path / "typo.py"
    names = 'evaluate=evaluate,\n    lower_is_better=("maen", "fid"),'
    recipe.write_text(TINY.read_text().replace("evaluate=evaluate,", names))
    train(made(tmp_path / "typo", {"lr": [0.01]}, recipe, metric="mean"), 0)
    result = [record.getMessage() for record in caplog.records if "lower_is_better" in record.getMessage()]
    assert result == [
        "lower_is_better of the recipe names 'maen', which `evaluate` does not measure. Did you mean 'mean'?"
    ]


def test_a_table_of_many_long_names_and_values_fits_into_80_columns(tmp_path: Path, type_: Terminal) -> None:
    names = [f"a_long_name_{letter}" for letter in "abcdefgh"]
    recipe = tmp_path / "wide.py"
    fields = "".join(f"    {name}: str = 'x'\n" for name in names)
    recipe.write_text(TINY.read_text().replace("    nan_at: int = -1\n", "    nan_at: int = -1\n" + fields))
    sweep = made(
        tmp_path / "wide", {name: ["a value with forty characters, or even more", "y"] for name in names}, recipe
    )
    result = type_("sweep-status", sweep.path).out
    assert max(map(len, result.splitlines())) <= 80
    assert "a_long_name_a" in result
    assert "a value with forty …" in result
    assert "No room for a_long_name_c, a_long_name_d, " in result
    assert len([line for line in result.splitlines() if "created" in line]) == 257
    assert "more\na" not in type_("sweep-status", sweep.path, "--csv").out.replace("\n\n", "")


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--lr", 0.5], "lr is 0.01, not 0.5"),
        (["--epochs", 9], "epochs is 3, not 9"),
        (["--exchange-every", 9], "exchange_every is not set, not 9"),
        (["--seed", 9], "seed is 0, not 9"),
        (["--sampler", "sobol"], "sampler is 'random', not 'sobol'"),
        (["--trials", 3], "trials is 4, not 3"),
        (["--nodes-per-trial", 2], "nodes-per-trial is 1, not 2"),
        (["--evaluate-every", 2], "evaluate_every is 0, not 2"),
        (["--vary", "opponents=1,3"], "opponents varies over 1, 2, 3, not 1, 3"),
        (["--vary", "seed=1..9"], "seed is not varied"),
        (["--vary", "lr=0.1,0.2"], "opponents is varied, too (1, 2, 3)"),
        (["--recipe", PAINTING, "--bold", "--vary", "bold=true"], "painting.py'. Leave them out"),
    ],
)
def test_settings_that_contradict_an_existing_sweep_are_named(
    words: list[object], phrase: str, tmp_path: Path, type_: Terminal
) -> None:
    sweep = made(tmp_path / "there", {"opponents": [1, 2, 3]}, sampler="random", trials=4)
    before = (sweep.path / "sweep.json").read_bytes()
    result = type_("sweep", sweep.path, *words)
    assert (result.code, phrase in result.err) == (2, True), result.err
    assert (sweep.path / "sweep.json").read_bytes() == before
    assert [path.name for path in sweep.path.iterdir()] == ["sweep.json"]


def test_a_sweep_takes_more_trials_and_a_grid_as_many_as_it_has_points(tmp_path: Path, type_: Terminal) -> None:
    sweep = made(tmp_path / "random", {"opponents": [1, 2, 3]}, sampler="random", trials=4)
    assert "9 by random" in type_("sweep", sweep.path, "--trials", 9, "--backend", "local", "--dry-run").out
    assert Sweep.open(sweep.path).spec.trials == 4
    grid = made(tmp_path / "grid", {"opponents": [1, 2, 3]}, trials=2)
    assert "3 by grid" in type_("sweep", grid.path, "--trials", 3, "--backend", "local", "--dry-run").out
    result = type_("sweep", grid.path, "--trials", 4)
    assert (result.code, "more than the grid has points: 3" in result.err) == (2, True)


def test_a_recipe_that_has_changed_since_a_sweep_was_created_must_be_trusted(tmp_path: Path, type_: Terminal) -> None:
    recipe = tmp_path / "mine.py"
    shutil.copy(TINY, recipe)
    sweep = made(tmp_path / "mine", {"lr": [0.01]}, recipe)
    assert type_("sweep", sweep.path, "--backend", "local", "--dry-run").code == 0
    recipe.write_text(recipe.read_text() + f"\nopen({str(tmp_path / 'executed')!r}, 'w').close()\n")
    for command in (("sweep", sweep.path, "--backend", "local", "--dry-run"), ("trial", sweep.path, "--task", 0)):
        refused = type_(*command)
        assert (refused.code, f"The recipe {recipe} has changed since mine was created." in refused.err) == (2, True)
    assert not (tmp_path / "executed").exists()
    assert type_("sweep", sweep.path, "--backend", "local", "--dry-run", "--trust-recipe").code == 0
    assert (tmp_path / "executed").exists()


def test_a_parameter_without_a_default_may_vary(tmp_path: Path, sweep: Any) -> None:
    recipe = tmp_path / "needy.py"
    recipe.write_text(TINY.read_text().replace("lr: float = 1e-2", "lr: float"))
    assert "has no default" in sweep("--recipe", recipe, "--vary", "seed=1..2").err
    assert sweep("--recipe", recipe, *LRS, "--dry-run").code == 0


def test_one_file_is_launched_and_swept(tmp_path: Path, type_: Terminal) -> None:
    config = tmp_path / "both.yaml"
    config.write_text(
        f"recipe: {TINY}\nroot: {tmp_path / 'runs'}\nnodes: 1\nbackend: local\nparams: {{lr: 0.02}}\n"
        "sweep:\n  space: {lr: {low: 1.0e-4, high: 1.0e-2, log: true}, seed: 1..3}\n  sampler: sobol\n  trials: 8\n"
        "  metric: mean\n  maximize: false\n  max_running: 2\n"
    )
    result = type_("sweep", config, "--dry-run").out
    for expected in ("lr, seed", "8 by sobol, each with 1 worker", "mean (less is better)", "at once  2"):
        assert expected in result
    assert "4 by sobol" in type_("sweep", config, "--trials", 4, "--dry-run").out
    assert "opponents" in type_("sweep", config, "--vary", "opponents=1,2", "--dry-run").out
    assert type_("launch", config, "--dry-run").code == 0
    config.write_text(config.read_text().replace("sampler", "smapler"))
    result = type_("sweep", config, "--dry-run")
    assert (result.code, "Did you mean 'sampler'?" in result.err) == (2, True)


def test_a_task_of_a_sweep_that_was_stopped_or_does_not_exist_does_not_begin(tmp_path: Path, type_: Terminal) -> None:
    sweep = made(tmp_path / "stopped", {"lr": [0.01]})
    assert type_("trial", sweep.path, "--task", 1).code == 2
    assert "Asked 0 running trials to publish and exit" in type_("stop", sweep.path, "--reason", "lunch").out
    result = type_("trial", sweep.path, "--task", 0)
    assert (result.code, "stopped was stopped (lunch)" in result.err) == (3, True)
    assert sweep.run(0) is None


def test_prune_alone_is_halving_and_evaluates_every_epoch_where_it_needs_to(sweep: Any, tmp_path: Path) -> None:
    assert "pruning  halving" in sweep(*LRS, "--prune", "--metric", "mean", "--dry-run").out
    assert "pruning  median" in sweep("--prune", "median", *LRS, "--metric", "mean", "--dry-run").out
    assert made(tmp_path / "a", {"lr": [0.1]}, metric="mean", prune="halving").spec.evaluate_every == 1
    assert made(tmp_path / "b", {"lr": [0.1]}, metric="generator.loss", prune="halving").spec.evaluate_every == 0
    assert made(tmp_path / "c", {"lr": [0.1]}, metric="mean").spec.evaluate_every == 0


def test_a_sweep_evaluates_at_the_end_alone_where_it_is_told_0_as_a_run_does(sweep: Any, tmp_path: Path) -> None:
    assert sweep(*LRS, "--evaluate-every", 0, "--dry-run").code == 0
    assert sweep(*LRS, "--evaluate-every", 0, "--prune", "--metric", "generator.loss", "--dry-run").code == 0
    refused = sweep(*LRS, "--evaluate-every", 0, "--prune", "--metric", "mean", "--dry-run")
    assert (refused.code, "give 1 or more" in refused.err) == (2, True), refused
    assert "evaluate_every = -1 is not allowed" in sweep(*LRS, "--evaluate-every", -1, "--dry-run").err


def test_a_space_comes_from_a_file_and_vary_overrides_it(sweep: Any, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("lr: {low: 1.0e-4, high: 1.0e-2, log: true, count: 3}\nopponents: [1, 3, 8]\n")
    words = ("--space", tmp_path / "space.yaml", "--dry-run")
    assert "9 by grid" in sweep(*words).out
    result = sweep(*words, "--vary", "lr=0.1", "--vary", "seed=1..2").out
    assert "lr, opponents, seed" in result
    assert "6 by grid" in result


def test_a_thousand_trials_are_written_and_shown_in_seconds(sweep: Any, tmp_path: Path, type_: Terminal) -> None:
    begun = time.process_time()
    more = ("--vary", "lr=log:1e-5..1e-1", "--sampler", "sobol", "--trials", 1000, "--nodes-per-trial", 1)
    result = sweep(*more, "--backend", "slurm", "--name", "thousand", "--dry-run")
    assert result.code == 0, result.err
    path = tmp_path / "runs/thousand"
    assert f"The scripts of 1000 trials are in {path / 'jobs'}" in result.out
    assert not list(path.glob("trial-*"))
    scripts = [script.read_text() for script in (path / "jobs").glob("*.sh")]
    assert "--array=0-999" in scripts[0]
    assert parsed(type_("sweep-status", path, "--json").out)["counts"] == {"created": 1000}
    assert time.process_time() - begun < 15


def test_a_sweep_is_resumed_without_the_weights_that_its_trials_began_with(type_: Terminal, tmp_path: Path) -> None:
    weights = tmp_path / "generator.safetensors"
    save_file(load_recipe(str(TINY)).modules["generator"].build(None).state_dict(), weights)
    config = Config(recipe=str(TINY), nodes=1, epochs=1, init={"generator": str(weights)}, dataroot=str(tmp_path))
    sweep = Sweep.create(tmp_path / "sweep", new_sweep(config, {"lr": [0.1]}))
    sweep.begin(0)
    weights.unlink()
    assert type_("sweep", sweep.path, "--dry-run").code == 0
    assert type_("sweep", sweep.path, "--init", f"generator={weights}", "--dry-run").code == 0
    other = type_("sweep", sweep.path, "--init", "generator=other.pth", "--dry-run")
    assert (other.code, "init is {'generator': " in other.err) == (2, True)
    more = type_("sweep", sweep.path, "--epochs", 2)
    assert f"longer by `modtrain launch {sweep.path}/trial-0000 --epochs N`." in more.err
    assert "put a link to it in the old place" in type_("sweep", sweep.path, "--dataroot", "elsewhere").err


def test_a_sweep_whose_data_is_gone_says_so_before_trials_fail(type_: Terminal, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    config = Config(recipe=str(TINY), nodes=1, epochs=1, dataroot=str(tmp_path / "data"))
    sweep = Sweep.create(tmp_path / "sweep", new_sweep(config, {"lr": [0.1]}))
    (tmp_path / "data").rmdir()
    resumed = type_("sweep", sweep.path)
    assert resumed.code == 2
    assert resumed.err == (
        f"modtrain: The data of sweep is no longer in {tmp_path}/data; put it back, or a link to its new place.\n"
    )


def test_a_sweep_that_has_ended_is_neither_stopped_nor_cancelled(type_: Terminal, tmp_path: Path) -> None:
    sweep = made(tmp_path / "sweep", {"epochs": [1]})
    train(sweep, 0)
    for command in ("stop", "cancel"):
        said = f"sweep has ended already (finished); there is nothing to {command}.\n"
        assert (type_(command, sweep.path).out, sweep.stop_request()) == (said, None)


def test_a_sweep_of_nothing_is_one_sentence(type_: Terminal) -> None:
    result = type_("sweep")
    assert (result.code, result.err.startswith("modtrain: Say what varies: --vary ")) == (2, True)
