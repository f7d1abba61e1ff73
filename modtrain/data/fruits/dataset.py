"""The built-in data set: apples (domain A) and oranges (domain B), painted over real photographs.

The training pictures are unpaired: each is a scene of its own. Each scene of the test split is painted twice, so that
every apple has its *true* orange with the same place, size, tilt, background, shadow and light. A translation can thus
be scored exactly; outside of the mask both pictures are equal. Everything is a function of the arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.data.cache import Tensors, cached
from modtrain.data.fruits import backgrounds, rendering
from modtrain.errors import InputError

FORMAT = 1
"""Part of the cache's key; to be raised when the same arguments give other pictures."""

MIN_SIZE = 16
PIXELS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Fruits:
    """Pictures are uint8 of shape (N, 3, size, size); the mask is uint8 of shape (M, 1, size, size), 1 on the fruit."""

    train_a: Tensor
    train_b: Tensor
    test_a: Tensor
    test_b: Tensor
    test_mask: Tensor


def fruits(size: int, *, train: int = 800, test: int = 64, seed: int = 0) -> Fruits:
    """`train` apples and as many oranges for training, and `test` pairs of size x size pixels. Raises InputError."""
    check_numbers("fruits", size=size, train=train, test=test, seed=seed)
    name = f"fruits-{FORMAT}-size{size}-train{train}-test{test}-seed{seed}"
    return Fruits(**cached(name, functools.partial(_paint_all, size, train, test, seed)))


def check_numbers(kind: str, *, size: int, **numbers: int) -> None:
    """Raises InputError where a fruit cannot be painted so small, or a number is negative."""
    if size < MIN_SIZE or min(numbers.values()) < 0:
        given = ", ".join(f"{name}={number}" for name, number in {"size": size, **numbers}.items())
        raise InputError(f"{kind} need a size of at least {MIN_SIZE} pixels and no negative number: got {given}.")


def _paint_all(size: int, train: int, test: int, seed: int) -> Tensors:
    train_a, _, _ = _paint(size, train, [seed, 0], apples=True)
    _, train_b, _ = _paint(size, train, [seed, 1], oranges=True)
    return asdict(Fruits(train_a, train_b, *_paint(size, test, [seed, 2], testing=True, apples=True, oranges=True)))


def _paint(
    size: int, count: int, seed: list[int], *, testing: bool = False, apples: bool = False, oranges: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The same scenes with apples, with oranges, and the mask; a fruit that is not requested leaves its array zero."""
    rng = np.random.default_rng(seed)
    crops, scenes = backgrounds.draw_crops(count, rng=rng, testing=testing), random_scenes(count, rng)
    a, b = np.zeros((2, count, 3, size, size), np.uint8)
    mask = np.zeros((count, 1, size, size), np.uint8)
    for chosen, part, ground, surface in parts(scenes, crops, size):
        if apples:
            body, stem = rendering.apple(part, surface)
            a[chosen] = to_bytes(stem.over(body.over(ground)))
            mask[chosen] |= (body.coverage > 0) | (stem.coverage > 0)
        if oranges:
            fruit = rendering.orange(part, surface)
            b[chosen] = to_bytes(fruit.over(ground))
            mask[chosen] |= fruit.coverage > 0
    return torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(mask)


def parts(
    scenes: rendering.Scenes, crops: list[backgrounds.Crop], size: int, foot: float = 1.0
) -> Iterator[tuple[slice, rendering.Scenes, rendering.Array, rendering.Surface]]:
    """The scenes in parts that fit into memory: which, themselves, their ground with the shadow, and their surface.

    `foot` as of `rendering.with_shadow`.
    """
    step = max(1, PIXELS_AT_ONCE // size**2)
    for first in range(0, len(crops), step):
        chosen = slice(first, first + step)
        part = scenes.part(chosen)
        ground = rendering.with_shadow(backgrounds.cut(crops[chosen], size), part, foot)
        yield chosen, part, ground, rendering.surface(part, size)


def random_scenes(count: int, rng: np.random.Generator) -> rendering.Scenes:
    """Random scenes: the whole fruit is in the picture, the light comes from above."""

    def uniform(low: float, high: float) -> rendering.Array:
        return rng.uniform(low, high, (count, 1, 1, 1)).astype(np.float32)

    radius = uniform(0.275, 0.37)
    x, y = (radius * 1.03 + uniform(0, 1) * (1 - radius * 2.06) for _ in "xy")
    return rendering.Scenes(
        x=x,
        y=y,
        radius=radius,
        tilt=uniform(-0.6, 0.6),
        light_x=uniform(-0.62, 0.62),
        light_y=uniform(0.30, 0.68),
        light=uniform(0.82, 1.10),
        ripeness=uniform(0.2, 1.0),
        tone=rng.standard_normal((count, 1, 1, 1)).astype(np.float32).clip(-2, 2),
        blush=uniform(0, 2 * np.pi),
        texture=uniform(0, 1),
    )


def to_bytes(picture: rendering.Array) -> NDArray[np.uint8]:
    """A picture from 0 to 1, rounded."""
    rounded: NDArray[np.uint8] = (picture * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return rounded
