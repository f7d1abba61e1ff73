"""`launch`: begin a run, or go on with one, watch it, and judge what came out.

Deliberately not here: starting jobs (`modtrain/launch.py`), what is seen meanwhile (`watching.py`), and the launcher in
the background (`detaching.py`).
"""

from __future__ import annotations

import functools
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.options import (
    DOING,
    WHERE,
    AddressOption,
    BackendOption,
    Count,
    DatarootOption,
    DeviceOption,
    EpochsOption,
    ExchangeOption,
    PeerTimeoutOption,
    PlaceOption,
    ProfileOption,
    RecipeOption,
    RootOption,
    SeedOption,
    SettingsOption,
    StalenessOption,
    Text,
    TrackOption,
    option,
)
from modtrain.cli.parsing import LaunchCommand, file_or_folder, job_options, settings_of
from modtrain.errors import InputError

if TYPE_CHECKING:
    from modtrain.backends.base import Backend, BackendOptions
    from modtrain.config import Config
    from modtrain.launch import Launch
    from modtrain.recipe import Recipe
    from modtrain.run import Run


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=LaunchCommand)(launch)


def launch(
    ctx: typer.Context,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml | RUN", help="A config file, or the folder of a run to go on with."),
    ] = None,
    recipe: RecipeOption = None,
    dataroot: DatarootOption = None,
    settings: SettingsOption = None,
    epochs: EpochsOption = None,
    exchange_every: ExchangeOption = None,
    max_staleness: StalenessOption = None,
    peer_timeout: PeerTimeoutOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    track: TrackOption = None,
    nodes: Annotated[Count, option(WHERE, "Workers; 1 trains all modules jointly. [one a module]", metavar="N")] = None,
    place: PlaceOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = None,
    address: AddressOption = None,
    root: RootOption = None,
    name: Annotated[Text, option(WHERE, "The run's folder in it. [the recipe's, numbered]", metavar="NAME")] = None,
    dry_run: Annotated[bool, option(DOING, "Say what would happen; create nothing.", "--dry-run")] = False,
    detach: Annotated[bool, option(DOING, "Watch in the background, return at once.", "--detach")] = False,
    wait: Annotated[bool, option(DOING, "Follow jobs of slurm or pbs to their end.", "--wait")] = False,
    resume: Annotated[bool, option(DOING, "Only go on with a run, never begin one.", "--resume")] = False,
    ready_fd: Annotated[Count, typer.Option("--ready-fd", hidden=True)] = None,
) -> None:
    """Train a recipe: begin a run, or go on with one that exists.

    With nothing else said: the recipe latent-translation on built-in data, a module a worker. The same command again,
    with the run's --name, goes on where it ended, finished workers excepted. Every parameter of the recipe (`modtrain
    recipes`) is an option, too: --batch-size 4, --translator.lr 1e-4; --lr sets each module's.

    Ctrl-C asks all workers to publish and leave; a second one ends them at once. On slurm and pbs the command submits a
    job for each worker and returns; `--dry-run` writes the job scripts there and submits nothing.
    """
    given = {
        "recipe": recipe, "dataroot": dataroot, "epochs": epochs, "exchange_every": exchange_every, "seed": seed,
        "max_staleness": max_staleness, "peer_timeout_s": peer_timeout, "device": device, "nodes": nodes,
        "place": place, "backend": backend, "address": address, "root": root, "name": name, "profile": profile,
        "track": track or None,
    }  # fmt: skip
    plan = Plan.of(ctx, target, given, settings or [])
    plan.check(resume=resume, detach=detach, wait=wait)
    if dry_run and plan.unattended:
        from modtrain.cli.submitting import show_scripts

        show_scripts(plan.started(submits=False))
    elif dry_run:
        from modtrain.cli.dry_run import show

        show(plan)
    elif plan.unattended and not wait:
        from modtrain.cli.submitting import submit

        submit(plan.started())
    elif detach:
        from modtrain.cli.detaching import detach as leave

        leave(plan.run(), plan.backend, plan.options)
    else:
        carry_out(plan.started(), ready_fd)


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
        from modtrain.config import load_recipe, read_config
        from modtrain.folder import RUN_FILE, check_name
        from modtrain.params import parameters
        from modtrain.prepare import new_name, prepare
        from modtrain.run import Run

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
        from modtrain.prepare import unfinished

        left = None if self.exists or self.config.name is not None else unfinished(self.config)
        if left is None:
            return ""
        return (
            f"{left.name} is not finished; `modtrain launch {shlex.quote(terminal.short(left.path))}` goes on with it."
        )

    @property
    def backend(self) -> str:
        """What is asked for, or the profile is for, else what an existing run's jobs were started by."""
        from modtrain.jobs import read_record
        from modtrain.profile import read_profile

        if "backend" in self.config.model_fields_set:
            return self.config.backend
        named = read_profile(Path(self.config.profile).expanduser()).backend if self.config.profile else None
        last = read_record(self._run).backend if self._run else None
        return named or last or self.config.backend

    @functools.cached_property
    def options(self) -> BackendOptions:
        """What the backend is told; of an existing run what it was told last, where nothing else is said.

        A corrected command says anew what was refused, so that nothing was submitted.
        """
        from modtrain.config import backend_options
        from modtrain.jobs import read_record

        last = read_record(self._run) if self._run else None
        anew = "backend" in self.config.model_fields_set or self.config.profile
        same = last if last and last.backend == self.backend and (last.jobs or not anew) else None
        made = backend_options(self.config, same.options.profile if same else None)
        return made if made.address or same is None else replace(made, address=same.options.address)

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
        from modtrain.run import Run

        if self._run is None:
            if submits:  # what cannot be submitted leaves no folder behind
                self.made.check()
            self._run = Run.create(self.path, self.draft().spec)
        return self._run

    def draft(self) -> Run:
        """The run as it is or would be; nothing is written."""
        from modtrain.prepare import draft
        from modtrain.run import Run

        if self._run is not None:
            return self._run
        decided = draft(self.config, self.recipe)
        self.costs = decided.costs
        return Run(self.path.resolve(), decided.spec)

    def started(self, *, submits: bool = True) -> Launch:
        """The run's jobs, not submitted yet."""
        from modtrain.launch import Launch

        return Launch(self.run(submits=submits), self.backend, self.options)


def carry_out(started: Launch, ready_fd: int | None) -> None:
    """Submit, watch to the end, and say what came out of it."""
    from modtrain.cli.detaching import say_ready
    from modtrain.cli.watching import Watch

    begun = time.monotonic()
    watch = Watch(started)
    try:
        started.start()
        say_ready(ready_fd)
        code = watch.to_the_end()
    except BaseException:
        if not started.backend.unattended:  # jobs of a scheduler go on without us
            started.cancel()
        raise
    if code == 0:
        watch.finished(time.monotonic() - begun)
    raise typer.Exit(code)
