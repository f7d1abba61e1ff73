"""The built-in pairs: what a thermal camera sees of a fruit (A), and the same scene in colour (B).

Twelve cultivars stand for twelve persons. The thermal picture is grey: warm where the surface faces the camera, cooler
in its hollows, over a blurred trace of the ground, with noise. Outline and spots are in it, colours are not. Everything
is a function of the arguments.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.cache import Tensors, cached
from modtrain.data.fruits import backgrounds, rendering
from modtrain.data.fruits.cultivars import CULTIVARS, Fruit, fruit, of_cultivars
from modtrain.data.fruits.dataset import MIN_SIZE, parts, random_scenes, to_bytes
from modtrain.errors import InputError

FORMAT = 1
"""Part of the cache's key; to be raised when the same arguments give other pictures."""

BLUR = 0.06
"""Deviation of the ground's blur, as a share of the picture's side."""
LUMINANCE = (0.299, 0.587, 0.114)
NOISE = 0.02
EACH = {"train": 100, "val": 8, "test": 8}
"""Pairs of each cultivar."""


@dataclass(frozen=True)
class Thermal:
    """Pairs, uint8 (N, 6, size, size) with A in the first three channels, and the number of each one's cultivar."""

    pairs: Tensor
    labels: Tensor
    """int64 (N,)."""


def thermal(size: int, split: Literal["train", "val", "test"], *, each: int | None = None, seed: int = 0) -> Thermal:
    """The pairs of a split, `each` of every cultivar, by default as many as `EACH` says. Raises InputError."""
    count = EACH[split] if each is None else each
    if size < MIN_SIZE or min(count, seed) < 0:
        raise InputError(
            f"thermal pairs need a size of at least {MIN_SIZE} pixels and no negative number: "
            f"got size={size}, each={count}, seed={seed}."
        )
    name = f"thermal-{FORMAT}-size{size}-{split}{count}-seed{seed}"
    return Thermal(**cached(name, functools.partial(_paint, size, split, count, seed)))


def _paint(size: int, split: str, each: int, seed: int) -> Tensors:
    rng = np.random.default_rng([seed, list(EACH).index(split), len(CULTIVARS)])
    labels = np.repeat(np.arange(len(CULTIVARS)), each)
    crops = backgrounds.draw_crops(len(labels), rng=rng, testing=split != "train")
    scenes = of_cultivars(random_scenes(len(labels), rng), labels)
    pairs = np.empty((len(labels), 6, size, size), np.uint8)
    for chosen, part, ground, surface in parts(scenes, crops, size):
        shown = fruit(part, labels[chosen], surface)
        pairs[chosen, :3] = to_bytes(_thermal_view(shown, ground, rng))
        pairs[chosen, 3:] = to_bytes(shown.stem.over(shown.body.over(ground)))
    return asdict(Thermal(torch.from_numpy(pairs), torch.from_numpy(labels)))


def _thermal_view(fruit: Fruit, ground: rendering.Array, rng: np.random.Generator) -> rendering.Array:
    """Grey, (N, 1, S, S)."""
    warmth = 0.55 * fruit.body.coverage * (0.6 + 0.4 * fruit.facing - 0.15 * fruit.hollow)
    luminance = np.tensordot(ground, np.array(LUMINANCE, np.float32), axes=(1, 0))[:, None]
    blur = _blur(ground.shape[-1])
    noise = rng.standard_normal(luminance.shape, np.float32)
    view: rendering.Array = 0.25 + warmth + 0.2 * (blur @ luminance @ blur.T) + NOISE * noise
    return view


@functools.cache
def _blur(size: int) -> NDArray[np.float32]:
    """A Gaussian blur along one axis as a matrix; at the edge only what is in the picture counts."""
    places = (np.arange(size, dtype=np.float32) + 0.5) / size
    weights = np.exp(-(((places[:, None] - places[None, :]) / BLUR) ** 2) / 2)
    blur: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return blur
