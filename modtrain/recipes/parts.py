"""A recipe as a part of a larger one, which has its modules under other names and its parameters in a group."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from modtrain.data.base import Batch
from modtrain.recipes.base import Module, Reads, Recipe
from modtrain.recipes.nets_view import Nets

Group = Callable[[Any], Any]
"""The parameters of the part, of those of the whole."""


def modules_of(recipe: Recipe, names: Mapping[str, str], group: Group) -> dict[str, Module]:
    """The modules of a recipe by the names that `names` has for some of them, trained as in a run of that recipe."""
    return {names.get(name, name): _part(module, names, group) for name, module in recipe.modules.items()}


def _part(module: Module, names: Mapping[str, str], group: Group) -> Module:
    values = {field.name: getattr(module, field.name) for field in fields(module)}
    own = {name: _of_group(value, group) for name, value in values.items() if callable(value)}
    if module.loss is not None:
        own["loss"] = _renamed(own["loss"], names)
    edges = (Reads(names.get(edge.peer, edge.peer), last=_of_group(edge.last, group)) for edge in module.edges())
    return replace(module, **own, reads=tuple(edges))


def _of_group(option: Any, group: Group) -> Any:
    """An option of a module with the parameters of the part: in every function of it they are the last argument."""
    if not callable(option):
        return option

    @functools.wraps(option)
    def with_own_params(*arguments: Any) -> Any:
        *others, params = arguments
        return option(*others, group(params))

    return with_own_params


def _renamed(loss: Callable[..., Any], names: Mapping[str, str]) -> Callable[..., Any]:
    @functools.wraps(loss)
    def with_own_names(nets: Nets, batch: Batch, params: Any) -> Any:
        return loss(nets.renamed(names), batch, params)

    return with_own_names
