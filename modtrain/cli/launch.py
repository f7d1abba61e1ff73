"""`launch`: create a run or resume one, follow it, and evaluate it.

The command line becomes a config, the config a target, the target a plan, and the plan a launch; each step is a
function that Python's `launch(config)` uses as well.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import LaunchCommand, file_or_folder, job_options, recipe_settings
from modtrain.cli.options import (
    EXECUTION,
    MODE,
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
from modtrain.errors import InputError

if TYPE_CHECKING:
    from modtrain.scheduling.launcher import Launch
    from modtrain.scheduling.new_run import Target
    from modtrain.scheduling.resume import BackendChoice


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=LaunchCommand)(launch)


def launch(
    ctx: typer.Context,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml | RUN", help="A config file, or the folder of a run to resume."),
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
    nodes: Annotated[
        Count, option(EXECUTION, "Number of workers; 1 trains all modules jointly. [one per module]", metavar="N")
    ] = None,
    place: PlaceOption = None,
    backend: BackendOption = None,
    profile: ProfileOption = None,
    address: AddressOption = None,
    root: RootOption = None,
    name: Annotated[
        Text, option(EXECUTION, "Name of the run's folder. [the recipe's name, numbered]", metavar="NAME")
    ] = None,
    dry_run: Annotated[bool, option(MODE, "Show what would be launched; create nothing.", "--dry-run")] = False,
    detach: Annotated[bool, option(MODE, "Launch in the background and return.", "--detach")] = False,
    wait: Annotated[bool, option(MODE, "Follow the jobs of slurm or pbs to their end.", "--wait")] = False,
    resume: Annotated[bool, option(MODE, "Only resume an existing run; never create one.", "--resume")] = False,
    ready_fd: Annotated[Count, typer.Option("--ready-fd", hidden=True)] = None,
) -> None:
    """Create a run, or resume an existing one, and train it.

    Without options: the recipe latent-translation on built-in data, one module per worker. The same command with the
    run's --name resumes it; finished workers are not started again. Every parameter of the recipe (`modtrain recipes`)
    is an option as well: --batch-size 4, --translator.lr 1e-4; --lr sets the learning rate of each module.

    Ctrl-C asks all workers to publish and exit; a second Ctrl-C ends them at once. With slurm and pbs the command
    submits one job per worker and returns; `--dry-run` writes the job scripts and submits nothing.
    """
    given = {
        "recipe": recipe, "dataroot": dataroot, "epochs": epochs, "exchange_every": exchange_every, "seed": seed,
        "max_staleness": max_staleness, "peer_timeout_s": peer_timeout, "device": device, "nodes": nodes,
        "place": place, "backend": backend, "address": address, "root": root, "name": name, "profile": profile,
        "track": track or None,
    }  # fmt: skip
    named = _read_target(ctx, target, given, settings or [])
    _check_existing(named, resume=resume)
    _launch(named, dry_run=dry_run, detach=detach, wait=wait, ready_fd=ready_fd)


def _launch(target: Target, *, dry_run: bool, detach: bool, wait: bool, ready_fd: int | None) -> None:
    """Plan the run, choose the backend, then launch in the mode of the options."""
    from modtrain.scheduling.launcher import create_launch
    from modtrain.scheduling.new_run import plan_run
    from modtrain.scheduling.resume import choose_launch

    plan = plan_run(target)
    choice = choose_launch(target.config, target.run)
    _check_mode(choice, detach=detach, wait=wait)
    if dry_run and not choice.backend.unattended:
        from modtrain.cli.dry_run import show

        show(plan, choice)
        return
    created = create_launch(plan, choice, submits=not dry_run)
    if dry_run:
        from modtrain.cli.submit_view import show_scripts

        show_scripts(created)
    elif choice.backend.unattended and not wait:
        from modtrain.cli.submit_view import submit

        submit(created)
    elif detach:
        from modtrain.cli.detach import start_in_background

        start_in_background(created)
    else:
        _follow(created, ready_fd)


def _read_target(ctx: typer.Context, path: Path | None, given: dict[str, Any], settings: list[str]) -> Target:
    """Read the config file or run folder and the options, those of the recipe's parameters last."""
    from modtrain.recipes.params import parameters
    from modtrain.scheduling.config import read_config
    from modtrain.scheduling.new_run import find_target
    from modtrain.storage.run import Run

    file, given = file_or_folder(path, given, "run", lambda folder: Run.open(folder).path)
    config = read_config(file, {**given, "job": job_options(ctx)})
    named = find_target(config, named_by_folder=path is not None and file is None)
    names = [parameter.name for parameter in parameters(named.recipe.params)]
    return named.with_settings([*recipe_settings(ctx, names), *settings])


def _check_existing(target: Target, *, resume: bool) -> None:
    """InputError where `--resume` names no run; a hint where an unnamed earlier run is unfinished."""
    hint = _unfinished_hint(target)
    if resume and target.run is None:
        message = f"There is no run {target.path} to resume; without --resume it is created. {hint}"
        raise InputError(message.strip())
    if hint:
        typer.echo(hint, err=True)


def _unfinished_hint(target: Target) -> str:
    from modtrain.cli import terminal
    from modtrain.scheduling.new_run import unfinished

    earlier = None if target.run is not None or target.config.name is not None else unfinished(target.config)
    if earlier is None:
        return ""
    return f"{earlier.name} is not finished; `modtrain launch {shlex.quote(terminal.short(earlier.path))}` resumes it."


def _check_mode(choice: BackendChoice, *, detach: bool, wait: bool) -> None:
    """InputError where `--detach` or `--wait` does not fit the backend."""
    if detach and (choice.backend.unattended or wait):
        raise InputError("--detach cannot be used with --wait, nor with slurm or pbs, whose jobs need no launcher.")
    if wait and not choice.backend.unattended:
        raise InputError(f"--wait is for slurm and pbs; a launch on {choice.name} waits unless it gets --detach.")


def _follow(created: Launch, ready_fd: int | None) -> None:
    """Submit the jobs, show them to their end, and exit with the code of the launch."""
    from modtrain.cli.detach import report_ready
    from modtrain.cli.launch_view import LaunchView

    started_at = time.monotonic()
    view = LaunchView(created)
    try:
        created.start()
        report_ready(ready_fd)
        code = view.follow()
    except BaseException:
        if not created.backend.unattended:  # the jobs of a scheduler continue without this process
            created.cancel()
        raise
    if code == 0:
        view.print_result(time.monotonic() - started_at)
    raise typer.Exit(code)
