"""prepare: the run that a config names, new or existing, with its modules placed on workers.

Deliberately not here: starting anything (`launch.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from modtrain import fs, placement
from modtrain.backends.base import python_path
from modtrain.config import Config, differences, load_recipe, new_spec
from modtrain.errors import InputError
from modtrain.recipe import Recipe
from modtrain.run import RUN_FILE, Run, RunSpec


def prepare(config: Config) -> Run:
    """The run that a config names: a new one, or the one of that name, if it was begun with the same settings."""
    path = Path(config.root).expanduser() / (config.name or new_name(config))
    if not (path / RUN_FILE).exists():
        recipe = load_recipe(config.recipe)
        return Run.create(path, new_spec(config, recipe, place(config, recipe)))
    run = Run.open(path)
    other = differences(config, load_recipe(run.spec.recipe), run.spec)
    if other:
        raise InputError(
            f"{run.path} exists and was begun with other settings: {'; '.join(other)}. Leave them out to go on "
            "with it, or choose another --name."
        )
    return run


def new_name(config: Config) -> str:
    """A name that no run in the root has: the recipe's with a number."""
    stem, there = Path(config.recipe).stem, fs.names(Path(config.root).expanduser())
    return next(name for number in range(1, len(there) + 2) if (name := f"{stem}-{number}") not in there)


def place(config: Config, recipe: Recipe) -> placement.Placement:
    """Which modules share a worker: by hand, or by `nodes` and, where they decide, measured step costs."""
    modules = list(recipe.modules)
    if config.place:
        return placement.parse(config.place, modules)
    nodes = config.nodes or len(modules)
    costs = measured_costs(new_spec(config, recipe, [modules])) if placement.needs_costs(modules, nodes) else {}
    return placement.place(modules, nodes, costs)


def measured_costs(spec: RunSpec) -> dict[str, float]:
    """Seconds a step by module, measured by a process of its own (`costs.py`)."""
    command = [sys.executable, "-m", "modtrain.costs"]
    environment = os.environ | python_path()
    found = subprocess.run(command, input=spec.model_dump_json(), capture_output=True, text=True, env=environment)
    if found.returncode:
        said = found.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(f"The costs of the modules could not be measured: {said[-1]}")
    return {name: float(cost) for name, cost in json.loads(found.stdout.strip().splitlines()[-1]).items()}
