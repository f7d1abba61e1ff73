"""A recipe for tests whose samples are built-in fruits of the class, chosen and darkened by the noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from modtrain.data.fruits.orchard import CLASSES, orchard
from modtrain.data.images import as_float
from modtrain.data.labelled import LabelledData, LabelledTest
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling
from tests.support import colours

EACH = 16


def images(split: Literal["train", "test"]) -> LabelledTest:
    fruits = orchard(32, split, each=EACH)
    return LabelledTest(pixels=fruits.images, labels=fruits.labels, split=split, classes=CLASSES)


def data(dataroot: Path | None, params: colours.Params) -> LabelledData:
    return LabelledData(
        train=colours.Colours(), test=images("test"), classes=CLASSES, train_images=lambda: images("train")
    )


def generate(nets: Nets, noise: Tensor, labels: Tensor | None, params: colours.Params) -> Tensor:
    """Of near noise the same pictures; of far noise also dark ones."""
    assert labels is not None
    number = (torch.special.ndtr(noise[:, 0]) * EACH).long()
    pictures = as_float(images("train").pixels[labels * EACH + number])
    return (pictures - noise[:, 1].abs().view(-1, 1, 1, 1) / 4).clamp(-1, 1)


recipe = dataclasses.replace(
    colours.recipe,
    data=data,
    sample=Sampling(generate=generate, noise_size=2, classes=lambda dataroot, params: CLASSES),
)
