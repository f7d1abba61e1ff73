"""Recipe, parameters and data of a run, loaded as its `run.json` specifies."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from modtrain import plugins
from modtrain.data.base import Data
from modtrain.errors import InputError, ModtrainError
from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import check_data
from modtrain.recipes.params import build_params, with_values
from modtrain.recipes.trust import check_files
from modtrain.storage.filesystem import fault_of
from modtrain.storage.layout import RUN_FILE
from modtrain.storage.run import Change, Run, RunSpec, StageSpec

log = logging.getLogger(__name__)


def load_recipe(name: str, *, sha256: str | None = None) -> Recipe:
    """The recipe of a name, an importable module or a Python file; InputError where there is none.

    A file whose content has not the checksum `sha256` is not executed: ChangedFile.
    """
    recipe = plugins.load("recipe", recipe_name(name), sha256=sha256)
    if not isinstance(recipe, Recipe):
        raise InputError(f"{name} defines `recipe`, but it is a {type(recipe).__name__}, not a Recipe.")
    return recipe


def recipe_of(run: Run) -> Recipe:
    """The recipe of a run; InputError, before anything is executed, where it or a tracker of the run is not trusted."""
    spec = run.spec
    if run.trusted:
        return load_recipe(spec.recipe)
    return recorded_recipe(run.path / RUN_FILE, spec.recipe, spec.recipe_sha256, spec.track, trusted=False)


def accept_recipe(run: Run) -> Run:
    """The run with the checksum that its recipe's file has now, noted in `run.json`, where the run is trusted.

    Later commands accept the file then. Where the folder cannot be written, they refuse it as before.
    """
    recipe, edited = run.spec.recipe, recipe_sha256(run.spec.recipe)
    if not run.trusted or run.spec.recipe_sha256 == edited:
        return run
    spec = Run.open(run.path).spec
    if spec.recipe_sha256 != edited:
        log.warning("Takes the recipe %s as it is now: it has changed since %s was created.", recipe, run.name)
        change = Change(name="recipe_sha256", before=spec.recipe_sha256, after=edited, at=time.time())
        try:
            run.replace_spec(spec.model_copy(update={"recipe_sha256": edited, "changes": [*spec.changes, change]}))
        except OSError as error:
            log.warning("That could not be noted in %s: %s.", run.path / RUN_FILE, error.strerror)
    return replace(run, spec=run.spec.model_copy(update={"recipe_sha256": edited}))


def recorded_recipe(
    manifest: Path, recipe: str, sha256: str | None, trackers: Iterable[str], *, trusted: bool
) -> Recipe:
    """The recipe that a manifest names, with its checksum; `trusted` executes it whatever the file is now."""
    if trusted:
        if recipe_sha256(recipe) != sha256:
            log.warning("The recipe %s has changed since %s was created.", recipe, manifest.parent.name)
        return load_recipe(recipe)
    check_files(manifest, recipe, trackers)
    try:
        return load_recipe(recipe, sha256=sha256 or "none")
    except plugins.ChangedFile as error:
        raise InputError(
            f"The recipe {recipe} has changed since {manifest.parent.name} was created. Restore it, or read it and "
            f"accept it as it is now with --trust-recipe (in Python with trusted=True)."
        ) from error


def params_of(spec: RunSpec, recipe: Recipe, stage: StageSpec | None = None) -> Any:
    """The validated `Params` of a run, or those of one of its stages."""
    return build_params(recipe.params, with_values(spec.params, stage.params if stage else {}))


def data_of(spec: RunSpec, recipe: Recipe, params: Any, *, read: Data | None = None) -> Data:
    """The data of a run; InputError where the recipe does not return such data, or it has no complete batch.

    `read` is the data of other parameters of the run, of which it may be made.

    What a recipe draws for it from the generators of torch, NumPy and Python follows from the run's seed: every worker
    and every evaluation has the same data. That of torch is seeded, the others are left as they were.
    """
    import numpy as np
    import torch  # as the recipe has done

    torch.manual_seed(spec.seed)
    before, python = np.random.get_state(), random.getstate()
    np.random.seed(spec.seed % 2**32)
    random.seed(spec.seed)
    try:
        with plugins.calling("`data` of the recipe", recipe.data):
            if read is not None and read.at is not None:
                made = read.at(params)
            else:
                made = recipe.data(Path(spec.dataroot) if spec.dataroot else None, params)
            data = check_data(made, recipe.data)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModtrainError) or fault_of(error) is not None:  # storage may answer the next time
            raise
        hint = "" if spec.dataroot else " If it needs a folder, give it with --dataroot."
        raise InputError(f"{plugins.failure(error, 'recipe', spec.recipe)}.{hint}") from error
    finally:
        np.random.set_state(before)
        random.setstate(python)
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
