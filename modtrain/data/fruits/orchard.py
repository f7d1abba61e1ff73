"""The built-in labelled pictures: eight classes of fruit, one in each picture, over real photographs.

Place, size, tilt, light, ground and hue vary. Everything is a function of the arguments.
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
from modtrain.data.fruits import backgrounds
from modtrain.data.fruits.dataset import check_numbers, parts, random_scenes, to_bytes
from modtrain.data.fruits.species import SPECIES, Species

FORMAT = 1
"""Part of the cache's key; to be raised when the same arguments give other pictures."""

CLASSES = tuple(SPECIES)
"""Names of the classes, in the order of their labels."""
EACH = {"train": 500, "test": 125}
"""Pictures of each class."""


@dataclass(frozen=True)
class Orchard:
    """Pictures, uint8 (N, 3, size, size), class by class, and what is known of each."""

    images: Tensor
    labels: Tensor
    """int64 (N,): numbers in `CLASSES`."""
    scenes: Tensor
    """float32 (N, 4): x, y of the fruit's centre and its radius as shares of the side, hue of its skin in degrees."""


def orchard(size: int, split: Literal["train", "test"], *, each: int | None = None, seed: int = 0) -> Orchard:
    """The pictures of a split, `each` of every class, by default as many as `EACH` says. Raises InputError."""
    count = EACH[split] if each is None else each
    check_numbers("orchard pictures", size=size, each=count, seed=seed)
    name = f"orchard-{FORMAT}-size{size}-{split}{count}-seed{seed}"
    return Orchard(**cached(name, functools.partial(_paint_all, size, split, count, seed)))


def _paint_all(size: int, split: str, each: int, seed: int) -> Tensors:
    painted = [_paint(size, split, each, [seed, number], species) for number, species in enumerate(SPECIES.values())]
    images, scenes = (torch.from_numpy(np.concatenate(part)) for part in zip(*painted, strict=True))
    return asdict(Orchard(images, torch.arange(len(CLASSES)).repeat_interleave(each), scenes))


def _paint(
    size: int, split: str, each: int, key: list[int], species: Species
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The pictures of one class, and their scenes."""
    rng = np.random.default_rng([*key, list(EACH).index(split)])
    crops = backgrounds.draw_crops(each, rng=rng, testing=split == "test")
    scenes = species.scenes(random_scenes(each, rng))
    images = np.empty((each, 3, size, size), np.uint8)
    for chosen, part, picture, surface in parts(scenes, crops, size, species.foot):
        for layer in species.paint(part, surface):
            picture = layer.over(picture)
        images[chosen] = to_bytes(picture)
    place = [field[:, 0, 0, 0] for field in (scenes.x, scenes.y, scenes.radius)]
    return images, np.stack([*place, species.hue(scenes)], 1)
