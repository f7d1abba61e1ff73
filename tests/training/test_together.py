"""Modules that are trained together take one step from one graph, where one worker has all of them and none rests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.training.recipe_check.check import check_recipe
from tests.support.runs import finish, make_run

TEXT = """
from dataclasses import dataclass
import torch
from torch import nn
from modtrain import Data, Module, Recipe

@dataclass(frozen=True, kw_only=True)
class Params:
    second_until: float = 1.0

class Batches:
    def __len__(self):
        return 2
    def epoch(self, epoch, *, seed, start=0):
        for _ in range(start, 2):
            yield {"one": torch.ones(1)}

class Weight(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))
    def forward(self, x):
        return (self.weight * x).sum()

def product(nets, batch):
    return nets.once("product", lambda: nets.first(nets.second(batch["one"])))

def loss(nets, batch, params, own):
    own = getattr(nets, own)(batch["one"])
    return {"loss": (product(nets, batch), own), "own": own}

def module(value, name, peer, **options):
    return Module(
        build=lambda params: Weight(value),
        loss=lambda nets, batch, params: loss(nets, batch, params, name),
        optimizer=lambda weights, params: torch.optim.SGD(weights, lr=0.1),
        reads=(peer,),
        **options,
    )

recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Batches()),
    modules={
        "first": module(2.0, "first", "second"),
        "second": module(
            3.0, "second", "first", schedule=lambda progress, params: float(progress < params.second_until)
        ),
    },
    together=(("first", "second"),),
    max_staleness=0,
)
"""
SHARED = 'nets.once("product", lambda: nets.first(nets.second(batch["one"])))'


def recipe(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in TEXT
    path = folder / "pair.py"
    path.write_text(TEXT.replace(old, new) if old else TEXT)
    return path


@pytest.mark.parametrize(
    ("old", "new", "params", "expected"),
    [
        # gradients: 1 + the other weight, of before the step
        ("", "", {}, [2 - 0.4 - 0.37, 3 - 0.3 - 0.26]),
        ('together=(("first", "second"),),', "", {}, [2 - 0.4 - 0.374, 3 - 0.26 - 0.2226]),
        ("", "", {"second_until": 0.5}, [2 - 0.4 - 0.37, 3 - 0.3]),
        ("reads=(peer,),", "reads=(peer,), updates=2,", {"second_until": 0.5}, [2 - 0.4 - 0.37, 3 - 0.3 - 0.26]),
        ("reads=(peer,),", "reads=(peer,), clip_value=3.8,", {"second_until": 0.5}, [2 - 0.38 - 0.37, 3 - 0.3]),
    ],
    ids=["together", "in turn", "one rests", "two updates", "clipped"],
)
def test_a_term_that_modules_share_counts_once_in_a_step_of_both(
    tmp_path: Path, old: str, new: str, params: dict[str, Any], expected: list[float]
) -> None:
    run = make_run(tmp_path / "run", recipe(tmp_path, old, new), [["first", "second"]], params=params, epochs=1)
    finish(run)
    newest = {name: run.store(name).latest() for name in run.modules}
    weights = [load(run.store(name).read(c, WEIGHTS))["weight"].item() for name, c in newest.items() if c]
    assert weights == pytest.approx(expected, abs=1e-6)
    first = newest["first"]
    assert first is not None
    assert set(first.metrics) - {"clipped"} == {"loss", "own"}


@pytest.mark.parametrize(
    ("together", "sentence"),
    [
        (("first", "second"), "give a tuple of tuples, groups of at least two modules, as in together="),
        ([("first", "second")], "give a tuple of tuples, groups of at least two modules, as in together="),
        ((("first",),), "give a tuple of tuples, groups of at least two modules, as in together="),
        ((("first", "thrid"),), "together names 'thrid', but the recipe has first, second, third. Did you mean 'third"),
        ((("first", "second"), ("third", "second")), "together names 'second' twice; a module is in one group."),
    ],
)
def test_groups_that_cannot_be_trained_are_refused_with_one_sentence(
    together: Any, sentence: str, tmp_path: Path
) -> None:
    sound = load_recipe(str(recipe(tmp_path)))
    modules = {**sound.modules, "third": sound.modules["first"]}
    with pytest.raises(InputError, match=sentence):
        Recipe(params=sound.params, data=sound.data, modules=modules, together=together)


@pytest.mark.parametrize(
    ("old", "new", "sentences"),
    [
        ("", "", []),
        (
            SHARED,
            'nets.first(nets.second(batch["one"]))',
            [
                "The loss of first (pair.py, line 35) has a term that also trains second, with which it is trained "
                "together, and that is not a term of second; make it with nets.once, and return it in the tuple 'loss' "
                "of both.",
                "The loss of second (pair.py, line 35) has a term that also trains first, with which it is trained "
                "together, and that is not a term of first; make it with nets.once, and return it in the tuple 'loss' "
                "of both.",
            ],
        ),
        (
            "reads=(peer,),",
            "reads=(peer,), updates=1 + (name == 'first'),",
            ["first and second are trained together, but have 2 and 1 as `updates`; give both the same."],
        ),
        (
            "(product(nets, batch), own)",
            "()",
            [
                f"The loss of {name} (pair.py, line 35) returned an empty tuple as 'loss'; it must hold the terms "
                "whose sum is minimised."
                for name in ("first", "second")
            ],
        ),
        (
            "(product(nets, batch), own)",
            "(product(nets, batch), 1.0)",
            [
                f"The loss of {name} (pair.py, line 35) returned a float under 'loss'; each value must be a tensor of "
                "shape ()."
                for name in ("first", "second")
            ],
        ),
    ],
    ids=["sound", "unshared", "updates", "empty", "number"],
)
def test_check_says_what_is_wrong_with_modules_that_are_trained_together(
    tmp_path: Path, old: str, new: str, sentences: list[str]
) -> None:
    path = recipe(tmp_path, old, new)
    spec = new_spec(Config(recipe=str(path)), load_recipe(str(path)), [["first", "second"]])
    assert check_recipe(spec, lambda findings: None).violations == sentences
