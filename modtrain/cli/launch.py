"""`launch`: create a run or resume one, follow it, and evaluate it.

The command line becomes a config, the config a target, the target a plan, and the plan a launch; each step is a
function that Python's `launch(config)` uses as well.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli import options
from modtrain.cli.arguments import LaunchCommand, file_or_folder, job_options, recipe_settings
from modtrain.cli.options import CHECKING, EXECUTION, MODE, Count, Text, option
from modtrain.cli.output import echo, print_note
from modtrain.errors import InputError, ModtrainError

if TYPE_CHECKING:
    from modtrain.scheduling.launcher import Launch
    from modtrain.scheduling.run_plan import RunPlan, Target


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=LaunchCommand)(launch)


def launch(
    ctx: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml | RUN", help="A config file, or the folder of a run to resume."),
    ] = None,
    recipe: options.RecipeOption = None,
    dataroot: options.DatarootOption = None,
    settings: options.SettingsOption = None,
    epochs: options.EpochsOption = None,
    until_stage: options.UntilStageOption = None,
    from_stage: options.FromStageOption = None,
    hold_schedule: options.HoldScheduleOption = None,
    exchange_every: options.ExchangeOption = None,
    max_staleness: options.StalenessOption = None,
    keep: options.KeepOption = None,
    evaluate_every: options.EvaluateEveryOption = None,
    early_stop: options.EarlyStopOption = None,
    peer_timeout_s: options.PeerTimeoutOption = None,
    storage_timeout_s: options.StorageTimeoutOption = None,
    seed: options.SeedOption = None,
    device: options.DeviceOption = None,
    precision: options.PrecisionOption = None,
    track: options.TrackOption = None,
    init: options.InitOption = None,
    metric: options.MetricOption = None,
    nodes: options.NodesOption = None,
    place: options.PlaceOption = None,
    backend: options.BackendOption = None,
    profile: options.ProfileOption = None,
    address: options.AddressOption = None,
    root: options.RootOption = None,
    name: Annotated[
        Text, option(EXECUTION, "Name of the run's folder. [the recipe's name, numbered]", metavar="NAME")
    ] = None,
    dry_run: Annotated[
        bool,
        option(
            MODE, "Show what would be launched and create nothing; on slurm and pbs write the scripts.", "--dry-run"
        ),
    ] = False,
    detach: Annotated[bool, option(MODE, "Launch in the background and return.", "--detach")] = False,
    wait: Annotated[bool, option(MODE, "Follow the jobs of slurm or pbs to their end.", "--wait")] = False,
    check: options.CheckOption = None,
    resume: Annotated[bool, option(MODE, "Only resume an existing run; never create one.", "--resume")] = False,
    trust_recipe: options.TrustOption = False,
    ready_fd: Annotated[Count, typer.Option("--ready-fd", hidden=True)] = None,
) -> None:
    """Create a run, or resume an existing one, and train it.

    Without options: the recipe latent-translation on built-in data, one module per worker. The same command with the
    run's --name resumes it; finished workers are not started again. Every parameter of the recipe (`modtrain recipes`)
    is an option as well: --batch-size 4, --translator.lr 1e-4; --lr sets the learning rate of each module.

    Ctrl-C asks all workers to publish and exit; a second Ctrl-C ends them at once. With slurm and pbs the command
    submits one job per worker and returns; `--dry-run` writes the job scripts and submits nothing.
    """
    from modtrain.recipes.params import parameters
    from modtrain.scheduling.run_plan import plan_run

    started_at = time.monotonic()
    target = _read_target(ctx, path, trusted=trust_recipe)
    if target.config.sweep:
        print_note(f"`sweep:` of {path} is ignored by a launch; `modtrain sweep {shlex.quote(str(path))}` runs it.")
    _check_existing(target, resume=resume)
    names = [parameter.name for parameter in parameters(target.recipe.params)]
    plan = plan_run(target, [*recipe_settings(ctx, names), *(settings or [])])
    _launch(plan, dry_run=dry_run, detach=detach, wait=wait, ready_fd=ready_fd, started_at=started_at)


def _read_target(ctx: typer.Context, path: Path | None, *, trusted: bool) -> Target:
    """Read the config file or run folder, and the options that are named as the fields of a config."""
    from modtrain.scheduling.config import Config, read_config
    from modtrain.scheduling.run_plan import find_target
    from modtrain.storage.run import Run

    given = {name: value for name, value in ctx.params.items() if name in Config.model_fields and value != ()}
    file, given = file_or_folder(path, given, "run", lambda folder: Run.open(folder).path)
    config = read_config(file, {**given, "job": job_options(ctx)})
    return find_target(config, named_by_folder=path is not None and file is None, trusted=trusted)


def _check_existing(target: Target, *, resume: bool) -> None:
    """InputError where `--resume` names no run; a hint where an unnamed earlier run is unfinished."""
    from modtrain.cli import terminal
    from modtrain.scheduling.run_plan import unfinished

    earlier = None if target.run is not None or target.config.name is not None else unfinished(target.config)
    hint = ""
    if earlier is not None:
        path = shlex.quote(terminal.short(earlier.path))
        hint = f"{earlier.name} is not finished; `modtrain launch {path}` resumes it."
    if resume and target.run is None:
        message = f"There is no run {target.path} to resume; without --resume it is created. {hint}"
        raise InputError(message.strip())
    if hint:
        echo(hint, err=True)


def _launch(plan: RunPlan, *, dry_run: bool, detach: bool, wait: bool, ready_fd: int | None, started_at: float) -> None:
    """Choose the backend, then launch in the mode of the options."""
    from modtrain import plugins
    from modtrain.cli import launch_modes
    from modtrain.scheduling.launcher import create_launch
    from modtrain.scheduling.run_plan import choose_launch

    backend, options = choose_launch(plan.target.config, plan.target.run)
    unattended = plugins.load("backend", backend)(options).unattended
    if detach and (unattended or wait):
        raise InputError("--detach cannot be used with --wait, nor with slurm or pbs, whose jobs need no launcher.")
    if wait and not unattended:
        raise InputError(f"--wait is for slurm and pbs; a launch on {backend} waits unless it gets --detach.")
    if dry_run and not unattended:
        launch_modes.show_plan(plan, backend)
        return
    for note in plan.notes:
        print_note(note)
    if plan.is_checked and not dry_run:
        print_note(CHECKING)
    created = create_launch(plan, backend, options, submits=not dry_run, notify=print_note)
    if dry_run:
        launch_modes.show_scripts(created, is_new=plan.is_checked)
    elif unattended and not wait:
        launch_modes.submit(created)
    elif detach:
        launch_modes.start_in_background(created)
    else:
        _follow(created, ready_fd, started_at)


def _follow(created: Launch, ready_fd: int | None, started_at: float) -> None:
    """Submit the jobs, show them to their end, and exit with the code of the launch."""
    from modtrain.cli.launch_modes import report_ready, start
    from modtrain.cli.launch_view import LaunchView

    view = LaunchView(created, started_at)
    try:
        start(created)
        if ready_fd is not None:
            report_ready(ready_fd)
        code = view.follow()
    except BaseException:
        if not created.backend.unattended:  # the jobs of a scheduler continue without this process
            try:
                created.cancel()
            except ModtrainError as refused:  # why the launch ends is said as well
                print_note(str(refused))
        raise
    if code == 0:
        view.print_result()
    raise typer.Exit(code)
