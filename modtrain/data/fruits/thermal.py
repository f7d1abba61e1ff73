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
from modtrain.data.fruits.backgrounds import Crop
from modtrain.data.fruits.cultivars import CULTIVARS, Fruit, fruit, of_cultivars
from modtrain.data.fruits.dataset import check_numbers, parts, random_scenes, to_bytes
from modtrain.data.fruits.rendering import Scenes

FORMAT = 3
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
    masks: Tensor
    """uint8 (N, 1, size, size), 1 on the fruit."""


def thermal(size: int, split: Literal["train", "val", "test"], *, each: int | None = None, seed: int = 0) -> Thermal:
    """The pairs of a split, `each` of every cultivar, by default as many as `EACH` says. Raises InputError."""
    count = _count(size, split, each, seed)
    name = f"thermal-{FORMAT}-size{size}-{split}{count}-seed{seed}"
    return Thermal(**cached(name, functools.partial(_paint, size, split, count, seed)))


def thermal_candidates(
    size: int, split: Literal["train", "val", "test"], *, each: int | None = None, seed: int = 0
) -> Tensor:
    """The scenes of `thermal` with a fruit of every cultivar, in colour: uint8 (N, cultivars, 3, size, size).

    The true picture is among them, at its label. What a picture of the scene shows is thus the nearest of them.
    """
    count = _count(size, split, each, seed)
    name = f"thermal-candidates-{FORMAT}-size{size}-{split}{count}-seed{seed}"
    return cached(name, functools.partial(_paint_candidates, size, split, count, seed))["candidates"]


def _count(size: int, split: str, each: int | None, seed: int) -> int:
    count = EACH[split] if each is None else each
    check_numbers("thermal pairs", size=size, each=count, seed=seed)
    return count


def _draw(split: str, each: int, seed: int) -> tuple[NDArray[np.int64], list[Crop], Scenes, np.random.Generator]:
    """The labels, grounds and scenes of a split, and the generator for what comes after them."""
    rng = np.random.default_rng([seed, list(EACH).index(split), len(CULTIVARS)])
    labels = np.repeat(np.arange(len(CULTIVARS)), each)
    crops = backgrounds.draw_crops(len(labels), rng=rng, testing=split != "train")
    return labels, crops, random_scenes(len(labels), rng), rng


def _paint(size: int, split: str, each: int, seed: int) -> Tensors:
    labels, crops, scenes, rng = _draw(split, each, seed)
    pairs = np.empty((len(labels), 6, size, size), np.uint8)
    masks = np.empty((len(labels), 1, size, size), np.uint8)
    for chosen, part, ground, surface in parts(of_cultivars(scenes, labels), crops, size):
        shown = fruit(part, labels[chosen], surface)
        pairs[chosen, :3] = to_bytes(_thermal_view(shown, ground, rng))
        pairs[chosen, 3:] = _in_colour(shown, ground)
        masks[chosen] = (shown.body.coverage > 0) | (shown.stem.coverage > 0)
    return asdict(Thermal(*map(torch.from_numpy, (pairs, labels, masks))))


def _paint_candidates(size: int, split: str, each: int, seed: int) -> Tensors:
    labels, crops, scenes, _ = _draw(split, each, seed)
    candidates = np.empty((len(labels), len(CULTIVARS), 3, size, size), np.uint8)
    for number in range(len(CULTIVARS)):
        alike = np.full_like(labels, number)
        for chosen, part, ground, surface in parts(of_cultivars(scenes, alike), crops, size):
            candidates[chosen, number] = _in_colour(fruit(part, alike[chosen], surface), ground)
    return {"candidates": torch.from_numpy(candidates)}


def _in_colour(fruit: Fruit, ground: rendering.Array) -> NDArray[np.uint8]:
    return to_bytes(fruit.stem.over(fruit.body.over(ground)))


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
