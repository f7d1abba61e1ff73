"""Import: a new run that begins with the files in which another project keeps the networks of its recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.errors import InputError
from modtrain.recipes.formats import LATEST, WeightsFile, format_named
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import flatten, with_settings
from modtrain.scheduling.config import Config
from modtrain.scheduling.recipe_check import require_sound
from modtrain.scheduling.run_plan import RunPlan, find_target, plan_run
from modtrain.storage import filesystem
from modtrain.storage.manifest import refused
from modtrain.storage.run import Run

MOST_NAMED = 5
"""Files of a folder that an error names."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """A run that is to be created from files."""

    plan: RunPlan
    sources: Mapping[str, str]
    """By module the file, or the version of a run as `--init` takes it."""
    params: Mapping[str, Any]
    """The parameters that follow from these, by dotted name."""

    def create(self, notify: Callable[[str], None]) -> Run:
        """Create the run with the weights as version 0 of its modules, ready to apply and to train.

        InputError where the recipe cannot be trained, StorageError where storage fails; there is no run then. `notify`
        of warnings.
        """
        plan = self.plan
        if plan.is_checked:
            require_sound(plan.run.spec, notify, metric=plan.target.config.metric)
        from modtrain.training.initial_versions import publish_initial_versions  # imports torch, as the recipe has done

        try:
            with filesystem.assembled_folder(plan.target.path) as path:
                publish_initial_versions(Run.create(path, plan.run.spec, trusted=plan.run.trusted))
        except OSError as error:
            why = filesystem.why_not_created(error)
            raise refused(f"The run's folder {plan.target.path} cannot be created", error, why) from error
        return Run.open(plan.target.path, trusted=plan.run.trusted)


def plan_import(
    folder: Path, config: Config, *, format: str | None = None, epoch: str = LATEST, partial: bool = False
) -> Import:
    """The run of a config with the weights in a folder, and with the parameters that follow from them, such as widths.

    `partial`: a module without a file begins with random weights. InputError where files are missing or do not fit, or
    where the run exists.
    """
    recipe = load_recipe(config.recipe)
    named = format_named(recipe.formats, format, config.recipe).files
    files = _files(folder, named, epoch, partial=partial)
    params = _params({path: named[module] for module, path in files.items()}, flatten(config.params))
    values = with_settings(config.params, [f"{name}={value}" for name, value in params.items()])
    return planned(config, values, {module: str(path) for module, path in files.items()}, params)


def planned(config: Config, values: Mapping[str, Any], sources: Mapping[str, str], params: Mapping[str, Any]) -> Import:
    """The run of a config with these parameters and initial weights; `params` are those that follow from the weights.

    InputError where it exists.
    """
    target = find_target(config.model_copy(update={"params": values, "init": {**config.init, **sources}}))
    if os.path.lexists(target.path):
        raise InputError(f"{target.path} exists already; choose another --name.")
    return Import(plan=plan_run(target), sources=sources, params=params)


def _files(folder: Path, files: Mapping[str, WeightsFile], epoch: str, *, partial: bool) -> dict[str, Path]:
    """The files of a folder by module; InputError where there are none, or not `partial` and not all."""
    if not re.fullmatch(r"\w+", epoch):
        raise InputError(f"--epoch {epoch} is not allowed; give {LATEST}, or the number in the names of the files.")
    if folder.is_file():
        raise InputError(f"{folder} is a file; give the folder that it is in, {folder.absolute().parent}.")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the one with {files[next(iter(files))].at(epoch)}.")
    paths = {module: folder / file.at(epoch) for module, file in files.items()}
    there = {module: path for module, path in paths.items() if path.is_file()}
    missing = ", ".join(path.name for module, path in paths.items() if module not in there)
    if there and missing and not partial:
        raise InputError(
            f"{folder} has no {missing}; with --partial the modules without a file begin with random weights."
        )
    if not there:
        others = [name for name in filesystem.names(folder) if name.endswith((".pth", ".pth.tar"))]
        more = " and more" if len(others) > MOST_NAMED else ""
        raise InputError(f"{folder} has no {missing}; it has {', '.join(others[:MOST_NAMED]) or 'no .pth file'}{more}.")
    return there


def _params(files: Mapping[Path, WeightsFile], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that follow from files; InputError where one contradicts another, or a parameter that is given."""
    from modtrain.training.serialization import read_tensors

    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for path, file in files.items():
        for name, value in flatten(file.params(read_tensors(path, filesystem.read_file(path)))).items():
            if name in given and given[name] != value:
                raise InputError(f"{name} = {given[name]} contradicts {path}, which has {value}; leave it out.")
            if found.setdefault(name, value) != value:
                raise InputError(f"{path} has the {name} {value}, but {sources[name]} has {found[name]}.")
            sources.setdefault(name, str(path))
    return found
