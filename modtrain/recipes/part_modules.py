"""The modules and formats of a recipe that is a part of a larger one, as those of that one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from modtrain.data.base import Batch
from modtrain.recipes.base import Module, Reads, Recipe
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.part import Part


def modules_of(recipe: Recipe, part: Part) -> dict[str, Module]:
    """The modules of a recipe by their names in the larger one, trained as in a run of their own recipe."""
    return {part.name_of(name): _in_whole(module, part) for name, module in recipe.modules.items()}


def formats_of(recipe: Recipe, part: Part) -> dict[str, Format]:
    """The formats of a recipe, for its modules in the larger one."""
    return {
        name: Format(files={part.name_of(module): _of_whole(file, part) for module, file in format.files.items()})
        for name, format in recipe.formats.items()
    }


def _of_whole(file: WeightsFile, part: Part) -> WeightsFile:
    return replace(file, params=lambda tensors: part.values_of_whole(file.params(tensors)))


def _in_whole(module: Module, part: Part) -> Module:
    values = {field.name: getattr(module, field.name) for field in fields(module)}
    own = {name: _with_own_params(value, part) for name, value in values.items() if callable(value)}
    if module.loss is not None:
        own["loss"] = _with_own_names(own["loss"], part)
    edges = (Reads(part.name_of(edge.peer), last=_with_own_params(edge.last, part)) for edge in module.edges())
    return replace(module, **own, reads=tuple(edges))


def _with_own_params(option: Any, part: Part) -> Any:
    """An option of a module with the parameters of the part: in every function of it they are the last argument."""
    if not callable(option):
        return option

    @functools.wraps(option)
    def of_part(*arguments: Any) -> Any:
        *others, params = arguments
        return option(*others, part.params_of(params))

    return of_part


def _with_own_names(loss: Callable[..., Any], part: Part) -> Callable[..., Any]:
    @functools.wraps(loss)
    def of_part(nets: Nets, batch: Batch, params: Any) -> Any:
        return loss(nets.renamed(part.names), batch, params)

    return of_part
