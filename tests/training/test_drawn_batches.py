"""Each update of a module is on batches of its own, which a step draws; a gradient may be the mean over several."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from modtrain.errors import InputError, Preempted
from modtrain.recipes.loading import recipe_of
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.run import Run
from modtrain.training.step_costs import step_costs
from modtrain.training.worker_process import work
from tests.support.runs import finish, make_run, weights_of

TEXT = """
from dataclasses import dataclass
import torch
from torch import nn
from modtrain import Data, Module, Recipe

@dataclass(frozen=True, kw_only=True)
class Params:
    updates: int = 2
    accumulate: int = 1
    size: int = 1
    batches: int = 5
    lr: float = 1.0

class Powers:
    '''Batch number i holds 10 ** i, shaped as samples; with a size above 1 random samples instead.'''
    def __init__(self, params):
        self.params = params
    def __len__(self):
        return self.params.batches
    def epoch(self, epoch, *, seed, start=0):
        for number in range(start, self.params.batches):
            if self.params.size == 1:
                yield {"row": torch.full((1, 3), 10.0**number)}
            else:
                samples = torch.randn(24, 3, generator=torch.Generator().manual_seed(epoch))
                yield {"row": samples[number * self.params.size:][:self.params.size]}

def build(params):
    net = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(net.weight)
    return net

def loss(nets, batch, net):
    row = nets.once("row", lambda: batch["row"].clone())
    return {"loss": (getattr(nets, net)(row) + POWER * getattr(nets, net)(row).square()).mean(), "row": row.mean()}

def module(net, **options):
    return Module(
        build=build,
        loss=lambda nets, batch, params: loss(nets, batch, net),
        optimizer=lambda weights, params: OPTIMIZER(weights, lr=params.lr),
        **options,
    )

POWER, OPTIMIZER = 0.0, torch.optim.SGD
recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Powers(params), description="powers"),
    modules={
        "one": module("one"),
        "several": module(
            "several", updates=lambda params: params.updates, accumulate=lambda params: params.accumulate
        ),
    },
)
"""
TOGETHER = [["one", "several"]]


@pytest.fixture
def powers(tmp_path: Path) -> Path:
    path = tmp_path / "powers.py"
    path.write_text(TEXT)
    return path


def weight(run: Run, module: str) -> torch.Tensor:
    newest = run.store(module).latest()
    assert newest is not None
    return load(run.store(module).read(newest, WEIGHTS))["weight"]


@pytest.mark.parametrize(
    ("updates", "accumulate", "steps", "one", "several"),
    [
        (1, 1, 5, 11111, 11111),
        (2, 1, 2, 101, 1111),  # the fifth batch does not fill a step
        (1, 2, 2, 101, 1111 / 2),
        (2, 2, 1, 1, 1111 / 2),
        (1, 5, 1, 1, 11111 / 5),
    ],
)
def test_each_update_is_on_batches_of_its_own_and_accumulation_takes_their_mean(
    tmp_path: Path, powers: Path, updates: int, accumulate: int, steps: int, one: float, several: float
) -> None:
    """The gradient is the batch itself, so a weight is minus the sum of the batches that its module was given."""
    values = {"updates": updates, "accumulate": accumulate}
    run = make_run(tmp_path / "run", powers, TOGETHER, params=values, epochs=1)
    finish(run)
    assert {(each.step, each.epoch) for each in run.store("one").history()} == {(0, 0), (steps, 1)}
    assert [-value for value in weight(run, "one").flatten().tolist()] == pytest.approx([one] * 3)
    assert [-value for value in weight(run, "several").flatten().tolist()] == pytest.approx([several] * 3)
    (row,) = [row for row in run.history() if row["module"] == "several"]
    drawn = steps * updates * accumulate
    assert row["row"] == pytest.approx(sum(10**number for number in range(drawn)) / drawn)


def test_accumulated_batches_are_one_batch_of_their_size(tmp_path: Path, powers: Path) -> None:
    powers.write_text(
        TEXT.replace("POWER, OPTIMIZER = 0.0, torch.optim.SGD", "POWER, OPTIMIZER = 0.5, torch.optim.Adam")
    )
    weights = []
    for size, accumulate in ((2, 3), (6, 1)):
        values = {"updates": 1, "accumulate": accumulate, "size": size, "batches": 24 // size, "lr": 0.1}
        run = make_run(tmp_path / f"run-{size}", powers, TOGETHER, params=values, epochs=5)
        finish(run)
        weights.append(weight(run, "several"))
    assert float(weights[0].abs().max()) > 0.2
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


def test_a_run_with_several_updates_ends_bit_identical_where_each_step_is_trained_by_a_worker_of_its_own(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    path = tmp_path / "updates.py"
    path.write_text(
        tiny_recipe.read_text().replace('reads=("generator",),', 'reads=("generator",), updates=2, accumulate=2,')
    )
    whole, left = (
        make_run(tmp_path / name, path, [["generator", "discriminator"]], params={"batches": 9}, epochs=2)
        for name in ("whole", "left")
    )
    finish(whole)
    steps = []
    while not left.is_finished(left.modules):
        with contextlib.suppress(Preempted):
            work(left, left.modules, threads=1, leave_after_s=0.01)
        steps.append(left.read_report("generator").step)
    assert steps == [1, 2, 3, 4]
    assert weights_of(left) == weights_of(whole)


def test_too_few_batches_for_a_step_are_refused(tmp_path: Path, powers: Path) -> None:
    run = make_run(tmp_path / "run", powers, TOGETHER, params={"updates": 3, "accumulate": 2})
    with pytest.raises(InputError, match=r"\(powers\) has 5 batches an epoch, but a step draws 6"):
        finish(run)


def test_the_costs_of_a_step_are_those_of_all_its_updates(
    tmp_path: Path, powers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", powers, TOGETHER, params={"updates": 2, "accumulate": 2})
    calls: list[int] = []
    original = torch.Tensor.backward

    def backward(self: torch.Tensor) -> None:
        calls.append(1)
        original(self)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    assert set(step_costs(run, recipe_of(run))) == {"one", "several"}
    assert len(calls) == 4 * (1 + 4), "of four steps each"


def test_what_is_due_at_few_steps_is_not_taken_for_the_cost_of_all(tmp_path: Path) -> None:
    recipe = tmp_path / "lazy.py"
    lazy = '    __import__("time").sleep(0.0 if nets.step % 16 else 0.5)\n    row = nets.once('
    recipe.write_text(TEXT.replace("    row = nets.once(", lazy))
    run = make_run(tmp_path / "run", recipe, TOGETHER)
    assert max(step_costs(run, recipe_of(run)).values()) < 0.5
