"""Test data of any shape reaches `evaluate` as what it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from modtrain.data.nested import map_tensors

ONE, TWO = torch.tensor(1), torch.tensor(2)


class Pair(NamedTuple):
    images: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Derived:
    images: Tensor
    name: str
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", int(self.images))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ONE, TWO),
        ({"a": [ONE, "text"]}, {"a": [TWO, "text"]}),
        ((ONE, None), (TWO, None)),
        (Pair(ONE, ONE), Pair(TWO, TWO)),
        (Derived(ONE, "x"), Derived(TWO, "x")),
        (Tensor, Tensor),
    ],
    ids=["tensor", "mapping and list", "tuple", "named tuple", "dataclass", "neither"],
)
def test_every_tensor_is_changed_and_the_types_stay(given: Any, expected: Any) -> None:
    changed = map_tensors(given, lambda tensor: tensor + 1)
    assert (type(changed), changed) == (type(expected), expected)
