"""Recipe, parameters and data of a run, loaded as its `run.json` specifies."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from modtrain import plugins
from modtrain.data.base import Data
from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.params import build_params
from modtrain.storage.run import RunSpec

log = logging.getLogger(__name__)


def load_recipe(name: str) -> Recipe:
    """The recipe of a name, an importable module or a Python file; InputError where there is none."""
    recipe = plugins.load("recipe", recipe_name(name))
    if not isinstance(recipe, Recipe):
        raise InputError(f"{name} defines `recipe`, but it is a {type(recipe).__name__}, not a Recipe.")
    return recipe


def recipe_of(spec: RunSpec) -> Recipe:
    """The recipe of a run; logs a warning where the user's file has changed since the run was created."""
    recipe = load_recipe(spec.recipe)
    if recipe_sha256(spec.recipe) != spec.recipe_sha256:
        log.warning("The recipe %s has changed since this run was created.", spec.recipe)
    return recipe


def params_of(spec: RunSpec, recipe: Recipe) -> Any:
    """The validated `Params` of a run."""
    return build_params(recipe.params, spec.params)


def data_of(spec: RunSpec, recipe: Recipe, params: Any) -> Data:
    """The data of a run; InputError where the training data has no complete batch."""
    data = recipe.data(Path(spec.dataroot) if spec.dataroot else None, params)
    if len(data.train) < 1:
        raise InputError(f"The training data ({data.description}) has no complete batch; lower the batch size.")
    return data


def recipe_name(recipe: str) -> str:
    """A recipe or tracker as `run.json` spells it: a user's file by its absolute path."""
    return str(Path(recipe).expanduser().resolve()) if plugins.is_file(recipe) else recipe


def recipe_sha256(recipe: str) -> str | None:
    """The checksum of a user's recipe file; None for a recipe that comes from a package."""
    path = Path(recipe)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".py" and path.is_file() else None
