"""Joined runs: a new run of a recipe whose parts are other recipes, with the trained modules of runs of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import flatten, parameters, with_values
from modtrain.scheduling.config import Config
from modtrain.scheduling.weights_import import Import, planned
from modtrain.storage.layout import RUN_FILE
from modtrain.storage.run import Run


def plan_joined(references: Sequence[str], config: Config, *, partial: bool = False) -> Import:
    """The run of a config with the trained modules of runs of the recipe's parts, and with their parameters.

    A reference is the folder of a run for its newest versions, or `RUN@12` or `RUN@best`. What the config sets comes
    before the parameters of the runs; without `dataroot` it is theirs. `partial`: the modules of a part without a run
    begin with random weights. InputError where a run is of no part, where a part has none and not `partial`, or where
    the run exists.
    """
    recipe = load_recipe(config.recipe)
    defaults = {parameter.name: parameter.default for parameter in parameters(recipe.params)}
    sources, found, dataroots = dict[str, str](), dict[str, Any](), dict[str, str | None]()
    for reference in references:
        run, version = _opened(reference)
        part = recipe.parts.get(run.spec.recipe)
        if part is None:
            raise InputError(_no_part(recipe, config.recipe, run))
        names = {part.name_of(module): f"{run.path}#{module}{version}" for module in run.modules}
        if twice := next((name for name in names if name in sources), None):
            raise InputError(
                f"{twice} is in {sources[twice]} and in {names[twice]}; give one run of {run.spec.recipe}."
            )
        sources |= names
        values = part.values_of_whole(run.spec.params)
        found |= {name: value for name, value in values.items() if name in defaults}
        dataroots[reference] = run.spec.dataroot
    if not partial:
        _check_complete(recipe, sources)
    for name in flatten(config.params):
        found.pop(name, None)
    params = {name: value for name, value in found.items() if value != _plain(defaults[name])}
    return planned(_with_data_of(dataroots, config), with_values(config.params, params), sources, params)


def _check_complete(recipe: Recipe, sources: Mapping[str, str]) -> None:
    lacking = [name for name, module in recipe.modules.items() if not module.is_fixed and name not in sources]
    if lacking:
        raise InputError(
            f"No run has {', '.join(lacking)}; give a run of each of {' and '.join(recipe.parts)}, or with --partial "
            "begin those modules with random weights."
        )


def _plain(default: Any) -> Any:
    """The default of a parameter as `run.json` has it."""
    return list(default) if isinstance(default, tuple) else default


def is_run(reference: str) -> bool:
    """Whether a reference is a run, or a version of one."""
    return any((Path(each).expanduser() / RUN_FILE).is_file() for each in (reference, reference.rpartition("@")[0]))


def _opened(reference: str) -> tuple[Run, str]:
    """The run of a reference, and its version with the sign before it."""
    folder, at, version = reference.rpartition("@")
    if not at or (Path(reference).expanduser() / RUN_FILE).is_file():
        return Run.open(Path(reference).expanduser()), ""
    return Run.open(Path(folder).expanduser()), f"@{version}"


def _no_part(recipe: Recipe, name: str, run: Run) -> str:
    parts = f"put together from {' and '.join(recipe.parts)}" if recipe.parts else "not put together from others"
    return (
        f"{run.path} is a run of {run.spec.recipe}, and {name} is {parts}. Begin a module with one of another run by "
        "`modtrain launch --init MODULE=RUN`."
    )


def _with_data_of(dataroots: Mapping[str, str | None], config: Config) -> Config:
    """The config with the data of the runs where it names none; InputError where theirs differ."""
    if config.dataroot is not None:
        return config
    if len(set(dataroots.values())) > 1:
        trained = " and ".join(f"{run} on {dataroot or 'built-in data'}" for run, dataroot in dataroots.items())
        raise InputError(f"The runs were trained on different data, {trained}; give --dataroot.")
    return config.model_copy(update={"dataroot": next(iter(dataroots.values()))})
