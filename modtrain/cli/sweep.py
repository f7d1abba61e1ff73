"""`sweep`, `sweep-status` and `trial`: parameters fanned out into runs, what came of them, and one task of an array.

Deliberately not here: points (`modtrain/space.py`), trials (`modtrain/trials.py`), and running them
(`modtrain/queue.py`, `modtrain/sweep.py`).
"""

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

if TYPE_CHECKING:
    from modtrain.cli.sweep_plan import Plan

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
        typer.Argument(metavar="CONFIG.yaml | SWEEP", help="A config file, or the folder of a sweep to go on with."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        option(TRIES, "lr=1e-4,1e-3 or seed=1..3 or lr=log:1e-5..1e-2; repeatable.", metavar="NAME=VALUES"),
    ] = None,
    space: Annotated[Path | None, option(TRIES, "The same as a YAML file.", metavar="FILE")] = None,
    sampler: Annotated[Text, option(TRIES, "grid, random, sobol or tpe. [grid]", metavar="NAME")] = None,
    trials: Annotated[Count, option(TRIES, "How many; a grid has all of its points. ", metavar="N")] = None,
    metric: Annotated[
        Text, option(TRIES, "What is to be best: of the evaluation, or MODULE.SCALAR of training.", metavar="NAME")
    ] = None,
    minimize: Annotated[bool, option(TRIES, "Less of it is better. [what the recipe says]", "--minimize")] = False,
    prune: Annotated[Text, option(TRIES, "End bad trials early: halving or median. [halving]", metavar="HOW")] = None,
    evaluate_every: Annotated[Count, option(TRIES, "Epochs between evaluations. [1 with --prune]", metavar="N")] = None,
    recipe: RecipeOption = None,
    dataroot: DatarootOption = None,
    settings: SettingsOption = None,
    epochs: EpochsOption = None,
    seed: Annotated[Count, option(TRAINING, "Of the trials, and of how they are drawn. [0]", metavar="N")] = None,
    device: DeviceOption = None,
    track: TrackOption = None,
    nodes: Annotated[Count, option(EXECUTION, "Nodes of all trials together.", metavar="N")] = None,
    max_running: Annotated[Count, option(EXECUTION, "Trials at the same time.", metavar="N")] = None,
    nodes_per_trial: Annotated[Count, option(EXECUTION, "Workers of a trial. [one a module]", metavar="N")] = None,
    backend: BackendOption = None,
    profile: ProfileOption = None,
    address: AddressOption = None,
    root: Annotated[Text, option(EXECUTION, "Folder that the sweep is made in. [runs]", metavar="DIR")] = None,
    name: Annotated[Text, option(EXECUTION, "The sweep's folder. [sweep, numbered]", metavar="NAME")] = None,
    retry_failed: Annotated[bool, option(MODE, "Run failed trials again, too.", "--retry-failed")] = False,
    dry_run: Annotated[bool, option(MODE, "Say what would run; submit nothing.", "--dry-run")] = False,
    wait: Annotated[bool, option(MODE, "Follow arrays of slurm or pbs to their end.", "--wait")] = False,
) -> None:
    """Train a recipe again and again with other parameters.

    Every trial is a run in the sweep's folder.
    The same command again, with the sweep's --name, goes on: finished trials are kept, those that were stopped go on,
    and failed ones run again with --retry-failed. On slurm and pbs the trials are arrays, submitted at once; on ray and
    local, and with --prune or --sampler tpe, this command keeps as many running as there is room for, to the end.
    """
    given = {
        "recipe": recipe, "dataroot": dataroot, "epochs": epochs, "seed": seed, "device": device, "root": root,
        "name": name, "backend": backend, "profile": profile, "address": address, "nodes": nodes_per_trial,
        "track": track or None,
    }  # fmt: skip
    asked = {
        "sampler": sampler, "trials": trials, "metric": metric, "maximize": not minimize if minimize else None,
        "prune": prune, "evaluate_every": evaluate_every,
    }  # fmt: skip
    from modtrain.cli.sweep_plan import Plan

    section = asked | {"nodes": nodes, "max_running": max_running}
    plan = Plan.of(ctx, target, given, settings or [], section, vary or [], space)
    if wait and not plan.uses_arrays:
        raise InputError("--wait is for arrays of slurm or pbs; any other sweep is followed to its end as it is.")
    if dry_run:
        _dry_run(plan, retry_failed=retry_failed)
    elif plan.uses_arrays:
        _submit(plan, retry_failed=retry_failed, wait=wait)
    else:
        _queue(plan, retry_failed=retry_failed)


def sweep_status(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep's folder, such as runs/sweep-1.")],
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sort by another metric of the evaluation.")
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Less of it is better.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line a trial, for spreadsheets.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the trials of a sweep, best first.

    With each stand its values, its metrics, and why it failed.
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
    """Train one worker of one trial: what array tasks run.

    The trial's run is made if there is none.
    """
    from modtrain.cli.worker import train
    from modtrain.sweeps.array_jobs import task_states
    from modtrain.sweeps.sweep import Sweep

    opened = Sweep.open(sweep)
    number, worker = divmod(task, opened.workers)
    if number >= opened.spec.trials:
        raise InputError(f"--task {task} is beyond the {opened.spec.trials} trials of {opened.workers} workers each.")
    opened.check_stop()
    run = opened.begin(number)
    modules = run.spec.placement[worker]
    train(run, modules, threads, leave_after, unattended, evaluate_every, ask=lambda run: task_states(opened, number))


def _queue(plan: Plan, *, retry_failed: bool) -> None:
    """Run the trials from here, and say what came of them."""
    from modtrain.cli.sweep_view import Follow, closing, show
    from modtrain.sweeps.runner import queue

    at_once = plan.at_once()
    if at_once is None:
        if plan.backend.unattended:
            raise InputError("Say how many trials may be queued and run at the same time: --max-running, or --nodes.")
        # Asked before anything is made: a cluster that cannot be reached leaves no folder behind.
        at_once = max(1, plan.backend.cores(1) // len(plan.spec.placement))
    elif plan.existing is None:
        plan.backend.cores(1)
    sweep = plan.sweep()
    code = Follow(
        queue(sweep, plan.backend_name, plan.options, at_once=at_once, retry_failed=retry_failed)
    ).to_the_end()
    closing(sweep, show(sweep))
    raise typer.Exit(code)


def _submit(plan: Plan, *, retry_failed: bool, wait: bool) -> None:
    """Submit the trials as arrays and return, or follow them."""
    from modtrain.cli.sweep_view import follow, hints
    from modtrain.sweeps.runner import submit_arrays

    if plan.existing is None:
        plan.backend.check()
    sweep = plan.sweep()
    numbers = submit_arrays(sweep, plan.backend_name, plan.options, at_once=plan.at_once(), retry_failed=retry_failed)
    tasks = len(numbers) * sweep.workers
    rest = "" if len(numbers) == sweep.spec.trials else "; the others are over, or have live jobs"
    rest += "" if retry_failed or not rest else " (--retry-failed runs failed ones again)"
    typer.echo(f"{sweep.name}: submitted {len(numbers)} of {sweep.spec.trials} trials ({tasks} tasks){rest}.")
    hints(sweep)
    if wait:
        raise typer.Exit(follow(sweep, plan.backend.poll_s))


def _dry_run(plan: Plan, *, retry_failed: bool) -> None:
    """What would run. On a scheduler the scripts are written, to be submitted by hand."""
    from modtrain.cli.sweep_view import facts_of
    from modtrain.sweeps.array_jobs import note_how
    from modtrain.sweeps.runner import array, to_run

    if not plan.uses_arrays:
        facts_of(plan.spec, plan.at_once())
        typer.echo("Nothing was created.")
        return
    sweep = plan.sweep()
    note_how(sweep, plan.backend_name, plan.options, at_once=plan.at_once())
    facts_of(sweep.spec, plan.at_once())
    numbers = to_run(sweep, retry_failed=retry_failed)
    scripts = plan.backend.arrays(array(sweep, plan.backend, numbers, at_once=plan.at_once()))  # type: ignore[attr-defined]
    for path in scripts:
        typer.echo(f"# {path}")
    if scripts:
        typer.echo(scripts[0].read_text())
    typer.echo(f"# Nothing was submitted. The scripts of {len(numbers)} trials are in {sweep.path / 'jobs'}.")
