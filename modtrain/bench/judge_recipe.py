"""The recipe by which the judge of the built-in fruits is trained; `judge` runs it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from modtrain.data.base import Batch, Data
from modtrain.data.fruits.orchard import Orchard, orchard
from modtrain.metrics.orchard import SIZE, OrchardJudge, accuracy_on
from modtrain.recipes.base import Evaluation, Module, Recipe
from modtrain.recipes.nets_view import Nets

SHIFT = 3
"""Pixels by which a training picture is moved at most."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """The parameters."""

    batch_size: int = 64
    lr: float = 3e-3


class Shaken:
    """The training pictures in random order, mirrored, moved, lighter or darker, with noise."""

    def __init__(self, pictures: Orchard, batch_size: int) -> None:
        self.pictures, self.batch_size = pictures, batch_size

    def __len__(self) -> int:
        return len(self.pictures.labels) // self.batch_size

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches from `start` on."""
        draws = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(len(self.pictures.labels), generator=draws)
        for position in range(start, len(self)):
            chosen = order[position * self.batch_size :][: self.batch_size]
            draws = torch.Generator().manual_seed((seed * 100_003 + epoch) * 10_007 + position)
            yield {"image": shaken(self.pictures.images[chosen], draws), "label": self.pictures.labels[chosen]}


def shaken(images: Tensor, draws: torch.Generator) -> Tensor:
    """Images uint8 (N, 3, S, S), each changed at random."""
    size, padded = images.shape[-1], F.pad(images.float(), (SHIFT,) * 4, mode="reflect")
    moves = torch.randint(0, 2 * SHIFT + 1, (len(images), 2), generator=draws).tolist()
    moved = torch.stack([each[:, y : y + size, x : x + size] for each, (y, x) in zip(padded, moves, strict=True)])
    mirrored = torch.rand(len(images), generator=draws) < 0.5
    moved[mirrored] = moved[mirrored].flip(-1)
    gain = 1 + 0.1 * torch.randn(len(images), 1, 1, 1, generator=draws)
    noise = torch.rand(len(images), 1, 1, 1, generator=draws) * 8 * torch.randn(moved.shape, generator=draws)
    return (moved * gain + noise).clamp(0, 255)


def data(dataroot: Path | None, params: Params) -> Data:
    """The pictures of both splits."""
    return Data(train=Shaken(orchard(SIZE, "train"), params.batch_size), test=orchard(SIZE, "test"))


def loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Cross-entropy."""
    return {"loss": F.cross_entropy(nets.judge(batch["image"])[1], batch["label"])}


def evaluate(nets: Nets, test: Orchard, params: Params) -> Evaluation:
    """Share of the test pictures that are classified correctly."""
    return Evaluation(metrics={"accuracy": accuracy_on(nets.judge, test.images, test.labels)})


recipe = Recipe(
    params=Params,
    data=data,
    modules={
        "judge": Module(
            build=lambda params: OrchardJudge(),
            loss=loss,
            optimizer=lambda parameters, params: Adam(parameters, lr=params.lr, fused=True),
            schedule=lambda progress, params: 1 - progress,
        )
    },
    evaluate=evaluate,
    epochs=8,
)
