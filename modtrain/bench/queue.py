"""Bench: measurements that anyone can repeat: `python -m modtrain.bench queue`.

`queue` runs n trials of a sweep on n slots of this machine, one trial on one, and n workers by hand. Its trials sleep
instead of computing, so that a slot needs no core. Deliberately not here: tests, which assert no times, and what a
folder costs (`doctor.py`).
"""

from __future__ import annotations

import subprocess
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
from modtrain.scheduling.launcher import worker_command
from modtrain.scheduling.profile import Profile
from modtrain.sweeps.runner import run
from modtrain.sweeps.sweep import Sweep, new_sweep

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net
    from torch.nn import Parameter
    from torch.optim import Optimizer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, kw_only=True)
class Params:
    """Of a trial that sleeps."""

    seconds: float = 60.0


class Sleep:
    """One batch, which takes as long to come as its trial is to last."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """See `Batches`."""
        import torch

        time.sleep(self.params.seconds)
        yield {"zero": torch.zeros(1, 1)}


def build(params: Params) -> Net:
    """A net of one weight."""
    import torch

    return torch.nn.Linear(1, 1)


def loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Nothing to learn."""
    return {"loss": nets.sleeper(batch["zero"]).square().mean()}


def optimizer(parameters: Iterable[Parameter], params: Params) -> Optimizer:
    """The plainest one."""
    import torch

    return torch.optim.SGD(parameters, lr=0.1)


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Sleep(params), description="sleep"),
    modules={"sleeper": Module(build=build, loss=loss, optimizer=optimizer)},
    epochs=1,
)


@dataclass(frozen=True, kw_only=True)
class QueueTimes:
    """Seconds from the first trial's beginning to the last one's end."""

    one: float
    """A trial on one slot."""
    all: float
    """As many trials as slots."""
    by_hand: float
    """As many workers that are started at once, without a queue."""


def sweep_of(path: Path, trials: int, seconds: float) -> Sweep:
    """A sweep of trials that sleep."""
    config = Config(recipe="modtrain.bench.queue", nodes=1, params={"seconds": seconds})
    return Sweep.create(path, new_sweep(config, {"seed": f"1..{trials}" if trials > 1 else [1]}))


def by_queue(sweep: Sweep) -> float:
    """Seconds that all of its trials take at the same time."""
    begun = time.monotonic()
    found = run(sweep, "local", BackendOptions(profile=Profile(cpus=1)), at_once=sweep.spec.trials)
    if failed := [trial.why for trial in found if trial.state != "finished"]:
        raise ModtrainError(f"A trial did not finish: {failed[0]}")
    return time.monotonic() - begun


def by_hand(sweep: Sweep) -> float:
    """The same without the queue: each trial's worker is started here."""
    begun = time.monotonic()
    runs = [sweep.begin(number) for number in range(sweep.spec.trials)]
    options = ("--modules", "sleeper", "--threads", "1", *sweep.worker_options)
    started = [subprocess.Popen((*worker_command("worker", its.path), *options)) for its in runs]
    codes = [process.wait() for process in started]
    if any(codes):
        raise ModtrainError("A worker did not finish.")
    return time.monotonic() - begun


def measure_queue(folder: Path, trials: int, seconds: float) -> QueueTimes:
    """Three measurements one after the other, in sweeps below `folder`."""
    return QueueTimes(
        one=by_queue(sweep_of(folder / "one", 1, seconds)),
        all=by_queue(sweep_of(folder / "all", trials, seconds)),
        by_hand=by_hand(sweep_of(folder / "by-hand", trials, seconds)),
    )


@app.callback()
def program() -> None:
    """Measurements that anyone can repeat."""


@app.command()
def queue(
    trials: Annotated[int, typer.Option(min=1, help="Trials, and slots; more than cores take turns to load.")] = 2,
    seconds: Annotated[float, typer.Option(help="How long each trial sleeps.")] = 60.0,
) -> None:
    """Trials that sleep, on as many slots: how much longer do they take than one of them alone?"""
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        found = measure_queue(Path(folder), trials, seconds)
    typer.echo(f"{found.one:7.2f} s  one trial on one slot")
    typer.echo(f"{found.all:7.2f} s  {trials} trials on {trials} slots: {found.all / found.one:.3f} times one")
    typer.echo(f"{found.by_hand:7.2f} s  {trials} workers that are started by hand")
