"""`modtrain check`: each thing that a recipe may do wrong is one sentence, before anything is created."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from modtrain.monitoring.catalog import Catalog
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec
from modtrain.scheduling.recipe_check import check_recipe as check_in_process
from modtrain.scheduling.recipe_check import require_sound
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.best_version import best_versions
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.run import Run, RunSpec
from modtrain.training.recipe_check.check import check_recipe
from modtrain.training.recipe_check.findings import Findings
from tests.support.command import Terminal

TEXT = """
from dataclasses import dataclass
import random
import numpy as np
import torch
from torch import nn
from modtrain import Data, Evaluation, Module, Recipe
from modtrain.errors import InputError

@dataclass(frozen=True, kw_only=True)
class Params:
    lr: float = 1e-2

class Points:
    def __len__(self):
        return 3
    def epoch(self, epoch, *, seed, start=0):
        for position in range(start, 3):
            generator = torch.Generator().manual_seed(100 * seed + 10 * epoch + position)
            yield {"real": torch.randn(8, 2, generator=generator)}

def loss(nets, batch, params):
    return {"loss": nets.generator(batch["real"]).square().mean()}

def evaluate(nets, test, params):
    return Evaluation(metrics={"spread": nets.generator(test).std()}, grid=torch.zeros(4, 4, 3, dtype=torch.uint8))

def build(params):
    return nn.Linear(2, 2)

def schedule(progress, params):
    return 1 - progress

recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Points(), test=torch.ones(64, 2)),
    modules={
        "generator": Module(
            build=build, loss=loss, optimizer=lambda w, p: torch.optim.Adam(w, lr=p.lr), schedule=schedule, ema=0.9
        ),
    },
    evaluate=evaluate,
)
"""
LOSS = 'return {"loss": nets.generator(batch["real"]).square().mean()}'
YIELD = 'yield {"real": torch.randn(8, 2, generator=generator)}'
METRICS = 'metrics={"spread": nets.generator(test).std()}'
GRID = "grid=torch.zeros(4, 4, 3, dtype=torch.uint8)"
EPOCH = "def epoch(self, epoch, *, seed, start=0):"


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the sound recipe with a part of it replaced."""

    def write(old: str = "", new: str = "") -> Path:
        assert old in TEXT
        path = tmp_path / "mine.py"
        path.write_text(TEXT.replace(old, new) if old else TEXT)
        return path

    return write


def spec_of(path: Path) -> RunSpec:
    return new_spec(Config(recipe=str(path)), load_recipe(str(path)), [["generator"]])


def check(path: Path) -> Findings:
    return check_recipe(spec_of(path), lambda findings: None)


def test_a_sound_recipe_has_no_violation_and_names_its_metrics(recipe: Callable[..., Path]) -> None:
    assert asdict(check(recipe())) == {"part": "", "violations": [], "warnings": [], "metrics": ["spread"]}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            EPOCH,
            "def epoch_of(self, epoch, *, seed, start=0):",
            "Data.train, a Points (mine.py, line 14), has no method `epoch`; it takes (epoch, *, seed, start=0) and "
            "yields batches.",
        ),
        (
            EPOCH,
            "def epoch(self, epoch, start=0, seed=0, *, shuffle):",
            "Data.train.epoch (mine.py, line 17) does not take (epoch, *, seed, start=0): missing a required "
            "argument: 'shuffle'.",
        ),
        (
            YIELD,
            "yield torch.randn(8, 2, generator=generator)",
            "Data.train.epoch (mine.py, line 17) yielded a float32 tensor of shape (8, 2); a batch is a mapping of "
            "tensors by name.",
        ),
        (
            YIELD,
            'yield {"real": [1.0, 2.0]}',
            "Data.train.epoch (mine.py, line 17) yielded a list under 'real'; a batch holds a tensor under each name.",
        ),
        (
            "range(start, 3)",
            "range(start, 2)",
            "Data.train.epoch (mine.py, line 17) yielded no batch from start=2 on, but its __len__ is 3; an epoch has "
            "as many batches as its __len__, and begins with batch `start`.",
        ),
        (
            "range(start, 3)",
            "range(3)",
            "Data.train.epoch (mine.py, line 17) yielded more than one batch from start=2 on, but its __len__ is 3; an "
            "epoch has as many batches as its __len__, and begins with batch `start`.",
        ),
        (
            YIELD,
            'yield {"real" if position < 2 else "image": torch.randn(8, 2, generator=generator)}',
            "The loss of generator failed in {mine}, line 23, in loss: KeyError: 'real'.",
        ),
        (
            "Data(train=Points(), test=torch.ones(64, 2))",
            '{"train": Points()}',
            "`data` (mine.py, line 36) returned a dict; it must return Data(train=..., test=...).",
        ),
        (
            "Data(train=Points(), test=torch.ones(64, 2))",
            'dataroot / "train"',
            "`data` of the recipe failed in {mine}, line 36, in <lambda>: TypeError: unsupported operand type(s) for "
            "/: 'NoneType' and 'str'. If it needs a folder, give it with --dataroot.",
        ),
        (
            LOSS,
            'return nets.generator(batch["real"]).square().mean()',
            "The loss of generator (mine.py, line 22) returned a float32 tensor of shape (); it must return a mapping "
            "such as {'loss': tensor}.",
        ),
        (
            LOSS,
            'nets.generator(batch["real"]).square().mean()',
            "The loss of generator (mine.py, line 22) returned nothing; it must return a mapping such as "
            "{'loss': tensor}.",
        ),
        (
            LOSS,
            'return {"loss": nets.generator(batch["real"]).square()}',
            "The loss of generator (mine.py, line 22) returned a float32 tensor of shape (8, 2) under 'loss'; each "
            "value must be a tensor of shape ().",
        ),
        (
            LOSS,
            'value = nets.generator(batch["real"]).mean(); return {"loss": value, "mean": float(value)}',
            "The loss of generator (mine.py, line 22) returned a float under 'mean'; each value must be a tensor of "
            "shape ().",
        ),
        (
            LOSS,
            'return {"loss": (nets.generator(batch["real"]).square() * -1).sqrt().mean()}',
            "The loss of generator (mine.py, line 22) returned nan as 'loss' with the initial weights.",
        ),
        (
            LOSS,
            'return {"loss": nets.generator(batch["real"]).detach().mean()}',
            "The loss of generator (mine.py, line 22) returned a 'loss' without gradient; compute it from the module's "
            "own network, and do not detach it.",
        ),
        (
            LOSS,
            'return {"loss": batch["real"].clone().requires_grad_().mean()}',
            "The loss of generator (mine.py, line 22) gives no gradient to the weights of generator; compute it with "
            "nets.generator.",
        ),
        (
            LOSS,
            'batch["real"].mul_(2); return {"loss": nets.generator(batch["real"]).mean()}',
            "The loss of generator (mine.py, line 22) changes the batch, which the other modules of its worker get as "
            "well; change a copy of it.",
        ),
        (
            "return nn.Linear(2, 2)",
            "return nn.Linear(2, two)",
            "The network of generator failed in {mine}, line 29, in build: NameError: name 'two' is not defined.",
        ),
        (
            "return 1 - progress",
            'return float("nan")',
            "The schedule of generator (mine.py, line 31) returned nan at progress 0; it must return a number "
            "from 0 on, the factor on the learning rates.",
        ),
        (
            "return 1 - progress",
            "return torch.linspace(0, 1, progress)",
            "The schedule of generator failed in {mine}, line 32, in schedule: TypeError: linspace() received ",
        ),
        (
            METRICS,
            'metrics={"spread": nets.progress}',
            "nets.progress is used outside of a loss, where no training is going on: `apply` and `evaluate` have no "
            "progress. Give what depends on it a fixed value there.",
        ),
        (
            LOSS,
            'x = nets.generator(batch["real"]).mean(); return {"loss": x if nets.step < 29 else x + nets.stage}',
            "The loss of generator failed in {mine}, line 23, in loss: TypeError: ",
        ),
        (
            "ema=0.9",
            "ema=0.9, clip_norm=lambda p: -p.lr",
            "clip_norm of generator = -0.01 is not allowed; it is a number above 0, None, or a function of the "
            "parameters.",
        ),
        (
            LOSS,
            'x = nets.generator(batch["real"]).mean(); return {"loss": x, "clipped": x}',
            "The loss of generator (mine.py, line 22) returned 'clipped'; rename it: metrics.jsonl reserves at, "
            "clipped, epoch, lr, seconds, skipped, step.",
        ),
        (
            "lr=p.lr)",
            "lr=-p.lr)",
            "The optimizer of generator failed in {mine}, line 39, in <lambda>: ValueError: Invalid learning rate: ",
        ),
        (
            "lambda w, p: torch.optim.Adam(w, lr=p.lr)",
            "lambda w: torch.optim.Adam(w)",
            "The optimizer of generator failed in {mine}, line 39: TypeError: <lambda>() takes 1 positional ",
        ),
        (
            "lambda w, p: torch.optim.Adam(w, lr=p.lr)",
            "torch.optim.Adam",
            "The optimizer of generator failed in {mine}, line 39, Adam: TypeError: ",
        ),
        (
            LOSS,
            "net = nets.generator; fake = nets.once('fake', lambda: net(batch['real']))\n"
            "    return {'loss': fake.square().mean() + net.bias.sum()}",
            "The loss of 'generator' uses a network in training outside of the function of nets.once('fake', ...), "
            "whose result would be without its gradient; take it inside, as in "
            "nets.once('fake', lambda: nets.generator(x)).",
        ),
        (
            "lambda w, p: torch.optim.Adam(w, lr=p.lr)",
            "lambda w, p: print(len(w))",
            "`optimizer` of generator (mine.py, line 39) returned nothing; it must return a torch.optim.Optimizer.",
        ),
        (
            "return nn.Linear(2, 2)",
            "nn.Linear(2, 2)",
            "`build` of generator (mine.py, line 28) returned nothing; it must return a torch.nn.Module.",
        ),
        (
            "ema=0.9",
            "memory=lambda params: [1]",
            "`memory` of generator (mine.py, line 39) returned a list, which has no state_dict(); it must return an "
            "object with state_dict() and load_state_dict(state).",
        ),
        (
            "ema=0.9",
            "memory=lambda params: __import__('types').SimpleNamespace(state_dict=lambda: {'seen': "
            "__import__('pathlib').Path('x')}, load_state_dict=print)",
            "The state of the memory of generator cannot be resumed: its entry ['seen'] (PosixPath) is neither a "
            "tensor nor a plain value. Keep it out of the memory's state_dict.",
        ),
        (
            "ema=0.9",
            "memory=lambda params: __import__('types').SimpleNamespace(state_dict=dict, "
            "load_state_dict=lambda state: state[0])",
            "Version 0 of generator is intact but does not fit",
        ),
        (
            "ema=0.9",
            "settle=lambda net, params: net.running_mean.zero_()",
            "`settle` of generator failed in {mine}, line 39, in <lambda>: AttributeError: 'Linear' object has no ",
        ),
        (
            LOSS,
            'nets.memory.query(batch["real"]); return {"loss": nets.generator(batch["real"]).square().mean()}',
            "The loss of 'generator' uses nets.memory, but the module has none; give 'generator' a `memory` in the "
            "recipe.",
        ),
        (
            LOSS,
            'x = nets.generator(batch["real"]).exp(); y = x.sum(); x.mul_(2); return {"loss": y}',
            "The loss of generator failed in {mine}, line 22: RuntimeError: one of the variables needed for gradient ",
        ),
        (
            "def evaluate(nets, test, params)",
            "def evaluate(nets, test)",
            "`evaluate` failed in {mine}, line 25: TypeError: evaluate() takes 2 positional arguments ",
        ),
        (
            "return 3\n",
            "return 3.0\n",
            "Data.train, a Points (mine.py, line 14), has the __len__ 3.0; it must be the whole number of batches in "
            "an epoch.",
        ),
        (
            "return 3\n",
            "return -1\n",
            "Data.train, a Points (mine.py, line 14), has the __len__ -1; it must be the whole number of batches in an "
            "epoch.",
        ),
        (
            "return 3\n",
            "return {}['x']\n",
            "Data.train.__len__ failed in {mine}, line 16, in __len__: KeyError: 'x'.",
        ),
        (
            "train=Points()",
            "train=[1, 2]",
            "Data.train, a list (mine.py, line 36), has no method `epoch`; it takes (epoch, *, seed, start=0) and "
            "yields batches.",
        ),
        (
            "train=Points()",
            "train=iter([1, 2])",
            "Data.train, a list_iterator (mine.py, line 36), has no __len__; it must return the number of batches in "
            "an epoch.",
        ),
        (
            "ema=0.9",
            "ema=lambda: 0.9",
            "`ema` of generator failed in {mine}, line 39: TypeError: <lambda>() takes 0 positional ",
        ),
        (
            "ema=0.9",
            "ema=lambda params: 1.5",
            "ema of generator = 1.5 is not allowed; it is a decay in [0, 1), None, or a function of the parameters.",
        ),
        (
            METRICS,
            'metrics={"spread": nets.generator(test)}',
            "`evaluate` (mine.py, line 25) returned a float32 tensor of shape (64, 2) as metric 'spread'; a metric is "
            "one number.",
        ),
        (
            f"Evaluation({METRICS}, {GRID})",
            "{'spread': 1.0}",
            "`evaluate` (mine.py, line 25) returned a dict; it must return Evaluation(metrics={...}, grid=...).",
        ),
        (
            GRID,
            "grid=torch.zeros(3, 4, 4)",
            "`evaluate` (mine.py, line 25) returned a grid that is a float32 tensor of shape (3, 4, 4); it must be a "
            "uint8 tensor (height, width, 3).",
        ),
        (
            METRICS,
            'metrics={"spread": test["none"]}',
            "`evaluate` failed in {mine}, line 26, in evaluate: IndexError: ",
        ),
    ],
)
def test_each_violation_is_one_sentence_with_the_line_of_the_recipe(
    recipe: Callable[..., Path], old: str, new: str, sentence: str
) -> None:
    path = recipe(old, new)
    violations = check(path).violations
    assert len(violations) == 1, violations
    assert violations[0].startswith(sentence.replace("{mine}", str(path))), violations[0]
    assert "\n" not in violations[0]


IMAGES = f'{YIELD[:-1]}, "image": torch.zeros(8, 3, 4, 4)}}'


@pytest.mark.parametrize(
    ("apply", "sentence"),
    [
        ("lambda nets, images, params: images.flip(3)[:, :, 1:]", None),
        ("lambda nets, images: images", "`apply` failed in {mine}, line 42: TypeError: <lambda>() takes 2 positional "),
        (
            "lambda nets, images, params: nets.generator(images.reshape(1, 7))",
            "`apply` failed in {mine}, line 42, in <lambda>: RuntimeError: shape '[1, 7]' is invalid",
        ),
        (
            "lambda nets, images, params: images[0]",
            "`apply` (mine.py, line 42) returned a float32 tensor of shape (3, 4, 4) for images of shape (1, 3, 4, 4); "
            "it must return a float tensor of shape (1, 3, height, width).",
        ),
    ],
)
def test_apply_is_checked_with_the_first_image_of_the_data(
    recipe: Callable[..., Path], apply: str, sentence: str | None
) -> None:
    path = recipe("    evaluate=evaluate,", f"    apply={apply},")
    assert check(path).violations == []  # the data has no image
    path.write_text(path.read_text().replace(YIELD, IMAGES))
    violations = check(path).violations
    assert len(violations) == (sentence is not None), violations
    assert violations == [] or violations[0].startswith(str(sentence).replace("{mine}", str(path)))


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        ("lambda nets, noise, labels, params: nets.generator(noise)[..., None, None].repeat(1, 2, 8, 8)[:, :3]", None),
        (
            "lambda nets, noise, labels, params: nets.generator(noise)",
            "`generate` of `sample` (mine.py, line 42) returned a float32 tensor of shape (4, 2) for noise (4, 2); it "
            "must return a float tensor of shape (4, 3, height, width).",
        ),
        ("lambda nets, noise, params: noise", "`sample` failed in {mine}, line 42: TypeError: <lambda>() takes 3 pos"),
    ],
)
def test_samples_are_made_once(recipe: Callable[..., Path], sample: str, sentence: str | None) -> None:
    classes = "lambda dataroot, params: ('apple', 'pear')"
    sampling = f"Sampling(generate={sample}, noise_size=2, classes={classes})"
    path = recipe("    evaluate=evaluate,", f"    sample={sampling},")
    path.write_text(f"from modtrain.recipes.sampling import Sampling{path.read_text()}")
    violations = check(path).violations
    assert len(violations) == (sentence is not None), violations
    assert violations == [] or violations[0].startswith(str(sentence).replace("{mine}", str(path)))
    path.write_text(path.read_text().replace("('apple', 'pear')", "('apple', '../pear')"))
    assert "returned a tuple; it must return a tuple of different names" in check(path).violations[0]


def test_a_schedule_that_returns_a_numpy_number_is_sound(recipe: Callable[..., Path]) -> None:
    assert check(recipe("return 1 - progress", "return np.float32(1 - progress)")).violations == []


def test_a_loss_that_needs_whole_batches_and_an_evaluation_that_needs_all_test_data_are_sound(
    recipe: Callable[..., Path],
) -> None:
    path = recipe(LOSS, "assert len(batch['real']) == 8; " + LOSS)
    path.write_text(path.read_text().replace("return Evaluation", "assert len(test) == 64\n    return Evaluation"))
    assert check(path).violations == []


def test_data_without_a_test_set_and_data_that_is_drawn_anew_are_warnings(recipe: Callable[..., Path]) -> None:
    path = recipe("test=torch.ones(64, 2)", "test=None")
    path.write_text(
        path.read_text()
        .replace("return Evaluation", 'raise InputError("The data has no test points.")\n    return Evaluation')
        .replace(YIELD, 'yield {"real": torch.randn(8, 2)}')
    )
    drawn, untested = check(path).warnings
    assert drawn.startswith(
        "Data.train.epoch (mine.py, line 17) gives other batches for the same epoch, seed and position"
    )
    assert untested == "The data has no test points."


def test_a_worker_whose_modules_rest_throughout_is_said_with_and_without_the_check(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    optimizer = "lambda w, p: torch.optim.SGD(w, lr=p.lr)"
    rests = f'"critic": Module(build=build, loss=loss, optimizer={optimizer}, schedule=lambda progress, params: 0.0),'
    path = recipe("modules={", "modules={" + rests)
    apart, together = (
        plan_run(find_target(Config(recipe=str(path), root=str(tmp_path / "runs"), nodes=nodes, check=False))).notes
        for nodes in (2, 1)
    )
    assert together == []
    assert apart == [
        "With these parameters critic is never trained, so that a worker has nothing to do: --nodes 1 is enough."
    ]


def test_a_check_that_takes_too_long_or_dies_says_where_and_does_not_stop_a_launch(
    recipe: Callable[..., Path],
) -> None:
    path = recipe("return Evaluation", "import os; os._exit(3)\n    return Evaluation")
    warnings = list[str]()
    require_sound(spec_of(path), warnings.append, metric=None)
    assert warnings == ["The recipe was not checked to its end: exit code 3, at `evaluate`."]
    recipe("return Evaluation", "import time; time.sleep(60)\n    return Evaluation")
    result = check_in_process(spec_of(path), timeout_s=4)
    assert result.violations == []
    assert result.warnings == ["The recipe was not checked to its end: it took longer than 4 s, at `evaluate`."]


def test_modtrain_check_says_what_is_wrong_and_exits_with_2(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain = Terminal(capsys, monkeypatch)
    monkeypatch.setattr("modtrain.cli.progress.PROGRESS_S", 0.0)
    sound = modtrain("check", recipe())
    assert (sound.code, sound.out.splitlines()[-1]) == (0, "Metrics: spread")
    assert "checking the loss of generator\n" in sound.err
    path = recipe(LOSS, "return None")
    sentence = (
        "The loss of generator (mine.py, line 22) returned nothing; it must return a mapping such as {'loss': tensor}."
    )
    wrong = modtrain("check", path)
    assert (wrong.code, wrong.out.strip()) == (2, sentence)
    report = modtrain("check", path, "--json")
    assert (report.code, json.loads(report.out)["violations"]) == (2, [sentence])
    misspelt = modtrain("check", path, "--set", "rate=3")
    assert (misspelt.code, misspelt.out) == (2, "There is no parameter 'rate'; the recipe has lr.\n")
    unknown = modtrain("check", recipe(), "--metric", "spraed")
    expected = "The evaluation measures no 'spraed'; it has spread. Did you mean 'spread'?"
    assert (unknown.code, unknown.out.strip()) == (2, expected)


def test_a_recipe_whose_own_metric_these_data_do_not_measure_trains_and_is_compared_by_the_first_one(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain = Terminal(capsys, monkeypatch)
    path = recipe("evaluate=evaluate,", 'evaluate=evaluate, primary_metric="likeness",')
    common = ("--recipe", path, "--root", tmp_path, "--backend", "local", "--epochs", 1)
    launched = modtrain("launch", *common, "--name", "one", "--nodes", 1)
    assert launched.code == 0, launched
    run = Run.open(tmp_path / "one")
    (measured,) = read_evaluations(run.evaluations_path)
    spread = measured.metrics["spread"]
    assert best_versions(run, None) == (measured.versions, f" (of the best evaluation, spread = {spread:g})")
    catalog = Catalog(tmp_path)
    catalog.refresh()
    assert [row["metric"] for row in catalog.rows()["runs"]] == [{"name": "spread", "value": spread}]
    refused = modtrain("sweep", *common, "--vary", "lr=0.1,0.2")
    assert (refused.code, refused.err.splitlines()[:2]) == (
        2,
        [
            "Checking the recipe; --no-check leaves this out.",
            "modtrain: The evaluation measures no 'likeness'; it has spread.",
        ],
    )


def test_a_launch_creates_nothing_for_a_recipe_that_cannot_be_trained(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain, root = Terminal(capsys, monkeypatch), tmp_path / "runs"
    launch = ("launch", "--recipe", recipe(GRID, "grid=torch.zeros(4, 4)"), "--root", root, "--backend", "local")
    refused = modtrain(*launch, "--name", "one")
    assert refused.code == 2
    assert refused.err.splitlines() == [
        "Checking the recipe; --no-check leaves this out.",
        "modtrain: `evaluate` (mine.py, line 25) returned a grid that is a float32 tensor of shape (4, 4); it must be "
        "a uint8 tensor (height, width, 3).",
        "Nothing was created. `modtrain check` repeats this check, `--no-check` leaves it out.",
    ]
    assert not root.exists()
    modtrain(*launch, "--name", "one", "--no-check", "--epochs", "1")
    assert (root / "one" / "run.json").exists()
