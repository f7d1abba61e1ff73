"""`sweep`, `sweep-status` and `trial`: parameters fanned out into runs, their results, and one task of an array."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli.arguments import Command, SweepCommand
from modtrain.cli.options import (
    EXECUTION,
    MODE,
    TRAINING,
    AddressOption,
    BackendOption,
    Count,
    DatarootOption,
    DeviceOption,
    EpochsOption,
    EvaluateEveryOption,
    JsonOption,
    LeaveAfterOption,
    ProfileOption,
    RecipeOption,
    SettingsOption,
    Text,
    ThreadsOption,
    TrackOption,
    UnattendedOption,
    option,
)
from modtrain.errors import InputError
from modtrain.storage.layout import JOBS

if TYPE_CHECKING:
    from modtrain.cli.sweep_plan import SweepPlan

TRIES = "Which trials"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(cls=SweepCommand)(sweep)
    app.command(cls=Command)(sweep_status)
    app.command(cls=Command)(trial)


def sweep(
    ctx: typer.Context,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml | SWEEP", help="A config file, or the folder of a sweep to resume."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        option(TRIES, "lr=1e-4,1e-3 or seed=1..3 or lr=log:1e-5..1e-2; repeatable.", metavar="NAME=VALUES"),
    ] = None,
    space: Annotated[Path | None, option(TRIES, "The same as a YAML file.", metavar="FILE")] = None,
    sampler: Annotated[Text, option(TRIES, "grid, random, sobol or tpe. [grid]", metavar="NAME")] = None,
    trials: Annotated[Count, option(TRIES, "How many. [all points of a grid]", metavar="N")] = None,
    metric: Annotated[
        Text, option(TRIES, "Metric to rank by: of the evaluation, or MODULE.SCALAR of training.", metavar="NAME")
    ] = None,
    minimize: Annotated[bool, option(TRIES, "A smaller metric is better. [as the recipe says]", "--minimize")] = False,
    prune: Annotated[Text, option(TRIES, "End bad trials early: halving or median. [halving]", metavar="HOW")] = None,
    evaluate_every: Annotated[Count, option(TRIES, "Epochs between evaluations. [1 with --prune]", metavar="N")] = None,
    recipe: RecipeOption = None,
    dataroot: DatarootOption = None,
    settings: SettingsOption = None,
    epochs: EpochsOption = None,
    seed: Annotated[Count, option(TRAINING, "Seed of the trials, and of the sampler. [0]", metavar="N")] = None,
    device: DeviceOption = None,
    track: TrackOption = None,
    nodes: Annotated[Count, option(EXECUTION, "Nodes of all trials together.", metavar="N")] = None,
    max_running: Annotated[Count, option(EXECUTION, "Trials at the same time.", metavar="N")] = None,
    nodes_per_trial: Annotated[Count, option(EXECUTION, "Workers of a trial. [one a module]", metavar="N")] = None,
    backend: BackendOption = None,
    profile: ProfileOption = None,
    address: AddressOption = None,
    root: Annotated[Text, option(EXECUTION, "Folder that the sweep is created in. [runs]", metavar="DIR")] = None,
    name: Annotated[Text, option(EXECUTION, "The sweep's folder. [sweep, numbered]", metavar="NAME")] = None,
    retry_failed: Annotated[bool, option(MODE, "Run failed trials again as well.", "--retry-failed")] = False,
    dry_run: Annotated[bool, option(MODE, "Show what would run; submit nothing.", "--dry-run")] = False,
    wait: Annotated[bool, option(MODE, "Follow arrays of slurm or pbs to their end.", "--wait")] = False,
) -> None:
    """Train a recipe with many sets of parameters.

    Every trial is a run in the sweep's folder.
    The same command again, with the sweep's --name, resumes it: finished trials are kept, stopped ones are resumed, and
    failed ones run again with --retry-failed. On slurm and pbs the trials are submitted at once, as arrays; on ray and
    local, and with --prune or --sampler tpe, this command runs as many at a time as there is room for, to the end.
    """
    options = {
        "recipe": recipe, "dataroot": dataroot, "epochs": epochs, "seed": seed, "device": device, "root": root,
        "name": name, "backend": backend, "profile": profile, "address": address, "nodes": nodes_per_trial,
        "track": track or None,
    }  # fmt: skip
    section = {
        "sampler": sampler, "trials": trials, "metric": metric, "maximize": not minimize if minimize else None,
        "prune": prune, "evaluate_every": evaluate_every, "nodes": nodes, "max_running": max_running,
    }  # fmt: skip
    from modtrain.cli.sweep_plan import plan_sweep, read_target

    plan = plan_sweep(
        read_target(ctx, target, options, section, settings=settings or [], vary=vary or [], space_file=space)
    )
    if wait and not plan.uses_arrays:
        raise InputError("--wait is for arrays of slurm or pbs; any other sweep is followed to its end without it.")
    if dry_run:
        _dry_run(plan, retry_failed=retry_failed)
    elif plan.uses_arrays:
        _submit(plan, retry_failed=retry_failed, wait=wait)
    else:
        _run(plan, retry_failed=retry_failed)


def sweep_status(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep's folder, such as runs/sweep-1.")],
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sort by another metric of the evaluation.")
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="A smaller metric is better.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line a trial, for spreadsheets.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the trials of a sweep, best first.

    Each is shown with its values, its metrics, and why it failed.
    `modtrain status` on a sweep's folder shows the same.
    """
    from modtrain.cli.sweep_view import show
    from modtrain.sweeps.sweep import Sweep

    show(Sweep.open(sweep), metric, minimize=minimize, as_csv=as_csv, as_json=as_json)


def trial(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep's folder.")],
    task: Annotated[int, typer.Option(metavar="N", min=0, help="Trial times the workers of a trial, plus worker.")],
    threads: ThreadsOption = None,
    leave_after: LeaveAfterOption = None,
    unattended: UnattendedOption = False,
    evaluate_every: EvaluateEveryOption = None,
) -> None:
    """Train one worker of one trial: the command of an array task.

    The trial's run is created if there is none.
    """
    from modtrain.scheduling.standalone_worker import train
    from modtrain.sweeps.sweep import Sweep
    from modtrain.sweeps.sweep_jobs import task_states

    opened = Sweep.open(sweep)
    number, worker = divmod(task, opened.workers)
    if number >= opened.spec.trials:
        raise InputError(f"--task {task} is beyond the {opened.spec.trials} trials of {opened.workers} workers each.")
    opened.check_stop()
    run = opened.begin(number)
    modules = run.spec.placement[worker]
    train(run, modules, threads, leave_after, unattended, evaluate_every, ask=lambda run: task_states(opened, number))


def _run(plan: SweepPlan, *, retry_failed: bool) -> None:
    """Run the trials from this process to the end, and show them."""
    from modtrain.cli.sweep_view import QueueView, print_next_steps, show
    from modtrain.sweeps.runner import open_queue

    at_once = plan.at_once
    if at_once is None and plan.backend.unattended:
        raise InputError("Give the number of trials that may be queued or running at a time: --max-running or --nodes.")
    if at_once is None or plan.is_new:  # before anything is created: an unreachable cluster leaves no folder behind
        at_once = at_once or max(1, plan.backend.cores(1) // len(plan.spec.placement))
        plan.backend.cores(1)
    sweep = plan.write()
    with open_queue(sweep, plan.backend_name, plan.options, at_once=at_once, retry_failed=retry_failed) as queue:
        code = QueueView(queue).follow()
    print_next_steps(sweep, show(sweep))
    raise typer.Exit(code)


def _submit(plan: SweepPlan, *, retry_failed: bool, wait: bool) -> None:
    """Submit the trials as arrays and return, or wait for them."""
    from modtrain.cli.sweep_view import follow_arrays, print_commands, print_submitted
    from modtrain.sweeps.runner import submit_arrays

    if plan.is_new:
        plan.backend.check()
    sweep = plan.write()
    numbers = submit_arrays(sweep, plan.backend_name, plan.options, at_once=plan.at_once, retry_failed=retry_failed)
    print_submitted(sweep, numbers, retry_failed=retry_failed)
    print_commands(sweep)
    if wait:
        raise typer.Exit(follow_arrays(sweep, plan.backend.poll_s))


def _dry_run(plan: SweepPlan, *, retry_failed: bool) -> None:
    """Show what would run. On a scheduler the scripts are written, to be submitted by hand."""
    from modtrain.cli.sweep_view import print_facts
    from modtrain.sweeps.runner import write_scripts

    if not plan.uses_arrays:
        print_facts(plan.spec, plan.at_once)
        typer.echo("Nothing was created.")
        return
    sweep = plan.write()
    numbers, scripts = write_scripts(
        sweep, plan.backend_name, plan.options, at_once=plan.at_once, retry_failed=retry_failed
    )
    print_facts(sweep.spec, plan.at_once)
    for path in scripts:
        typer.echo(f"# {path}")
    if scripts:
        typer.echo(scripts[0].read_text())
    typer.echo(f"# Nothing was submitted. The scripts of {len(numbers)} trials are in {sweep.path / JOBS}.")
