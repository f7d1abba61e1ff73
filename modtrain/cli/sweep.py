"""`sweep`, `sweep-status` and `trial`: parameters fanned out into runs, their results, and one task of an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from modtrain.cli import options
from modtrain.cli.arguments import Command, SweepCommand, file_or_folder, job_options, recipe_settings
from modtrain.cli.options import EXECUTION, MODE, TRAINING, Count, Text, option
from modtrain.cli.output import echo, print_note
from modtrain.errors import InputError, StopRequested, counted
from modtrain.storage.layout import JOBS

if TYPE_CHECKING:
    from modtrain.storage.run import Run
    from modtrain.sweeps.plan import SweepPlan
    from modtrain.sweeps.sweep import Sweep

TRIES = "Which trials"
FIRST = 3
"""Trials whose values a dry run shows."""

RankOption = Annotated[
    Text, option(TRIES, "Metric to rank by: of the evaluation, or MODULE.SCALAR of training.", metavar="NAME")
]


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
    metric: RankOption = None,
    minimize: Annotated[bool, option(TRIES, "A smaller metric is better. [as the recipe says]", "--minimize")] = False,
    prune: Annotated[Text, option(TRIES, "End bad trials early: halving or median. [halving]", metavar="HOW")] = None,
    evaluate_every: Annotated[
        Count, option(TRIES, "Epochs between evaluations; 0 is only at the end. [0; 1 with --prune]", metavar="N")
    ] = None,
    recipe: options.RecipeOption = None,
    dataroot: options.DatarootOption = None,
    settings: options.SettingsOption = None,
    epochs: options.EpochsOption = None,
    until_stage: options.UntilStageOption = None,
    from_stage: options.FromStageOption = None,
    exchange_every: options.ExchangeOption = None,
    max_staleness: options.StalenessOption = None,
    keep: options.KeepOption = None,
    early_stop: options.EarlyStopOption = None,
    peer_timeout_s: options.PeerTimeoutOption = None,
    storage_timeout_s: options.StorageTimeoutOption = None,
    seed: Annotated[Count, option(TRAINING, "Seed of the trials, and of the sampler. [0]", metavar="N")] = None,
    device: options.DeviceOption = None,
    precision: options.PrecisionOption = None,
    track: options.TrackOption = None,
    init: options.InitOption = None,
    nodes: Annotated[Count, option(EXECUTION, "Nodes of all trials together.", metavar="N")] = None,
    max_running: Annotated[Count, option(EXECUTION, "Trials at the same time.", metavar="N")] = None,
    nodes_per_trial: Annotated[Count, option(EXECUTION, "Workers of a trial. [by the recipe]", metavar="N")] = None,
    backend: options.BackendOption = None,
    profile: options.ProfileOption = None,
    address: options.AddressOption = None,
    root: Annotated[Text, option(EXECUTION, "Folder that the sweep is created in. [runs]", metavar="DIR")] = None,
    name: Annotated[Text, option(EXECUTION, "The sweep's folder. [sweep, numbered]", metavar="NAME")] = None,
    retry_failed: Annotated[bool, option(MODE, "Run failed trials again as well.", "--retry-failed")] = False,
    check: options.CheckOption = None,
    dry_run: Annotated[bool, option(MODE, "Show what would run; submit nothing.", "--dry-run")] = False,
    wait: Annotated[bool, option(MODE, "Follow arrays of slurm or pbs to their end.", "--wait")] = False,
    trust_recipe: options.TrustOption = False,
) -> None:
    """Train a recipe with many sets of parameters.

    Every trial is a run in the sweep's folder.
    The same command again, with the sweep's --name, resumes it: finished trials are kept, stopped ones are resumed, and
    failed ones run again with --retry-failed. On slurm and pbs the trials are submitted at once, as arrays; on ray and
    local, and with --prune or --sampler tpe, this command runs as many at a time as there is room for, to the end.
    """
    section = {
        "sampler": sampler, "trials": trials, "metric": metric, "maximize": not minimize if minimize else None,
        "prune": prune, "evaluate_every": evaluate_every, "nodes": nodes, "max_running": max_running,
    }  # fmt: skip
    plan = _plan(ctx, target, section, settings=settings or [], vary=vary or [], space_file=space, trusted=trust_recipe)
    _start(plan, retry_failed=retry_failed, dry_run=dry_run, wait=wait)


def _start(plan: SweepPlan, *, retry_failed: bool, dry_run: bool, wait: bool) -> None:
    """Run or submit the trials, or show which ones."""
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
    metric: Annotated[Text, typer.Option(metavar="NAME", help="Sort by another metric of the evaluation.")] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="A smaller metric is better.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line a trial, for spreadsheets.")] = False,
    as_json: options.JsonOption = False,
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
    threads: options.ThreadsOption = None,
    leave_after: options.LeaveAfterOption = None,
    unattended: options.UnattendedOption = False,
    trust_recipe: options.TrustOption = False,
) -> None:
    """Train one worker of one trial: the command of an array task.

    The trial's run is created if there is none.
    """
    from modtrain.scheduling.standalone_worker import train
    from modtrain.storage.filesystem import STORAGE_TIMEOUT_S, Backoff, retry
    from modtrain.sweeps.sweep import Sweep
    from modtrain.sweeps.trials import task_states

    def begin() -> tuple[Sweep, int, int, Run]:
        opened = Sweep.open(sweep, trusted=trust_recipe)
        number, worker = divmod(task, opened.workers)
        if number >= opened.spec.trials:
            size = f"{counted(opened.spec.trials, 'trial')} of {counted(opened.workers, 'worker')} each"
            raise InputError(f"--task {task} is beyond the {size}.")
        if (stop := opened.stop_request()) is not None:
            raise StopRequested(f"{opened.name} was {stop.outcome}: no further trial begins.")
        return opened, number, worker, opened.begin(number)

    opened, number, worker, run = retry(begin, Backoff("Reading", sweep, STORAGE_TIMEOUT_S))
    modules = run.spec.placement[worker]
    train(run, modules, threads, leave_after, unattended, ask=lambda run: task_states(opened, number))


def _plan(
    ctx: typer.Context,
    target: Path | None,
    section_options: Mapping[str, Any],
    *,
    settings: Sequence[str],
    vary: Sequence[str],
    space_file: Path | None,
    trusted: bool,
) -> SweepPlan:
    """Read the config file or the sweep, the options of its parameters, and the space, where `--vary` goes first."""
    from modtrain.recipes.loading import load_recipe, recipe_name
    from modtrain.recipes.params import parameters
    from modtrain.scheduling.config import Config, read_config
    from modtrain.sweeps import space
    from modtrain.sweeps.plan import find_sweep, plan_sweep, read_section
    from modtrain.sweeps.sweep import Sweep

    of_runs = Config.model_fields.keys() - {"metric", "nodes"}  # these two options are the sweep's
    given = {name: value for name, value in ctx.params.items() if name in of_runs and value != ()}
    named = {**given, "nodes": ctx.params["nodes_per_trial"], "job": job_options(ctx)}
    config = read_config(*file_or_folder(target, named, "sweep", lambda folder: Sweep.open(folder).path))
    path, existing = find_sweep(config, trusted=trusted)
    is_named = "recipe" in config.model_fields_set
    if existing is None or (is_named and recipe_name(config.recipe) != existing.spec.config["recipe"]):
        recipe = load_recipe(config.recipe)
    else:
        recipe = existing.recipe
    names = [parameter.name for parameter in parameters(recipe.params)]
    config = config.with_settings([*recipe_settings(ctx, names), *settings])
    section = read_section(config.sweep, section_options)
    in_file = space.read_space(space_file) if space_file else {}
    varied = {**space.from_mapping(section.space, "`sweep:` of the config"), **in_file, **space.parse_vary(vary)}
    space.resolve(varied, names)
    return plan_sweep(path, existing, config, section, varied, recipe, trusted=trusted)


def _run(plan: SweepPlan, *, retry_failed: bool) -> None:
    """Run the trials from this process to the end, and show them."""
    from modtrain.cli.sweep_view import QueueView, print_next_steps, show
    from modtrain.sweeps.runner import open_queue

    at_once = plan.at_once
    _check(plan)
    if at_once is None and plan.backend.unattended:
        raise InputError("Give the number of trials that may be queued or running at a time: --max-running or --nodes.")
    if at_once is None or plan.sweep is None:
        cores = plan.backend.cores(1)  # before anything is created: an unreachable cluster leaves no folder behind
        at_once = at_once or max(1, cores // len(plan.spec.placement))
    sweep = plan.write()
    with open_queue(sweep, plan.backend_name, plan.options, at_once=at_once, retry_failed=retry_failed) as queue:
        code = QueueView(queue).follow()
    print_next_steps(sweep, show(sweep))
    raise typer.Exit(code)


def _submit(plan: SweepPlan, *, retry_failed: bool, wait: bool) -> None:
    """Submit the trials as arrays and return, or wait for them."""
    from modtrain.cli.sweep_view import follow_arrays, print_submitted
    from modtrain.sweeps.runner import submit_arrays

    _check(plan)
    sweep = plan.write()
    print_submitted(sweep, submit_arrays(sweep, plan, retry_failed=retry_failed), retry_failed=retry_failed)
    if wait:
        raise typer.Exit(follow_arrays(sweep, plan.backend.poll_s))


def _check(plan: SweepPlan) -> None:
    """As `SweepPlan.check`; the check of a recipe takes a while, and is announced."""
    if plan.checked is not None:
        print_note(options.CHECKING)
    plan.check(print_note)


def _dry_run(plan: SweepPlan, *, retry_failed: bool) -> None:
    """Show what would run. On a scheduler the scripts are written, to be submitted by hand."""
    from modtrain.cli.launch_modes import unchecked
    from modtrain.scheduling.backends.base import ScriptBackend
    from modtrain.sweeps.trials import trials_to_submit

    _print_facts(plan)
    words = [unchecked(plan.checked.recipe)] if plan.checked is not None else []
    if not plan.uses_arrays:
        echo(" ".join(["Nothing was created.", *words]))
        return
    sweep = plan.write()
    sweep.write_record(plan.record(sweep.read_record()))
    numbers = trials_to_submit(sweep, retry_failed=retry_failed)
    scripts = cast(ScriptBackend, plan.backend).arrays(plan.array(sweep, numbers))
    for path in scripts:
        echo(f"# {path}")
    if scripts:
        echo(scripts[0].read_text())
    if words:
        echo(f"# {words[0]}")
    echo(f"# Nothing was submitted. The scripts of {counted(len(numbers), 'trial')} are in {sweep.path / JOBS}.")


def _print_facts(plan: SweepPlan) -> None:
    """Print what a sweep is, before it runs."""
    from modtrain.cli import terminal
    from modtrain.sweeps import space

    spec, varied, workers = plan.spec, space.from_json(plan.spec.space), len(plan.spec.placement)
    first = [space.point(varied, spec.sampler, seed=spec.seed, index=n) for n in range(min(FIRST, spec.trials))]
    facts = {
        "recipe": spec.config["recipe"],
        "varies": ", ".join(varied),
        "trials": f"{spec.trials} by {spec.sampler}, each with {counted(workers, 'worker')}",
        "first": "\n".join(map(space.format_values, first)),
        "at once": plan.at_once or "as many as there is room for",
        "metric": f"{spec.metric} ({'more' if spec.maximize else 'less'} is better)" if spec.metric else "none",
        "pruning": spec.prune or "none",
    }
    terminal.console().print(terminal.facts(facts), "")
