"""Each stage trains its own modules with its own parameters, the others rest, and resuming is exact in all of them."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modtrain.cli.worker_lines import WorkerLines
from modtrain.dashboard import timeline
from modtrain.dashboard.page_data import Source
from modtrain.data.base import Data
from modtrain.errors import InputError, Preempted
from modtrain.monitoring.status import build_status
from modtrain.recipes.base import Module, Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.stages import Stage, plan_stages, split_epochs
from modtrain.scheduling.config import Config, new_spec
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import STATE, WEIGHTS
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.history import History
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.training.learner import Learner
from modtrain.training.recipe_check.check import check_recipe
from modtrain.training.stages import RunStage
from modtrain.training.step_costs import step_costs
from modtrain.training.worker_process import work
from tests.support.command import typed
from tests.support.runs import finish, make_run, weights_of
from tests.support.staged import staged_recipe

TOGETHER = [["recogniser", "generator", "discriminator"]]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """A recogniser first, for a third of the epochs, then a generator and a discriminator."""
    return staged_recipe(tmp_path_factory.mktemp("recipe") / "staged.py", tiny_recipe)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, staged: Path) -> Run:
    run = make_run(tmp_path_factory.mktemp("whole") / "run", staged, TOGETHER, params={"batches": 2}, epochs=6)
    finish(run)
    return run


def published(run: Run, module: str) -> list[tuple[int, int, bool]]:
    return [(each.epoch, each.step, each.final) for each in run.store(module).history()]


@pytest.mark.parametrize(
    ("proportions", "epochs", "expected"),
    [
        ((1, 9), 100, [10, 90]),
        ((0.1, 0.9), 10, [1, 9]),
        ((1, 9), 15, [2, 13]),  # 1.5 is half way: up
        ((1, 9), 14, [1, 13]),
        ((1, 99), 3, [1, 2]),
        ((99, 1), 3, [2, 1]),
        ((98, 1, 1), 5, [3, 1, 1]),
        ((1, 1, 98), 5, [1, 1, 3]),
        ((1, 1, 1), 4, [1, 2, 1]),
        ((2,), 7, [7]),
    ],
)
def test_epochs_are_divided_in_proportion_and_each_stage_gets_one(
    proportions: tuple[float, ...], epochs: int, expected: list[int]
) -> None:
    assert split_epochs(proportions, epochs) == expected


def test_fewer_epochs_than_stages_are_refused() -> None:
    with pytest.raises(InputError, match=r"1 epoch cannot be divided into 2 stages.* at least --epochs 2"):
        split_epochs((1, 9), 1)


@dataclass(frozen=True, kw_only=True)
class Params:
    lr: float = 0.5
    batches: int = 4


def stage(*, name: str = "one", epochs: Any = 1, **values: Any) -> Stage:
    return Stage(name, epochs, **values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": ""}, "The name '' of a stage"),
        ({"epochs": 0}, "a number above 0"),
        ({"epochs": float("nan")}, "a number above 0"),
        ({"epochs": True}, "a number above 0"),
        ({"params": 3}, "must be a function"),
        ({"trains": "a"}, "name the modules"),
        ({"trains": ()}, "leave it out to train all"),
        ({"fresh_optimizers": 1}, "True or False, or names modules"),
        ({"fresh_optimizers": "a"}, "True or False, or names modules"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_where_it_is_made(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        stage(**values)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "must return a list of Stage"),
        ([stage(), 3], "must return a list of Stage"),
        ([stage(), stage()], "two stages called 'one'"),
        ([stage(trains=("aa",))], "trains 'aa', which is no module; name one of a, b. Did you mean 'a'"),
        ([stage(fresh_optimizers=("c",))], "has a fresh optimizer of 'c', which is no module; name one of a, b."),
        ([stage(trains=("a",))], "No stage trains b; add it to the `trains` of one of one"),
        ([stage(params=lambda params: None)], "returned None; it must return the Params of this stage"),
        ([stage(params=lambda params: replace(params, lr=float("nan")))], "lr = nan is not allowed"),
    ],
)
def test_stages_that_cannot_be_trained_are_refused(stages: list[Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_stages(lambda params: stages, Params(), ["a", "b"], 4)


def test_run_json_lists_the_stages_with_what_differs_in_them(uninterrupted: Run) -> None:
    assert json.loads((uninterrupted.path / "run.json").read_text())["stages"] == [
        {
            "name": "recognise",
            "epochs": 2,
            "trains": ["recogniser"],
            "params": {"lr": 0.1, "batches": 3},
            "fresh_optimizers": False,
        },
        {
            "name": "translate",
            "epochs": 4,
            "trains": ["generator", "discriminator"],
            "params": {},
            "fresh_optimizers": False,
        },
    ]


def test_a_module_that_a_stage_does_not_train_rests_and_publishes_nothing(uninterrupted: Run) -> None:
    assert published(uninterrupted, "recogniser") == [(0, 0, False), (1, 3, False), (2, 6, True)]
    after = [(3, 8, False), (4, 10, False), (5, 12, False), (6, 14, True)]
    assert published(uninterrupted, "generator") == [(0, 0, False), *after]
    assert published(uninterrupted, "discriminator") == [(0, 0, False), *after]


def test_the_last_version_of_a_stage_is_kept(tmp_path: Path, staged: Path) -> None:
    run = make_run(tmp_path / "run", staged, TOGETHER, epochs=6)
    assert {name: run.spec.stage_ends(name) for name in run.modules} == {
        "recogniser": {2},
        "generator": {6},
        "discriminator": {6},
    }
    store = run.store("recogniser")
    publisher = Publisher(store, "test", keep=1, keep_epochs=run.spec.stage_ends("recogniser"), grace_s=0)
    for epoch in range(6):
        publisher.publish({WEIGHTS: b""}, epoch=epoch, step=epoch)
        publisher.publish({WEIGHTS: b"", STATE: b""}, epoch=epoch, step=epoch)
    assert [(each.version, each.epoch) for each in reversed(store.newest())] == [(5, 2), (9, 4), (11, 5)]


def test_a_loss_knows_its_stage_and_how_far_it_is(uninterrupted: Run) -> None:
    history = History(uninterrupted)
    history.refresh()
    curves = {name: list(history.curve(name).rows()) for name in uninterrupted.modules}
    assert [row["step"] for row in curves["recogniser"]] == [3, 6]
    assert [row["stage_progress"] for row in curves["recogniser"]] == pytest.approx([1 / 6, 4 / 6])
    assert [row["step"] for row in curves["generator"]] == [8, 10, 12, 14]
    assert [row["stage_progress"] for row in curves["generator"]] == pytest.approx([1 / 16, 5 / 16, 9 / 16, 13 / 16])
    assert [row["translate"] for row in curves["generator"]] == [1] * 4
    assert [row["lr"] for row in curves["recogniser"]] == pytest.approx([0.1 * (1 - 1 / 14), 0.1 * (1 - 5 / 28)])
    assert curves["generator"][-1]["lr"] == 0.01


def test_a_run_ends_bit_identical_where_each_batch_is_trained_by_a_worker_of_its_own(
    tmp_path: Path, staged: Path, uninterrupted: Run
) -> None:
    run = make_run(tmp_path / "run", staged, TOGETHER, params={"batches": 2}, epochs=6)
    steps = []
    while not run.is_finished(run.modules):
        with contextlib.suppress(Preempted):
            work(run, run.modules, threads=1, leave_after_s=0.01)
        steps.append(run.read_report("generator").step)
    assert steps == list(range(1, 15))
    assert weights_of(run) == weights_of(uninterrupted)


def test_a_job_without_time_left_gets_through_the_stages_in_which_it_rests(tmp_path: Path, staged: Path) -> None:
    placement = [["recogniser"], ["generator", "discriminator"]]
    run = make_run(tmp_path / "run", staged, placement, params={"batches": 1}, epochs=6)
    finish(run, "recogniser")
    with pytest.raises(Preempted):
        work(run, ["generator", "discriminator"], threads=1, leave_after_s=0.01)
    assert published(run, "generator") == [(0, 0, False), (3, 5, False)]


@pytest.mark.parametrize("step", [3, 6, 8])
def test_a_worker_killed_inside_the_first_stage_or_at_its_end_goes_on_from_there_bit_identical(
    tmp_path: Path, uninterrupted: Run, step: int
) -> None:
    """As after a kill: nothing was published beyond this step."""
    run = Run.open(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    for module in run.modules:
        for checkpoint in run.store(module).newest(where=lambda each: each.step > step):
            filesystem.retire_folder(run.store(module).folder(checkpoint.version))
    finish(run)
    assert weights_of(run) == weights_of(uninterrupted)
    assert f"Resumed at step {step} of 14" in run.log_path("generator").read_text()
    final = [each for each in run.store("recogniser").history() if each.final]
    assert len(final) == 1, "a finished module is neither trained nor published again"


def test_an_optimizer_takes_the_rates_of_a_stage_and_keeps_its_moments_unless_it_begins_anew(tmp_path: Path) -> None:
    def optimizer(weights: Any, params: Params) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, lr=params.lr, momentum=0.5)

    module = Module(
        build=lambda params: nn.Linear(1, 1, bias=False),
        loss=lambda nets, batch, params: {"loss": nets.a(batch["x"]).sum()},
        optimizer=optimizer,
    )
    recipe = Recipe(params=Params, data=lambda dataroot, params: Data(train=None), modules={"a": module})
    run = Run(tmp_path, RunSpec(recipe="a", placement=[["a"]], epochs=1))
    learner = Learner(run, recipe, Params(), "a", device="cpu", writer="test")
    (weight,), moves = learner.weights, []
    for lr, is_fresh in ((0.5, False), (0.25, False), (0.25, True)):
        params = Params(lr=lr)
        stage = RunStage(
            name="s",
            trains=frozenset("a"),
            fresh_optimizers=frozenset("a" if is_fresh else ""),
            params=params,
            data=recipe.data(None, params),
            draws=1,
        )
        for _ in range(2):
            learner.enter(stage)  # the second time, in the same stage, changes nothing
        before, weight.grad = float(weight.detach()), torch.ones_like(weight)
        learner.optimizer.step()
        moves.append(before - float(weight.detach()))
    assert moves == pytest.approx([0.5, 0.25 * 1.5, 0.25])


def test_a_worker_s_own_batches_are_as_many_as_those_of_all_modules() -> None:
    class Two:
        def __len__(self) -> int:
            return 2

        def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Any: ...

    class Three(Two):
        def __len__(self) -> int:
            return 3

    def of(data: Data) -> RunStage:
        return RunStage(name="s", trains=frozenset(), fresh_optimizers=frozenset(), params=None, data=data, draws=1)

    two, three = Two(), Three()
    assert of(Data(train=two)).batches_of(["a"]) is two
    other = Two()
    assert of(Data(train=two, train_of=lambda modules: other)).batches_of(["a"]) is other
    with pytest.raises(InputError, match=r"returned 3 batches an epoch for a, b, but Data.train has 2; make both the"):
        of(Data(train=two, train_of=lambda modules: three)).batches_of(["a", "b"])


def test_every_view_of_a_run_shows_its_stages(tmp_path: Path, staged: Path, uninterrupted: Run) -> None:
    run = Run.open(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    for module in run.modules:  # as if it had been killed in its first stage
        for checkpoint in run.store(module).newest(where=lambda each: each.step > 3):
            filesystem.retire_folder(run.store(module).folder(checkpoint.version))
        run.heartbeat_path(module).unlink()
    status = build_status(read_snapshot(run))
    assert (status["stage"], status["epoch"]) == ("recognise", 0)
    assert "stage recognise" in typed("status", run.path).out
    assert build_status(read_snapshot(uninterrupted))["stage"] == "translate"
    rows = [row for row in uninterrupted.history() if row["module"] != "evaluation"]
    assert {(row["module"], row["stage"]) for row in rows} == {
        ("recogniser", "recognise"),
        ("generator", "translate"),
        ("discriminator", "translate"),
    }
    table = typed("history", uninterrupted.path).out
    assert [line.split().count("stage") for line in table.splitlines() if line.startswith("step")] == [1] * 3
    assert " recognise  " in table
    planned = typed("launch", "--recipe", staged, "--root", tmp_path, "--epochs", 9, "--nodes", 1, "--dry-run").out
    assert "recognise: 3 epochs, trains recogniser" in planned
    page = Source(uninterrupted.path.parent).run("run")
    stages = page["stages"]
    for lane in page["lanes"]:  # also of those that rest in a stage, and publish nothing at its end
        assert [stage["name"] for stage in lane["stages"]] == ["recognise", "translate"]
        assert lane["stages"][1]["at"] == stages[1]["at"]
    assert [(stage["name"], stage["epochs"], stage["epoch"], stage["step"]) for stage in stages] == [
        ("recognise", 2, 0, 0),
        ("translate", 4, 2, 6),
    ]
    ends = uninterrupted.store("recogniser").latest()
    assert ends
    assert stages[1]["at"] == ends.published_at
    assert [stage["step"] for stage in timeline.stages({}, run.spec)] == [None, None]
    longer = typed("launch", uninterrupted.path, "--epochs", 8, "--dry-run").out
    assert "Trains to epoch 8 instead of 6. They are of its last stage, translate." in " ".join(longer.split())


@pytest.mark.parametrize(
    ("placement", "steps", "lines"),
    [
        (TOGETHER, [14], ["recogniser+generator+discriminator  running, stage recognise, epoch 1/6, step 4/14"]),
        (
            [["recogniser"], ["generator", "discriminator"]],
            [6, 14],
            [
                "recogniser                    running, stage recognise, epoch 1/6, step 4/14",
                "generator+discriminator       resting, stage recognise, epoch 0/6, step 0/14",
            ],
        ),
    ],
)
def test_the_line_of_a_worker_has_epochs_and_steps_of_the_run_and_its_stage(
    tmp_path: Path, uninterrupted: Run, placement: list[list[str]], steps: list[int], lines: list[str]
) -> None:
    run = Run.open(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    run = run.replace_spec(run.spec.model_copy(update={"placement": placement}))
    shutil.rmtree(run.path / "modules")
    run.make_module_folders(run.modules)
    with contextlib.ExitStack() as stack:
        for number, (modules, count) in enumerate(zip(placement, steps, strict=True)):
            first = (
                {"state": "resting", "epoch": 0, "step": 0} if number else {"state": "running", "epoch": 1, "step": 4}
            )
            stack.enter_context(Heartbeat(map(run.heartbeat_path, modules), **first, steps=count))
        assert list(WorkerLines().due(build_status(read_snapshot(run)))) == lines


def test_a_worker_has_a_further_line_only_once_it_says_something_new(
    tmp_path: Path, uninterrupted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.cli.worker_lines.LINES_S", (0.0, 0.0))
    run = Run.open(shutil.copytree(uninterrupted.path, tmp_path / "run"))
    run = run.replace_spec(run.spec.model_copy(update={"placement": TOGETHER}))
    shutil.rmtree(run.path / "modules")
    run.make_module_folders(run.modules)
    lines = WorkerLines()
    with Heartbeat(map(run.heartbeat_path, run.modules)) as heartbeat:

        def printed(**report: Any) -> list[str]:
            heartbeat.report(now=True, **report)
            return [line.split(None, 1)[1] for line in lines.due(build_status(read_snapshot(run)))]

        assert (printed(), printed()) == (["starting"], [])
        steps = [printed(state="running", epoch=1, step=step, steps=14) for step in (4, 4, 5)]
    assert [[line.rpartition(", ")[2] for line in found] for found in steps] == [["step 4/14"], [], ["step 5/14"]]


def test_more_epochs_of_a_finished_run_belong_to_its_last_stage(tmp_path: Path, uninterrupted: Run) -> None:
    shutil.copytree(uninterrupted.path, tmp_path / "run")
    config = Config(name="run", root=str(tmp_path), epochs=7, hold_schedule=True)
    run = plan_run(find_target(config)).write()
    assert [(stage.name, stage.epochs) for stage in run.spec.stages] == [("recognise", 2), ("translate", 5)]
    assert [run.is_finished([module]) for module in run.modules] == [True, False, False]
    finish(run)
    assert published(run, "recogniser") == published(uninterrupted, "recogniser")
    assert published(run, "generator")[-1] == (7, 16, True)
    last = [row for row in run.history() if row["module"] == "discriminator"][-2:]
    assert [row["step"] for row in last] == [14, 16]
    assert last[0]["lr"] == last[1]["lr"], "the schedule is held"


def test_a_run_is_evaluated_in_all_of_its_stages(tmp_path: Path, staged: Path) -> None:
    placement = [["recogniser"], ["generator", "discriminator"]]
    run = make_run(tmp_path / "run", staged, placement, params={"batches": 1}, epochs=6, evaluate_every=1)
    finish(run, "recogniser")
    finish(run, "generator", "discriminator")
    records = read_evaluations(run.evaluations_path)
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5]
    assert [record.versions["recogniser"] for record in records] == [1, 2, 2, 2, 2]
    assert [record.versions["generator"] for record in records] == [0, 0, 1, 2, 3]
    assert [row["step"] for row in run.history() if row["module"] == "evaluation"] == [2, 4, 5, 6, 7]


def test_the_cost_of_a_module_is_that_of_the_stages_that_train_it(
    tmp_path: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.training.step_costs._step_s", lambda learner, *_: learner.params.lr)
    run = make_run(tmp_path / "run", staged, TOGETHER, params={"batches": 2}, epochs=6)
    costs = step_costs(run, load_recipe(str(staged)))
    assert costs == pytest.approx(
        {"recogniser": 0.1 * 6 / 14, "generator": 0.01 * 8 / 14, "discriminator": 0.01 * 8 / 14}
    )


def test_the_check_of_a_recipe_trains_each_module_in_its_stages(tmp_path: Path, staged: Path) -> None:
    text, loss = staged.read_text(), "    loss = nets.recogniser"
    text = text.replace("batches=params.batches + 1", "batches=params.batches + 1, opponents=7")
    broken = tmp_path / "broken.py"
    broken.write_text(text.replace(loss, f"    assert params.opponents == 1, params\n{loss}"))
    found = []
    for recipe in (staged, broken):
        spec = new_spec(Config(recipe=str(recipe)), load_recipe(str(recipe)), TOGETHER)
        found.append(check_recipe(spec, lambda findings: None).violations)
    sound, (violation,) = found
    assert sound == []
    assert "The loss of recogniser failed in" in violation
    assert "opponents=7" in violation
