"""A module's gradient is clipped by its norm or by value, and its curve has the share of steps in which that acted."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load

from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.history import History
from tests.support.runs import finish, make_run

TEXT = """
from dataclasses import dataclass
import torch
from torch import nn
from modtrain import Data, Module, Recipe

GRADIENTS = torch.tensor([[3.0, 4.0], [0.3, 0.4], [-6.0, 8.0], [0.0, 0.0]])

@dataclass(frozen=True, kw_only=True)
class Params:
    bound: float | None = None

class Rows:
    def __len__(self):
        return len(GRADIENTS)
    def epoch(self, epoch, *, seed, start=0):
        for row in GRADIENTS[start:]:
            yield {"row": row}

def build(params):
    net = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(net.weight)
    return net

recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Rows()),
    modules={
        "net": Module(
            build=build,
            loss=lambda nets, batch, params: {"loss": nets.net(batch["row"]).sum()},
            optimizer=lambda weights, params: torch.optim.SGD(weights, lr=1.0),
            OPTION
        ),
    },
)
"""


@pytest.mark.parametrize(
    ("option", "bound", "moved", "share"),
    [
        ("", None, [-2.7, 12.4], None),
        ("clip_norm=lambda params: params.bound", None, [-2.7, 12.4], None),
        ("clip_norm=1", None, [0.3, 2.0], 0.5),
        ("clip_norm=lambda params: params.bound", 6.0, [-0.3, 9.2], 0.25),
        ("clip_value=2.0", None, [0.3, 4.4], 0.5),
        ("clip_value=lambda params: params.bound", 9.0, [-2.7, 12.4], 0.0),
        ("clip_norm=1.0, updates=2", None, [0.3, 2.0], 0.5),
    ],
)
def test_a_gradient_above_the_bound_is_clipped_and_the_share_of_such_steps_is_in_the_curve(
    tmp_path: Path, option: str, bound: float | None, moved: list[float], share: float | None
) -> None:
    """The gradient is the batch itself, so the weights are minus the sum of all gradients."""
    recipe = tmp_path / "clipped.py"
    recipe.write_text(TEXT.replace("OPTION", option and f"{option},"))
    run = make_run(tmp_path / "run", recipe, [["net"]], params={"bound": bound}, epochs=1)
    finish(run)
    last = run.store("net").latest()
    assert last is not None
    weights = load(run.store("net").read(last, WEIGHTS))["weight"]
    assert (-weights).flatten().tolist() == pytest.approx(moved, abs=1e-4)
    history = History(run)
    history.refresh()
    assert [row.get("clipped") for row in history.rows()] == [share]
    assert last.metrics.get("clipped") == share
