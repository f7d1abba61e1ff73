"""Nested test data: a function applied to every tensor in mappings, sequences and dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


def map_tensors(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """The value with each tensor changed: itself, or in a mapping, list, tuple or dataclass, nested. Types stay."""
    changed: Any = value
    if isinstance(value, Tensor):
        changed = change(value)
    elif isinstance(value, Mapping):
        changed = {name: map_tensors(item, change) for name, item in value.items()}
    elif isinstance(value, list | tuple):
        items = [map_tensors(item, change) for item in value]
        changed = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # a named tuple
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        changed = dataclasses.replace(value, **{name: map_tensors(getattr(value, name), change) for name in names})
    return changed  # type: ignore[no-any-return]
