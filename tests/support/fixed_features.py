"""A recipe for tests: a generator and a judge that compare vectors by features of a network that is never trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch, Data
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.nets_view import Nets
from tests.support.tiny import Params as TinyParams
from tests.support.tiny import Vectors, optimizer


@dataclass(frozen=True, kw_only=True)
class Params(TinyParams):
    features: str | None = None
    batches: int = 2


def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    fake = nets.generator(batch["real"])
    matched = (nets.features(fake) - nets.features(batch["real"])).square().mean()
    return {"loss": matched - nets.judge(fake).mean()}


def judge_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    return {"loss": (nets.judge(batch["real"]) - nets.features(batch["real"]).mean()).square().mean()}


def evaluate(nets: Nets, test: None, params: Params) -> Evaluation:
    return Evaluation(metrics={"feature": float(nets.features(torch.ones(1, 4)).sum())})


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Vectors(params), description="random vectors"),
    modules={
        "generator": Module(
            build=lambda params: nn.Linear(4, 4),
            loss=generator_loss,
            optimizer=optimizer,
            reads=("judge", Reads("features")),
            ema=0.9,
        ),
        "features": Module(build=lambda params: nn.Linear(4, 2), weights=lambda params: params.features),
        "judge": Module(
            build=lambda params: nn.Linear(4, 1), loss=judge_loss, optimizer=optimizer, reads=("features",)
        ),
    },
    evaluate=evaluate,
    epochs=1,
)
