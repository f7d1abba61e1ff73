"""`check` and `doctor`: whether a recipe can be trained, and whether a folder can hold its runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli import options
from modtrain.cli.arguments import RecipeCommand, recipe_settings
from modtrain.cli.output import echo
from modtrain.cli.progress import Progress
from modtrain.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from modtrain.recipes.base import Recipe
    from modtrain.scheduling.config import Config
    from modtrain.scheduling.recipe_check import CheckResult
    from modtrain.storage.doctor import Report
    from modtrain.training.disk_use import DiskUse

MINUTE_EXCHANGES = 60
"""Exchange points in a minute for which there should be room where the versions of the last minute are kept."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (check, doctor):
        app.command(cls=RecipeCommand)(command)


def check(
    ctx: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE | CONFIG.yaml", help="Name, file or module of a recipe, or a config file.")
    ],
    dataroot: options.DatarootOption = None,
    settings: options.SettingsOption = None,
    precision: options.PrecisionOption = None,
    metric: options.MetricOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check whether a recipe can be trained.

    Loads its data, builds each module, trains each for a step or two, saves and loads it, and evaluates once, on the
    CPU. Each violation is one sentence, and the exit code is then 2. A launch checks the recipe of a new run likewise.
    Every parameter of the recipe (`modtrain recipes`) is an option as well, such as --batch-size 4.
    """
    result = _check(ctx, recipe, {"dataroot": dataroot, "precision": precision, "metric": metric}, settings or [])
    if as_json:
        echo(json.dumps({"recipe": recipe, **asdict(result)}, indent=2))
    else:
        _show(recipe, result)
    raise typer.Exit(InputError.exit_code if result.violations else 0)


def _check(ctx: typer.Context, recipe: str, values: dict[str, str | None], settings: list[str]) -> CheckResult:
    """The result of the check; a recipe that cannot be loaded, or a folder that is wrong, is its only violation."""
    from modtrain.scheduling.config import new_spec
    from modtrain.scheduling.recipe_check import CheckResult, check_recipe
    from modtrain.scheduling.run_plan import check_dataroot

    try:
        config, loaded = _read(ctx, recipe, values, settings)
        if config.dataroot:
            check_dataroot(Path(config.dataroot).expanduser(), loaded)
        spec = new_spec(config, loaded, [loaded.trained])
        with Progress() as progress:
            return check_recipe(spec, metric=config.metric, progress=lambda part: progress(f"checking {part}", 0, 0))
    except InputError as error:
        return CheckResult(violations=[str(error)], warnings=[], metrics=None, seconds=0.0)


def _read(ctx: typer.Context, recipe: str, values: dict[str, Any], settings: list[str]) -> tuple[Config, Recipe]:
    """The config of a recipe or a config file, with the parameters that are options, and its recipe; InputError."""
    from modtrain.recipes.loading import load_recipe
    from modtrain.recipes.params import parameters
    from modtrain.scheduling.config import read_config

    is_config = recipe.endswith((".yaml", ".yml"))
    named = values if is_config else {**values, "recipe": recipe}
    config = read_config(Path(recipe) if is_config else None, named)
    loaded = load_recipe(config.recipe)
    names = [parameter.name for parameter in parameters(loaded.params)]
    return config.with_settings([*recipe_settings(ctx, names), *settings]), loaded


def _show(recipe: str, result: CheckResult) -> None:
    from modtrain.cli import terminal

    out = terminal.console()
    for style, sentences in (("bold red", result.violations), ("yellow", result.warnings)):
        for sentence in sentences:
            out.print(terminal.Text(sentence, style), soft_wrap=not out.is_terminal)
    if result.violations:
        return
    out.print(f"{recipe} can be trained; checked in {result.seconds:.1f} s.", soft_wrap=not out.is_terminal)
    if result.metrics:
        out.print(f"Metrics: {', '.join(result.metrics)}", soft_wrap=not out.is_terminal)


def doctor(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder on the shared storage.")],
    size_mb: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="Size of the checkpoints that are published.")
    ] = 40,
    peer: Annotated[
        bool, typer.Option("--peer", help="Run the checks together with another node that runs the same command.")
    ] = False,
    peer_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for that node.")] = 60,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE|CONFIG.yaml", help="Show the bytes that a run of it takes, with its parameters as options."
        ),
    ] = None,
    dataroot: options.DatarootOption = None,
    settings: options.SettingsOption = None,
    exchange_every: options.ExchangeOption = None,
    max_staleness: options.StalenessOption = None,
    keep: options.KeepOption = None,
    nodes: options.NodesOption = None,
    place: options.PlaceOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check the shared storage below a folder.

    Checks every requirement and measures how long an exchange of checkpoints takes. The exit code is 1 where a
    requirement is not met. With --recipe it also compares the bytes that a run takes with those that are free.
    """
    from modtrain.storage.doctor import examine

    values = {
        "dataroot": dataroot, "exchange_every": exchange_every, "max_staleness": max_staleness, "keep": keep,
        "nodes": nodes, "place": place,
    }  # fmt: skip
    use = _disk_use(ctx, recipe, values, settings or []) if recipe is not None else None
    if use is None:
        recipe_settings(ctx, [])  # refuses them
        given = [name for name, value in {**values, "set": settings}.items() if value is not None]
        if given:
            option = "--" + given[0].replace("_", "-")
            raise InputError(f"{option} is about a run; name what it trains with --recipe, or leave it out.")
    report = examine(path, size_mb=size_mb, peer=peer, peer_timeout_s=peer_timeout)
    if use is not None:
        _compare(report, use, path, str(recipe))
    if as_json:
        echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show_report(report, use)
    raise typer.Exit(1 if report.failed else 0)


def _disk_use(ctx: typer.Context, recipe: str, values: dict[str, Any], settings: list[str]) -> DiskUse:
    from modtrain.scheduling.run_plan import draft
    from modtrain.training.disk_use import disk_use

    config, loaded = _read(ctx, recipe, values, settings)
    spec, _ = draft(config, loaded)
    return disk_use(spec, loaded)


def _compare(report: Report, use: DiskUse, path: Path, recipe: str) -> None:
    """Add to a report what a run takes, with a warning where there is no room for it."""
    from modtrain.storage.doctor import free_bytes

    report.run = use.as_dict()
    free, needed = free_bytes(path), use.most_bytes
    says = f"A run of {recipe} keeps up to {_size(needed)} of versions; {_size(free)} are free."
    if use.keeps_last_minute:
        needed += MINUTE_EXCHANGES * use.exchange_bytes
        inside = f"{_size(use.exchange_bytes)} an exchange and " if use.exchange_bytes else ""
        says += f" Those of the last minute stay as well, {inside}{_size(use.epoch_bytes)} an epoch; with --keep not."
    if memories := [name for name, module in use.modules.items() if module.has_memory]:
        says += f" What the memory of {' and '.join(memories)} holds comes on top."
    keep = "keep fewer versions (--keep), " if not use.keeps_last_minute else "leave out the last minute's (--keep), "
    advice = f"It does not fit: make room, {keep}or choose another folder." if needed > free else ""
    report.note("run", says, advice)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _show_report(report: Report, use: DiskUse | None) -> None:
    from modtrain.cli import terminal

    out = terminal.console()
    out.print(f"{report.path}\n", style="bold", soft_wrap=True)
    table = terminal.table(header=False)
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in report.checks:
        says = check.says, (f"\n{check.advice}" if check.advice else "", "yellow")
        verdict = terminal.Text(check.verdict, styles[check.verdict])
        table.add_row(verdict, check.name, terminal.Text.assemble(*says))
    out.print(table, "")
    if use is not None:
        out.print(_module_table(use), "")
    for cost in report.costs:
        size, speed = f"{cost.size_mb:g} MB", f"{cost.mb_per_s:.0f} MB/s"
        out.print(f"{cost.name} of {size}: {cost.median_ms:.0f} ms ({speed})")
    result = "Do not train here: a requirement is not met." if report.failed else "All requirements are met."
    out.print(terminal.Text(f"\n{result}", "bold red" if report.failed else "bold green"))


def _module_table(use: DiskUse) -> Table:
    from modtrain.cli import terminal

    names = ("module", "weights", "average", "state", "full versions", "exchanged", "at most")
    table = terminal.table(*(terminal.Column(name, justify="right" if name != "module" else "left") for name in names))
    for name, each in use.modules.items():
        sizes = [_size(count) for count in (each.weights_bytes, each.average_bytes, each.state_bytes)]
        table.add_row(name, *sizes, str(each.full), str(each.exchanged), _size(each.most_bytes))
    return table
