"""A recipe for tests: a generator and a discriminator of vectors that read each other; it has no images."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch, Data
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.nets_view import Nets


@dataclass(frozen=True, kw_only=True)
class Params:
    lr: float = 1e-2
    opponents: int = 1
    batches: int = 10
    pause_s: float = 0.0
    nan_at: int = -1


class Vectors:
    def __init__(self, params: Params) -> None:
        self.params = params

    def __len__(self) -> int:
        return self.params.batches

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        for position in range(start, len(self)):
            time.sleep(self.params.pause_s)
            generator = torch.Generator().manual_seed(seed * 10_000 + epoch * 100 + position)
            number = torch.tensor(epoch * len(self) + position)
            yield {"real": torch.randn(16, 4, generator=generator) + 2, "number": number}


def fakes(nets: Nets) -> Tensor:
    return nets.once("fake", lambda: nets.generator(torch.randn(16, 4)))


def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    fake = fakes(nets)
    loss = nets.average("discriminator", lambda judge: (judge(fake) - 1).square().mean())
    if int(batch["number"]) == params.nan_at:
        loss = loss * torch.nan
    return {"loss": loss}


def discriminator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    on_real, on_fake = nets.discriminator(batch["real"]), nets.discriminator(fakes(nets))
    return {"loss": (on_real - 1).square().mean() + on_fake.square().mean(), "on_real": on_real.mean()}


def evaluate(nets: Nets, test: None, params: Params) -> Evaluation:
    return Evaluation(metrics={"mean": float(nets.generator(torch.zeros(1, 4)).mean())})


def optimizer(parameters: object, params: Params) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=params.lr)  # type: ignore[arg-type]


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Vectors(params), description="random vectors"),
    modules={
        "generator": Module(
            build=lambda params: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 4)),
            loss=generator_loss,
            optimizer=optimizer,
            reads=(Reads("discriminator", last=lambda params: params.opponents),),
            ema=0.9,
        ),
        "discriminator": Module(
            build=lambda params: nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
            loss=discriminator_loss,
            optimizer=optimizer,
            schedule=lambda progress, params: 1 - progress / 2,
            reads=("generator",),
        ),
    },
    evaluate=evaluate,
    max_staleness=None,
    epochs=3,
)
