"""The run that a `launch` command line means, and how it is to be started."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from modtrain.cli.arguments import file_or_folder, job_options, settings_of
from modtrain.errors import InputError

if TYPE_CHECKING:
    from modtrain.recipes.base import Recipe
    from modtrain.scheduling.backends.base import Backend, BackendOptions
    from modtrain.scheduling.config import Config
    from modtrain.scheduling.launcher import Launch
    from modtrain.scheduling.resume import PreviousLaunch
    from modtrain.storage.run import Run


class Plan:
    """What a command line means: a config, its recipe, and the run that exists or would be made."""

    def __init__(self, config: Config, recipe: Recipe, path: Path, existing: Run | None) -> None:
        """`existing` is the run in `path`, if there is one."""
        self.config, self.recipe, self.path, self._run = config, recipe, path, existing
        self.exists = existing is not None
        self.costs: dict[str, float] = {}

    @staticmethod
    def of(ctx: typer.Context, target: Path | None, given: dict[str, Any], settings: list[str]) -> Plan:
        """Read the file or the run that is named, the recipe, and the options that only the recipe knows."""
        from modtrain.recipes.loading import load_recipe
        from modtrain.recipes.params import parameters
        from modtrain.scheduling.config import read_config
        from modtrain.scheduling.new_run import new_name, prepare
        from modtrain.storage.layout import RUN_FILE
        from modtrain.storage.manifest import check_name
        from modtrain.storage.run import Run

        file, given = file_or_folder(target, given, "run", lambda folder: Run.open(folder).path)
        given = {**given, "job": job_options(ctx)}
        config = read_config(file, given, [])
        if config.name is not None:
            check_name(config.name)
        path = Path(config.root).expanduser() / (config.name or new_name(config))
        existing = Run.open(path) if (path / RUN_FILE).exists() else None
        asked = "recipe" in config.model_fields_set
        recipe = load_recipe(existing.spec.recipe if existing and not asked else config.recipe)
        names = [parameter.name for parameter in parameters(recipe.params)]
        config = read_config(file, given, [*settings_of(ctx, names), *settings])
        if existing is not None:
            existing = prepare(config, named_by_folder=target is not None and file is None)
        return Plan(config, recipe, path, existing)

    def check(self, *, resume: bool, detach: bool, wait: bool) -> None:
        """Say what is left unfinished; InputError where options do not fit, or `resume` finds no run to go on with."""
        hint = self._hint()
        if detach and (self.unattended or wait):
            raise InputError("--detach does not go with --wait, nor with slurm or pbs, whose jobs need no launcher.")
        if wait and not self.unattended:
            raise InputError(f"--wait is for slurm and pbs; a launch by {self.backend} waits unless it gets --detach.")
        if resume and not self.exists:
            raise InputError(
                f"There is no run {self.path} to go on with; leave --resume out to begin one. {hint}".strip()
            )
        if hint:
            typer.echo(hint, err=True)

    def _hint(self) -> str:
        """That an unnamed run of before has not reached its end: a new one may not be what is meant."""
        from modtrain.cli import terminal
        from modtrain.scheduling.new_run import unfinished

        left = None if self.exists or self.config.name is not None else unfinished(self.config)
        if left is None:
            return ""
        return (
            f"{left.name} is not finished; `modtrain launch {shlex.quote(terminal.short(left.path))}` goes on with it."
        )

    @functools.cached_property
    def _previous(self) -> PreviousLaunch:
        from modtrain.scheduling.resume import PreviousLaunch, previous_launch

        return previous_launch(self._run) if self._run else PreviousLaunch()

    @functools.cached_property
    def backend(self) -> str:
        """The name of the backend."""
        from modtrain.scheduling.resume import choose_backend

        return choose_backend(self.config, self._previous)

    @functools.cached_property
    def options(self) -> BackendOptions:
        """The options of the backend."""
        from modtrain.scheduling.resume import choose_options

        return choose_options(self.config, self.backend, self._previous)

    @functools.cached_property
    def unattended(self) -> bool:
        """Whether the jobs need no launcher."""
        return self.made.unattended

    @functools.cached_property
    def made(self) -> Backend:
        """The backend, made before any folder is: what it refuses leaves none behind."""
        from modtrain import plugins

        made: Backend = plugins.load("backend", self.backend)(self.options)
        return made

    def run(self, *, submits: bool = True) -> Run:
        """The run; made if there is none."""
        from modtrain.storage.run import Run

        if self._run is None:
            if submits:  # what cannot be submitted leaves no folder behind
                self.made.check()
            self._run = Run.create(self.path, self.draft().spec)
        return self._run

    def draft(self) -> Run:
        """The run as it is or would be; nothing is written."""
        from modtrain.scheduling.new_run import draft
        from modtrain.storage.run import Run

        if self._run is not None:
            return self._run
        decided = draft(self.config, self.recipe)
        self.costs = decided.costs
        return Run(self.path.resolve(), decided.spec)

    def started(self, *, submits: bool = True) -> Launch:
        """The run's jobs, not submitted yet."""
        from modtrain.scheduling.launcher import Launch

        return Launch(self.run(submits=submits), self.backend, self.options)
