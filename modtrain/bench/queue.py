"""What the queue of a sweep costs: n trials on n slots against one trial on one slot.

The trials sleep instead of computing, so that a slot needs no core. This file is also their recipe.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.data.base import Batch, Data
from modtrain.errors import ModtrainError
from modtrain.recipes.base import Module, Recipe
from modtrain.recipes.nets_view import Nets
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.config import Config
from modtrain.scheduling.profile import Profile
from modtrain.sweeps.runner import run
from modtrain.sweeps.sweep import Sweep, new_sweep

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net
    from torch.nn import Parameter
    from torch.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of a trial that sleeps."""

    seconds: float = 60.0


class Sleep:
    """Training data of one batch, which takes `seconds` to read."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """The only batch."""
        import torch

        time.sleep(self.params.seconds)
        yield {"zero": torch.zeros(1, 1)}


def build(params: Params) -> Net:
    """A network of one weight."""
    import torch

    return torch.nn.Linear(1, 1)


def loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """The square of the output for zero."""
    return {"loss": nets.sleeper(batch["zero"]).square().mean()}


def optimizer(parameters: Iterable[Parameter], params: Params) -> Optimizer:
    """Plain gradient descent."""
    import torch

    return torch.optim.SGD(parameters, lr=0.1)


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Sleep(params), description="sleep"),
    modules={"sleeper": Module(build=build, loss=loss, optimizer=optimizer)},
    epochs=1,
)


def queue(
    trials: Annotated[int, typer.Option(min=1, help="Trials, and slots; more than cores take turns to load.")] = 2,
    seconds: Annotated[float, typer.Option(help="How long each trial sleeps.")] = 60.0,
) -> None:
    """Run trials that sleep on as many slots: how much longer do they take than one of them alone?"""
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        show_progress(f"1 of 2: one trial on one slot, at least {seconds:.0f} s")
        one_s = run_trials(Path(folder, "one"), 1, seconds)
        show_progress(f"2 of 2: {trials} trials on {trials} slots")
        all_s = run_trials(Path(folder, "all"), trials, seconds)
    typer.echo(f"{one_s:7.2f} s  one trial on one slot")
    typer.echo(f"{all_s:7.2f} s  {trials} trials on {trials} slots: {all_s / one_s:.3f} times one")


def run_trials(path: Path, count: int, seconds: float) -> float:
    """Seconds that a sweep of trials takes, all of which sleep at the same time."""
    config = Config(recipe="modtrain.bench.queue", nodes=1, params={"seconds": seconds})
    sweep = Sweep.create(path, new_sweep(config, {"seed": f"1..{count}" if count > 1 else [1]}))
    begun, options = time.monotonic(), BackendOptions(profile=Profile(cpus=1))
    trials = run(sweep, "local", options, at_once=count, notify=show_progress)
    if failed := [trial.why for trial in trials if trial.state != "finished"]:
        raise ModtrainError(f"A trial did not finish: {failed[0]}")
    return time.monotonic() - begun


def show_progress(message: str) -> None:
    """Print to stderr: the figures alone are on stdout."""
    typer.echo(message, err=True)
