"""Sampling: how a recipe makes images from noise, without an input image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.nets_view import Nets

if TYPE_CHECKING:
    from torch import Tensor

Params = Any
"""An object of the recipe's own Params class."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A generator of images as `modtrain sample` and `load(run).sample` use it."""

    generate: Callable[[Nets, Tensor, Tensor | None, Params], Tensor]
    """`generate(nets, noise, labels, params)`: noise (N, noise_size) to images (N, 3, H, W), float32 in [-1, 1].

    `labels` are the classes of the images, int64 (N,), or None without `classes`. `nets` are those of `apply`.
    """
    noise_size: int | Callable[[Params], int]
    """Numbers of noise for each image, or a function of the parameters; each is drawn from N(0, 1), or truncated."""
    classes: Callable[[Path | None, Params], Sequence[str]] | None = None
    """`classes(dataroot, params)` names the classes in the order of their labels, quickly; None: there are none."""

    def __post_init__(self) -> None:
        for name in ("generate", "classes"):
            value = getattr(self, name)
            if not callable(value) and not (name == "classes" and value is None):
                raise InputError(f"`{name}` of Sampling is {value!r}, but must be a function.")


def label_of(name: str, classes: Sequence[str], recipe: str) -> int:
    """The label of the class of a name; InputError where there is no such class."""
    if not classes:
        raise InputError(f"The recipe {recipe} has no classes; sample without one.")
    if name not in classes:
        raise InputError(f"There is no class {name!r}; there are {', '.join(classes)}.{did_you_mean(name, classes)}")
    return list(classes).index(name)
