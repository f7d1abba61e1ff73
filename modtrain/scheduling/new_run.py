"""prepare: the run that a config names, new or existing, with its modules placed on workers.

Deliberately not here: starting anything (`launch.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from modtrain.errors import InputError, ModtrainError, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling import job_record, placement
from modtrain.scheduling.config import Config, differences, new_spec
from modtrain.scheduling.python_path import python_path
from modtrain.storage import filesystem
from modtrain.storage.layout import RUN_FILE
from modtrain.storage.liveness import live_modules
from modtrain.storage.run import Run, RunSpec


def prepare(config: Config, *, named_by_folder: bool = False) -> Run:
    """The run that a config names: a new one, or the one of that name, if it was begun with the same settings.

    One in which nothing was ever published, and nothing runs or is queued, takes the config's settings: what failed
    before its first step, or was only a dry run, is corrected by the corrected command. Not so where the run was
    `named_by_folder`, since that command says nothing of its settings.
    """
    path = Path(config.root).expanduser() / (config.name or new_name(config))
    if not (path / RUN_FILE).exists():
        return Run.create(path, draft(config, load_recipe(config.recipe)).spec)
    run = Run.open(path)
    if not named_by_folder and not _has_begun(run):
        return run.replace_spec(draft(config, load_recipe(config.recipe)).spec)
    other = differences(config, load_recipe(run.spec.recipe), run.spec)
    if other:
        raise InputError(
            f"{run.path} exists and was begun with other settings: {'; '.join(other)}. Leave them out to go on "
            "with it, or choose another --name."
        )
    return run


def _has_begun(run: Run) -> bool:
    if any(run.store(module).versions() for module in run.modules):
        return True
    if live_modules(run):
        return True
    try:
        return any(state.live for state in job_record.job_states(run).values())
    except ModtrainError:  # nobody can say
        return True


def new_name(config: Config) -> str:
    """A name that no run in the root has: the recipe's with a number."""
    root = Path(config.root).expanduser()
    if root.exists() and not root.is_dir():
        raise InputError(f"--root {root} is a file, but must be a folder; runs are made in it.")
    stem, there = Path(config.recipe).stem, filesystem.names(root)
    return next(name for number in range(1, len(there) + 2) if (name := f"{stem}-{number}") not in there)


def unfinished(config: Config) -> Run | None:
    """The newest run that `new_name` named for this recipe, if it has not reached its end."""
    number = int(new_name(config).rpartition("-")[2]) - 1
    path = Path(config.root).expanduser() / f"{Path(config.recipe).stem}-{number}"
    if not (path / RUN_FILE).exists():
        return None
    run = Run.open(path)
    return None if run.is_finished(run.modules) else run


@dataclass(frozen=True)
class Draft:
    """What a new run would be, and the step costs that decided its placement (none where they did not)."""

    spec: RunSpec
    costs: dict[str, float]


def draft(config: Config, recipe: Recipe) -> Draft:
    """Decide everything of a new run and write nothing; InputError where the config cannot be trained."""
    if config.dataroot:
        check_dataroot(Path(config.dataroot).expanduser(), recipe)
    modules, costs = list(recipe.modules), dict[str, float]()
    if config.place is not None:
        placed = placement.parse(config.place, modules)
    else:
        nodes = config.nodes or len(modules)
        if placement.needs_costs(modules, nodes):
            costs = measured_costs(new_spec(config, recipe, [modules]))
        placed = placement.place(modules, nodes, costs)
    return Draft(new_spec(config, recipe, placed), costs)


def check_dataroot(path: Path, recipe: Recipe) -> None:
    """A folder that is not there, or not laid out as the recipe needs it, must not leave a run behind."""
    if not path.is_dir():
        beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
        what = "is a file, but must be a folder" if path.exists() else "does not exist"
        raise InputError(f"--dataroot {path} {what}.{did_you_mean(path.name, beside)}")
    if recipe.check_dataroot:
        recipe.check_dataroot(path)


def measured_costs(spec: RunSpec) -> dict[str, float]:
    """Seconds a step by module, measured by a process of its own (`costs.py`)."""
    command = [sys.executable, "-m", "modtrain.training.step_costs"]
    environment = os.environ | python_path()
    found = subprocess.run(command, input=spec.model_dump_json(), capture_output=True, text=True, env=environment)
    if found.returncode:
        said = found.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(f"The costs of the modules could not be measured: {said[-1]}")
    return {name: float(cost) for name, cost in json.loads(found.stdout.strip().splitlines()[-1]).items()}
