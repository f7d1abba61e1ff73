"""A recipe for tests: three modules on vectors, each reading another, with a sample grid of one colour."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch, Data
from modtrain.recipes.base import Evaluation, Module, Recipe
from modtrain.recipes.nets_view import Nets


@dataclass(frozen=True, kw_only=True)
class Params:
    lr: float = 1e-2
    pause_s: float = 0.0


class Vectors:
    def __init__(self, params: Params) -> None:
        self.params = params

    def __len__(self) -> int:
        return 5

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        for _ in range(start, len(self)):
            time.sleep(self.params.pause_s)
            yield {"real": torch.randn(8, 4) + 2}


def encoder_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    return {"loss": (nets.encoder(batch["real"]) - batch["real"]).square().mean()}


def translator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    return {"loss": (nets.critic(nets.translator(nets.encoder(batch["real"]))) - 1).square().mean()}


def critic_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    judged = nets.critic(nets.translator(nets.encoder(batch["real"])))
    return {"loss": judged.square().mean() + (nets.critic(batch["real"]) - 1).square().mean()}


def evaluate(nets: Nets, test: None, params: Params) -> Evaluation:
    score = float(nets.critic(torch.ones(1, 4)).mean())
    return Evaluation(metrics={"score": score}, grid=torch.full((24, 48, 3), int(abs(score) * 50) % 256).byte())


def net(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, size))


def optimizer(parameters: object, params: Params) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=params.lr)  # type: ignore[arg-type]


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Vectors(params)),
    modules={
        "encoder": Module(build=lambda params: net(4), loss=encoder_loss, optimizer=optimizer),
        "translator": Module(
            build=lambda params: net(4), loss=translator_loss, optimizer=optimizer, reads=("encoder", "critic")
        ),
        "critic": Module(
            build=lambda params: net(1), loss=critic_loss, optimizer=optimizer, reads=("encoder", "translator")
        ),
    },
    evaluate=evaluate,
    max_staleness=None,
    epochs=2,
)
