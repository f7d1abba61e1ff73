"""`recipes` and `doctor`: the recipes with their parameters, and a check of shared storage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption
from modtrain.cli.output import echo

if TYPE_CHECKING:
    from rich.table import Table

    from modtrain.recipes.base import Recipe
    from modtrain.recipes.params import Parameter
    from modtrain.storage.doctor import Report


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (recipes, doctor):
        app.command(cls=Command)(command)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name, file or module of one recipe.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the recipes with their parameters and defaults."""
    from modtrain import plugins
    from modtrain.recipes.loading import load_recipe

    names = [name] if name else plugins.known("recipe")
    descriptions = {each: describe(load_recipe(each)) for each in names}
    if as_json:
        echo(json.dumps({"recipes": descriptions}, indent=2))
        return
    for each, description in descriptions.items():
        _print(each, description)


def describe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON values."""
    from modtrain.recipes.params import parameters

    return {
        "summary": (sys.modules[recipe.params.__module__].__doc__ or "").strip().partition("\n")[0],
        "modules": {name: {"reads": [edge.peer for edge in each.edges()]} for name, each in recipe.modules.items()},
        "together": recipe.together,
        "placement": recipe.placement or [(name,) for name in recipe.trained],
        **{name: getattr(recipe, name) for name in ("epochs", "exchange_every", "max_staleness")},
        "apply": recipe.apply is not None,
        "evaluate": recipe.evaluate is not None,
        "params": [_plain(parameter) for parameter in parameters(recipe.params)],
    }


def _plain(parameter: Parameter) -> dict[str, Any]:
    """As JSON values; one that JSON does not have, such as a Path, is shown as it is written in run.json."""
    from modtrain.recipes.params import REQUIRED

    required = parameter.default is REQUIRED
    default = None if required else json.loads(json.dumps(parameter.default, default=str))
    return {**vars(parameter), "default": default, "required": required}


def _print(name: str, recipe: dict[str, Any]) -> None:
    from modtrain.cli import terminal
    from modtrain.scheduling.placement import format_placement

    out = terminal.console()
    out.print(name, style="bold")
    out.print(terminal.Text(recipe["summary"], "italic"), "")
    modules = [f"{m} (reads {', '.join(r['reads'])})" if r["reads"] else m for m, r in recipe["modules"].items()]
    exchange = terminal.exchange_facts(recipe["exchange_every"], recipe["max_staleness"])
    placed = {"placement": format_placement(recipe["placement"])}
    if recipe["together"]:
        placed = {"together": format_placement(recipe["together"])} | placed
    out.print(terminal.facts({"modules": "\n".join(modules), **placed, "epochs": recipe["epochs"], **exchange}), "")
    out.print(_parameters(recipe["params"]), "")


def _parameters(params: list[dict[str, Any]]) -> Table:
    """The parameters grouped by module, below its name."""
    from modtrain.cli import terminal

    table = terminal.table(terminal.Column("parameter", no_wrap=True), "default", "meaning")
    group = ""
    for parameter in params:
        folder, _, last = parameter["name"].rpartition(".")
        if folder != group:
            table.add_row(terminal.Text(f"{folder}.", "bold"))
            group = folder
        default = "required" if parameter["required"] else json.dumps(parameter["default"], default=str).strip('"')
        meaning = f"{parameter['meaning']}  ".lstrip(" "), (parameter["type"], "dim")
        table.add_row(("  " if folder else "") + last, default, terminal.Text.assemble(*meaning))
    return table


def doctor(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder on the shared storage.")],
    size_mb: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="Size of the checkpoints that are published.")
    ] = 40,
    peer: Annotated[
        bool, typer.Option("--peer", help="Run the checks together with another node that runs the same command.")
    ] = False,
    peer_timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for that node.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Check the shared storage below a folder.

    Checks every requirement and measures how long an exchange of checkpoints takes. The exit code is 1 where a
    requirement is not met.
    """
    from modtrain.storage.doctor import examine

    report = examine(path, size_mb=size_mb, peer=peer, peer_timeout_s=peer_timeout)
    if as_json:
        echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show_report(report)
    raise typer.Exit(1 if report.failed else 0)


def _show_report(report: Report) -> None:
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
    for cost in report.costs:
        size, speed = f"{cost.size_mb:g} MB", f"{cost.mb_per_s:.0f} MB/s"
        out.print(f"{cost.name} of {size}: {cost.median_ms:.0f} ms ({speed})")
    result = "Do not train here: a requirement is not met." if report.failed else "All requirements are met."
    out.print(terminal.Text(f"\n{result}", "bold red" if report.failed else "bold green"))
