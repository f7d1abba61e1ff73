"""`modtrain check`: each thing that a recipe may do wrong is one sentence, before anything is created."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec
from modtrain.scheduling.recipe_check import check_recipe as check_in_process
from modtrain.scheduling.recipe_check import require_sound
from modtrain.storage.run import RunSpec
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
            "The network or optimizer of generator failed in {mine}, line 29, in build: NameError: name 'two' is not "
            "defined.",
        ),
        (
            "return 1 - progress",
            'return float("nan")',
            "The schedule of generator (mine.py, line 31) returned nan at progress 0.0; it must return a finite float.",
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


def test_a_check_that_takes_too_long_or_dies_says_where_and_does_not_stop_a_launch(
    recipe: Callable[..., Path],
) -> None:
    path = recipe("return Evaluation", "import os; os._exit(3)\n    return Evaluation")
    warnings = list[str]()
    require_sound(spec_of(path), warnings.append)
    assert warnings == ["The recipe was not checked to its end: exit code 3, at `evaluate`."]
    recipe("return Evaluation", "import time; time.sleep(60)\n    return Evaluation")
    result = check_in_process(spec_of(path), timeout_s=4)
    assert result.violations == []
    assert result.warnings == ["The recipe was not checked to its end: it took longer than 4 s, at `evaluate`."]


def test_modtrain_check_says_what_is_wrong_and_exits_with_2(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain = Terminal(capsys, monkeypatch)
    sound = modtrain("check", recipe())
    assert (sound.code, sound.out.splitlines()[-1]) == (0, "Metrics: spread")
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


def test_a_launch_creates_nothing_for_a_recipe_that_cannot_be_trained(
    recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modtrain, root = Terminal(capsys, monkeypatch), tmp_path / "runs"
    launch = ("launch", "--recipe", recipe(GRID, "grid=torch.zeros(4, 4)"), "--root", root, "--backend", "local")
    refused = modtrain(*launch, "--name", "one")
    assert refused.code == 2
    assert refused.err.splitlines() == [
        "modtrain: `evaluate` (mine.py, line 25) returned a grid that is a float32 tensor of shape (4, 4); it must be "
        "a uint8 tensor (height, width, 3).",
        "Nothing was created. `modtrain check` repeats this check, `--no-check` leaves it out.",
    ]
    assert not root.exists()
    modtrain(*launch, "--name", "one", "--no-check", "--epochs", "1")
    assert (root / "one" / "run.json").exists()
