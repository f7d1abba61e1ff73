"""Findings: what the check of a recipe has found so far, and how user code that it calls becomes a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from modtrain import plugins
from modtrain.data.nested import map_tensors
from modtrain.errors import ModtrainError

SAMPLES = 4
"""Samples of a batch, and of the test data, with which a function is called first."""

T = TypeVar("T")


@dataclass
class Findings:
    """What was found; `part` is what is being checked now, empty once everything is."""

    part: str = ""
    violations: list[str] = field(default_factory=list)
    """One sentence for each thing with which the run could not be trained, evaluated or resumed."""
    warnings: list[str] = field(default_factory=list)
    metrics: list[str] | None = None
    """Names of the metrics of the evaluation; None where it was not evaluated."""


def violations_in(recipe: str, part: str, check: Callable[[], Iterable[str] | None]) -> list[str]:
    """The violations that a check returns or yields; an exception is one more, with the line of the recipe."""
    found = list[str]()
    try:
        with plugins.user_code_errors("recipe", recipe), plugins.calling(part):
            for violation in check() or ():
                found.append(violation)  # those before an exception count
    except ModtrainError as error:
        found.append(str(error))
    return found


def confirmed(check: Callable[[int | None], list[str]]) -> list[str]:
    """What a check finds: with few samples, which is quick, and where that finds something with all of them.

    A loss may need the batch size of the parameters, and an evaluation all of the test data.
    """
    return check(SAMPLES) and check(None)


def first_samples(value: T, count: int | None) -> T:
    """The value with the first `count` entries of every tensor in it; for None as it is."""
    if count is None:
        return value
    return map_tensors(value, lambda tensor: tensor[:count] if tensor.dim() else tensor)


def first_image(value: Any) -> Tensor | None:
    """The first image, of shape (1, 3, height, width), in containers of tensors; None where there is none."""
    if isinstance(value, Tensor):
        is_image = value.dim() == 4 and value.shape[1] == 3 and value.is_floating_point() and len(value)
        return value[:1] if is_image else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((image for item in items if (image := first_image(item)) is not None), None)
