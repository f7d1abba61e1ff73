"""Part: a recipe that is a part of a larger one, which has its modules and its parameters under other names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from modtrain.errors import InputError
from modtrain.recipes.params import flatten


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part is called in the whole."""

    names: Mapping[str, str] = field(default_factory=dict)
    """The modules of the part whose names are others in the whole, by their own names."""
    group: str = ""
    """The parameter of the whole that has those of the part; empty: they are among those of the whole."""

    def name_of(self, module: str) -> str:
        """What a module of the part is called in the whole."""
        return self.names.get(module, module)

    def params_of(self, params: Any) -> Any:
        """The parameters of the part, of those of the whole."""
        return attrgetter(self.group)(params) if self.group else params

    def values_of_whole(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of the part, nested, by their dotted names in the whole."""
        return flatten(values, f"{self.group}." if self.group else "")


def check_parts(parts: Any, modules: Collection[str]) -> None:
    """InputError where the parts of a recipe are none, or not of its modules."""
    if not isinstance(parts, Mapping) or not all(isinstance(each, Part) for each in parts.values()):
        raise InputError(f"parts = {parts!r} is not allowed; give parts={{'name of a recipe': Part(names=...)}}.")
    for name, part in parts.items():
        if foreign := [each for each in part.names.values() if each not in modules]:
            raise InputError(f"The part {name!r} names {foreign[0]!r}, but the recipe has {', '.join(modules)}.")
