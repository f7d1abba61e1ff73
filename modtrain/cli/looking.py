"""`recipes` and `doctor`: what can be trained with which parameters, and whether a shared folder can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from modtrain.cli.parsing import Command
from modtrain.cli.running import JsonOption

if TYPE_CHECKING:
    from modtrain.params import Parameter
    from modtrain.recipe import Recipe


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(cls=Command)(recipes)


def recipes(
    name: Annotated[Optional[str], typer.Argument(metavar="[NAME]", help="One recipe: its name, or a file.")] = None,  # noqa: UP045
    as_json: JsonOption = False,
) -> None:
    """List the recipes, each with its modules and its parameters: types, defaults, meaning."""
    from modtrain import plugins
    from modtrain.config import load_recipe

    found = {each: described(load_recipe(each)) for each in ([name] if name else plugins.known("recipe"))}
    if as_json:
        typer.echo(json.dumps({"recipes": found}, indent=2))
        return
    for each, recipe in found.items():
        _show(each, recipe)


def described(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values."""
    from modtrain.params import parameters

    return {
        "summary": _summary(recipe),
        "modules": {
            module: {"reads": [edge.peer for edge in recipe.modules[module].edges()]} for module in recipe.modules
        },
        "epochs": recipe.epochs,
        "exchange_every": recipe.exchange_every,
        "max_staleness": recipe.max_staleness,
        "apply": recipe.apply is not None,
        "evaluate": recipe.evaluate is not None,
        "params": [_plain(parameter) for parameter in parameters(recipe.params)],
    }


def _plain(parameter: Parameter) -> dict[str, Any]:
    from modtrain.params import REQUIRED

    required = parameter.default is REQUIRED
    values = {"name": parameter.name, "type": parameter.type, "default": None if required else parameter.default}
    json.dumps(values, default=str)
    return {**values, "required": required, "meaning": parameter.meaning}


def _summary(recipe: Recipe) -> str:
    """The first line of the recipe's file."""
    import sys

    text = sys.modules[recipe.params.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]


def _show(name: str, recipe: dict[str, Any]) -> None:
    from modtrain.cli import terminal

    out = terminal.console()
    out.print(f"[bold]{name}[/]")
    out.print(terminal.Text(recipe["summary"]))
    modules = [f"{m} (reads {', '.join(r['reads'])})" if r["reads"] else m for m, r in recipe["modules"].items()]
    out.print()
    out.print(
        terminal.facts(
            {
                "modules": "\n".join(modules),
                "epochs": recipe["epochs"],
                "exchange": f"every {recipe['exchange_every']} steps" if recipe["exchange_every"] else "after every epoch",
                "staleness": "unbounded" if recipe["max_staleness"] is None else f"at most {recipe['max_staleness']} epochs",
            }
        )
    )
    out.print()
    table = terminal.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("parameter", no_wrap=True)
    table.add_column("default", justify="right", overflow="fold")
    table.add_column("meaning")
    for parameter in recipe["params"]:
        default = "required" if parameter["required"] else json.dumps(parameter["default"], default=str).strip('"')
        meaning = terminal.Text(parameter["meaning"])
        table.add_row(parameter["name"], default, meaning + terminal.Text(f"  {parameter['type']}", "dim"))
    out.print(table)
    out.print()


def doctor(path: Annotated[Path, typer.Argument()], as_json: JsonOption = False) -> None:
    """Check that a shared folder keeps the promises that publishing needs, and what an exchange costs there."""
