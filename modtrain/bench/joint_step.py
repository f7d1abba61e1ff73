"""What a joint step of a recipe costs against the same algorithm as a plain PyTorch loop."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run

if TYPE_CHECKING:
    from torch.nn import Module as Net

    from modtrain.data.base import Batch
    from modtrain.training.worker import Worker


T = TypeVar("T")
Rounds = Annotated[int, typer.Option(min=1, help="Rounds of both, one after the other.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps of each in a round.")]
Size = Annotated[int, typer.Option(min=4, help="Edge of the images.")]


class PlainLoop(Protocol):
    """An algorithm as a plain PyTorch loop."""

    def step(self, batches: Sequence[Batch], progress: float) -> None:
        """Train all networks on the batches of a step, at this progress of the run."""


def cyclegan(rounds: Rounds = 20, steps: Steps = 2) -> None:
    """Train CycleGAN jointly at its default size, on one thread: CPU time against a plain loop, by turns."""
    from modtrain.bench.plain_cyclegan import PlainCycleGan

    compare("cyclegan", PlainCycleGan, rounds, steps)


def dcgan(rounds: Rounds = 20, steps: Steps = 5) -> None:
    """Train DCGAN jointly at its default size, on one thread: CPU time against a plain loop, by turns."""
    from modtrain.bench.plain_dcgan import PlainDcgan

    compare("dcgan", PlainDcgan, rounds, steps)


def biggan(rounds: Rounds = 20, steps: Steps = 2) -> None:
    """Train BigGAN jointly at its default size, on one thread: CPU time against a plain loop, by turns."""
    from modtrain.bench.plain_biggan import PlainBiggan

    compare("biggan", PlainBiggan, rounds, steps)


def progressive_gan(rounds: Rounds = 20, steps: Steps = 2, size: Size = 32) -> None:
    """Train Progressive GAN jointly with WGAN-GP, on one thread: CPU time against a plain loop, by turns."""
    from modtrain.bench.plain_progressive_gan import PlainProgressiveGan

    compare(
        "progressive-gan", PlainProgressiveGan, rounds, steps, {"size": size, "discriminator": {"penalty": "wgan-gp"}}
    )


def srgan(rounds: Rounds = 20, steps: Steps = 3) -> None:
    """Train SRGAN jointly in its second stage, on one thread: CPU time against a plain loop, by turns."""
    from modtrain.bench.plain_srgan import PlainSrgan

    compare("srgan", PlainSrgan, rounds, steps, {"pretraining": 0.0, "built_in": "photographs"})


def compare(
    recipe: str,
    build: Callable[[dict[str, Net], Any], PlainLoop],
    rounds: int,
    steps: int,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Print the CPU time of a joint step and of a step of the plain loop that `build(networks, params)` returns.

    They are of the first stage of a run with these parameters.
    """
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        worker = build_worker(Path(folder, "run"), Config(recipe=recipe, params=dict(params or {}), device="cpu"))
        nets = {learner.name: copy.deepcopy(learner.net).requires_grad_(True) for learner in worker.learners}
        plain = build(nets, worker.stage.params)
        batches = endless(worker)
        own_s, plain_s = list[float](), list[float]()
        for _ in range(rounds + 1):  # the first round is not measured
            some = [[next(batches) for _ in range(worker.stage.draws)] for _ in range(steps)]
            own_s.append(cpu_s(lambda drawn: worker.train_on(*drawn), some))
            plain_s.append(cpu_s(lambda drawn: plain.step(drawn, worker.position.schedule_progress), some))
    typer.echo(f"{statistics.median(plain_s[1:]) / steps * 1e3:8.1f} ms of CPU  a step of the plain loop")
    typer.echo(f"{statistics.median(own_s[1:]) / steps * 1e3:8.1f} ms of CPU  a joint step of modtrain")
    ratios = [own / other for own, other in zip(own_s[1:], plain_s[1:], strict=True)]
    typer.echo(f"{statistics.median(ratios):8.3f}            median of the ratios of {rounds} rounds")


def build_worker(path: Path, config: Config) -> Worker:
    """A worker with all modules of a new run on the CPU; it has trained nothing."""
    from modtrain.recipes.loading import load_recipe
    from modtrain.training.records import WorkerEvents
    from modtrain.training.shutdown import Shutdown
    from modtrain.training.worker import Worker

    recipe = load_recipe(config.recipe)
    run = Run.create(path, new_spec(config, recipe, [recipe.trained]))
    heartbeat = Heartbeat(map(run.heartbeat_path, run.modules))
    return Worker(run, run.modules, heartbeat, Shutdown(run), WorkerEvents(run, run.modules), device="cpu")


def endless(worker: Worker) -> Iterator[Batch]:
    """The training data, epoch after epoch."""
    epoch = 0
    while True:
        yield from worker.stage.batches.epoch(epoch, seed=0)
        epoch += 1


def cpu_s(step: Callable[[T], None], drawn: list[T]) -> float:
    """Seconds of CPU that a step takes on each of these, a batch or several."""
    begun = time.thread_time()
    for each in drawn:
        step(each)
    return time.thread_time() - begun
