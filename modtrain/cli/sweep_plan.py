"""The sweep of a `sweep` command line: opened or planned, its backend chosen, then created.

    target = read_target(...)  # folder, settings, recipe, existing sweep
    plan = plan_sweep(target)  # settings compared or trials decided, backend and trials at a time chosen
    sweep = plan.write()

Only `write` creates anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from modtrain import plugins
from modtrain.cli.arguments import file_or_folder, job_options, recipe_settings
from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import parameters, with_settings
from modtrain.scheduling.backends.base import Backend, BackendOptions
from modtrain.scheduling.config import Config, read_config
from modtrain.scheduling.job_record import Record
from modtrain.scheduling.run_plan import choose_backend, choose_options
from modtrain.storage import filesystem
from modtrain.storage.layout import SWEEP_FILE
from modtrain.storage.manifest import check_name
from modtrain.sweeps import space
from modtrain.sweeps.runner import check_at_once, uses_arrays
from modtrain.sweeps.sweep import Sweep, SweepSpec, new_sweep
from modtrain.sweeps.sweep_config import SweepSection, read_section
from modtrain.sweeps.sweep_jobs import SweepRecord, previous_sweep_launch, read_sweep_record
from modtrain.sweeps.sweep_resume import resumed_spec


@dataclass(frozen=True, kw_only=True)
class SweepTarget:
    """The folder that a command line names, its settings, and the sweep in it."""

    config: Config
    section: SweepSection
    varied: space.Space
    path: Path
    recipe: Recipe
    sweep: Sweep | None
    """The sweep in the folder, if there is one."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep as it is, or as it will be once `write` has created it, and how it is to run."""

    target: SweepTarget
    spec: SweepSpec
    backend_name: str
    options: BackendOptions
    backend: Backend
    at_once: int | None
    """Trials at the same time; None where neither the command nor an earlier one says it."""

    @property
    def is_new(self) -> bool:
        """Whether the sweep does not exist yet."""
        return self.target.sweep is None

    @property
    def uses_arrays(self) -> bool:
        """Whether the trials are submitted as arrays."""
        return uses_arrays(self.spec, self.backend)

    def write(self) -> Sweep:
        """Create the sweep, or write what the command changes of an existing one."""
        if self.target.sweep is None:
            return Sweep.create(self.target.path, self.spec)
        return self.target.sweep.with_spec(self.spec)


def read_target(
    ctx: typer.Context,
    path: Path | None,
    options: Mapping[str, Any],
    section_options: Mapping[str, Any],
    *,
    settings: Sequence[str],
    vary: Sequence[str],
    space_file: Path | None,
) -> SweepTarget:
    """Read the config file or the sweep, the recipe, the options of its parameters, and the space."""
    given = {**options, "job": job_options(ctx)}
    file, given = file_or_folder(path, given, "sweep", lambda folder: Sweep.open(folder).path)
    config = read_config(file, given, [])
    folder = _folder(config)
    sweep = Sweep.open(folder) if (folder / SWEEP_FILE).exists() else None
    if sweep is None and folder.exists():
        raise InputError(f"{folder} exists and is not a sweep; choose another --name or --root.")
    has_recipe = "recipe" in config.model_fields_set
    recipe = load_recipe(config.recipe if has_recipe or sweep is None else sweep.spec.config["recipe"])
    names = [parameter.name for parameter in parameters(recipe.params)]
    params = with_settings(config.params, [*recipe_settings(ctx, names), *settings])
    section = read_section(config.sweep, section_options)
    return SweepTarget(
        config=config.model_copy(update={"params": params}),
        section=section,
        varied=_read_space(section, space_file, vary, names),
        path=folder,
        recipe=recipe,
        sweep=sweep,
    )


def plan_sweep(target: SweepTarget) -> SweepPlan:
    """Decide everything about the sweep and write nothing; what the backend refuses leaves no folder behind.

    Step costs are measured where they decide the placement. InputError where the options contradict the recipe, or an
    existing sweep.
    """
    modules, nodes, sweep = list(target.recipe.modules), target.config.nodes, target.sweep
    if nodes is not None and nodes > len(modules):
        raise InputError(
            f"--nodes-per-trial {nodes} is more than the recipe's {len(modules)} modules ({', '.join(modules)})."
        )
    record = read_sweep_record(sweep) if sweep else SweepRecord()
    previous = previous_sweep_launch(sweep, record) if sweep else Record()
    backend = choose_backend(target.config, previous)
    options = choose_options(target.config, backend, previous)
    instance: Backend = plugins.load("backend", backend)(options)
    spec = _plan_spec(target)
    at_once = check_at_once(target.section.nodes, target.section.max_running, len(spec.placement))
    return SweepPlan(
        target=target,
        spec=spec,
        backend_name=backend,
        options=options,
        backend=instance,
        at_once=at_once or (record.at_once if record.backend == backend else None),
    )


def _plan_spec(target: SweepTarget) -> SweepSpec:
    if target.sweep is None:
        return new_sweep(target.config, target.varied, **target.section.settings())
    return resumed_spec(target.sweep, target.config, target.section, target.varied, target.recipe)


def _folder(config: Config) -> Path:
    """The folder of the sweep: the named one, or the first of sweep-1, sweep-2, ... that does not exist."""
    root = Path(config.root).expanduser()
    if root.exists() and not root.is_dir():
        raise InputError(f"--root {root} is a file, but must be a folder; sweeps are created in it.")
    if config.name is not None:
        check_name(config.name)
        return root / config.name
    names = filesystem.names(root)
    return root / next(name for number in range(1, len(names) + 2) if (name := f"sweep-{number}") not in names)


def _read_space(section: SweepSection, file: Path | None, vary: Sequence[str], names: Sequence[str]) -> space.Space:
    """The space of the config, then that of the file, then `--vary`; InputError for a name that is no parameter."""
    varied = space.from_mapping(section.space, "`sweep:` of the config")
    varied = space.merged(varied, space.read_space(file)) if file else varied
    varied = space.merged(varied, space.parse_vary(vary))
    space.resolve(varied.dimensions, names)
    return varied
