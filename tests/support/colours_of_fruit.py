"""The recipe of `colours.py` at 32 pixels, with fruits to compare its samples with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from modtrain.data.base import Data
from modtrain.data.fruits.orchard import orchard
from modtrain.data.labelled import LabelledTest
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling
from tests.support import colours


def data(dataroot: Path | None, params: colours.Params) -> Data:
    """Fruits to test on."""
    fruits = orchard(32, "test", each=2)
    return Data(train=colours.Colours(), test=LabelledTest(pixels=fruits.images, labels=fruits.labels, split="test"))


def generate(nets: Nets, noise: Tensor, labels: Tensor | None, params: colours.Params) -> Tensor:
    """Plain pictures, larger."""
    return colours.generate(nets, noise, labels, params)[..., :1, :1].expand(-1, -1, 32, 32)


recipe = dataclasses.replace(colours.recipe, data=data, sample=Sampling(generate=generate, noise_size=3))
