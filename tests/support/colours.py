"""A recipe for tests that makes images from noise: a painter of plain pictures in the colour of a class."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch, Data
from modtrain.recipes.base import Module, Recipe
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Params:
    classes: tuple[str, ...] = ("apple", "pear", "plum")
    noise_size: int = 3


class Colours:
    """One batch of images."""

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        yield from [{"image": torch.full((4, 3, 8, 8), 0.5)}][start:]


def classes(dataroot: Path | None, params: Params) -> tuple[str, ...]:
    return params.classes


def generate(nets: Nets, noise: Tensor, labels: Tensor | None, params: Params) -> Tensor:
    """The first channel is the class; both others are noise, a little of it drawn here."""
    colour: Tensor = nets.painter(noise[:, :3])
    colour[:, 0] = 0 if labels is None else labels.float() / 4
    colour = colour + torch.rand(len(noise), 1) / 100
    return colour[..., None, None].expand(-1, -1, 8, 8)


def painter() -> nn.Module:
    net = nn.Linear(3, 3, bias=False)
    nn.init.eye_(net.weight)
    net.weight.data *= 0.1
    return net


recipe = Recipe(
    params=Params,
    data=lambda dataroot, params: Data(train=Colours()),
    modules={
        "painter": Module(
            build=lambda params: painter(),
            loss=lambda nets, batch, params: {"loss": nets.painter(batch["image"][:, :, 0, 0]).square().mean()},
            optimizer=lambda weights, params: torch.optim.SGD(weights, lr=0.1),
            ema=0.5,
        ),
    },
    sample=Sampling(generate=generate, noise_size=lambda params: params.noise_size, classes=classes),
    epochs=2,
)
