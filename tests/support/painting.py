"""A recipe for tests with images: a painter and a critic, tiny, with random draws in its evaluation."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch, Data
from modtrain.recipes.base import Evaluation, Module, Recipe
from modtrain.recipes.nets_view import Nets


@dataclass(frozen=True, kw_only=True)
class PainterParams:
    lr: float = 1e-3
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class CriticParams:
    lr: float = 2e-3


@dataclass(frozen=True, kw_only=True)
class Params:
    batch_size: int = field(default=2, metadata={"meaning": "images in a batch"})
    flip: bool = True
    pause_s: float = 0.0
    painter: PainterParams = PainterParams()
    critic: CriticParams = CriticParams()


class Noise:
    def __init__(self, params: Params) -> None:
        self.params = params

    def __len__(self) -> int:
        return 5

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        for _ in range(start, len(self)):
            time.sleep(self.params.pause_s)
            yield {"image": torch.rand(self.params.batch_size, 3, 8, 8)}


def painter_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    return {"loss": (nets.critic(nets.painter(batch["image"])) - 1).square().mean()}


def critic_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    return {"loss": nets.critic(batch["image"]).square().mean()}


def apply(nets: Nets, images: Tensor, params: Params) -> Tensor:
    if images.shape[-1] == 13:
        raise ValueError("thirteen")
    return torch.tanh(nets.painter(images))


def evaluate(nets: Nets, test: None, params: Params) -> Evaluation:
    score = float(nets.critic(torch.randn(1, 3, 8, 8)).mean())
    grid = torch.zeros(8, 16, 3, dtype=torch.uint8)
    return Evaluation(metrics={"score": score, "perfect": float("inf")}, grid=grid)


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Noise(params)),
    modules={
        "painter": Module(
            build=lambda params: nn.Conv2d(3, 3, 1),
            loss=painter_loss,
            optimizer=lambda parameters, params: torch.optim.SGD(parameters, lr=params.painter.lr),
            reads=("critic",),
            ema=0.5,
        ),
        "critic": Module(
            build=lambda params: nn.Conv2d(3, 1, 1),
            loss=critic_loss,
            optimizer=lambda parameters, params: torch.optim.SGD(parameters, lr=params.critic.lr),
        ),
    },
    apply=apply,
    evaluate=evaluate,
    epochs=2,
    exchange_every=3,
)
