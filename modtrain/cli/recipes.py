"""`recipes`: the recipes with their parameters."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption
from modtrain.cli.output import echo
from modtrain.errors import InputError, counted

if TYPE_CHECKING:
    from rich.table import Table

    from modtrain.recipes.base import Reads, Recipe
    from modtrain.recipes.params import Parameter


LIVE, COPY = "<--", "<.."


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=Command)(recipes)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name, file or module of one recipe.")] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Measure what a step costs each worker, on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the recipes with their parameters and defaults."""
    from modtrain import plugins
    from modtrain.recipes.loading import load_recipe

    names = [name] if name else plugins.known("recipe")
    descriptions = {each: _describe(each, load_recipe(each)) for each in names}
    if costs:
        for each, description in descriptions.items():
            description["costs"] = _costs(each, load_recipe(each))
    if as_json:
        echo(json.dumps({"recipes": descriptions}, indent=2))
        return
    for each, description in descriptions.items():
        _print(each, description)


def _describe(name: str, recipe: Recipe) -> dict[str, Any]:
    """`describe`, where an exception in a user's recipe file is an InputError with its line."""
    from modtrain import plugins

    with plugins.user_code_errors("recipe", name) if plugins.is_file(name) else contextlib.nullcontext():
        return describe(recipe)


def describe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON values, with its parameters at their defaults."""
    from modtrain.recipes.params import parameters

    params = _defaults(recipe)
    docstring = (sys.modules[recipe.params.__module__].__doc__ or "").strip()
    return {
        "summary": " ".join(docstring.partition("\n\n")[0].split()),
        "modules": {
            name: {"reads": {edge.peer: _last(edge, params) for edge in each.edges()}, "fixed": each.is_fixed}
            for name, each in recipe.modules.items()
        },
        "together": recipe.together,
        "placement": recipe.placement or [(name,) for name in recipe.trained],
        "stages": _stages(recipe, params),
        **{name: getattr(recipe, name) for name in ("epochs", "exchange_every", "max_staleness")},
        "apply": recipe.apply is not None,
        "sample": recipe.sample is not None,
        "evaluate": recipe.evaluate is not None,
        "formats": list(recipe.formats),
        "params": [_plain(parameter) for parameter in parameters(recipe.params)],
    }


def _costs(name: str, recipe: Recipe) -> dict[str, float]:
    """Seconds of a step of each module, as a worker of its own needs, with the recipe's defaults."""
    from modtrain.scheduling.config import Config, new_spec
    from modtrain.scheduling.run_plan import measured_costs

    return measured_costs(new_spec(Config(recipe=name), recipe, [recipe.trained]))


def _defaults(recipe: Recipe) -> Any:
    """The default parameters; None where some have no default, or where the defaults contradict each other."""
    from modtrain.recipes.params import build_params

    with contextlib.suppress(InputError):
        return build_params(recipe.params, {})
    return None


def _last(edge: Reads, params: Any) -> int | None:
    """How many versions of a peer are read; None where that follows from parameters without defaults."""
    if not callable(edge.last):
        return edge.last
    return edge.last(params) if params is not None else None


def _stages(recipe: Recipe, params: Any) -> list[dict[str, Any]]:
    from modtrain.recipes.stages import plan_stages

    if params is None:
        return []
    stages = plan_stages(recipe.stages, params, recipe.trained, recipe.epochs)
    return [{"name": stage.name, "epochs": stage.epochs, "trains": stage.trains} for stage in stages]


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
    out.print(terminal.Text(recipe["summary"], "italic"))
    out.print()
    out.print(_diagram(recipe))
    out.print(terminal.Text(f"{LIVE} live, in the same worker   {COPY} a published copy\n", "dim"))
    if costs := recipe.get("costs"):
        out.print(_cost_table(recipe["placement"], costs), "")
    facts = {"placement": format_placement(recipe["placement"])}
    if recipe["together"]:
        facts["together"] = format_placement(recipe["together"])
    if recipe["stages"]:
        facts["stages"] = "\n".join(
            f"{each['name']}: {counted(each['epochs'], 'epoch')}, trains {', '.join(each['trains'])}"
            for each in recipe["stages"]
        )
    facts |= {"epochs": recipe["epochs"]} | terminal.exchange_facts(recipe["exchange_every"], recipe["max_staleness"])
    if recipe["formats"]:
        facts["formats"] = f"{', '.join(recipe['formats'])}, for export and import"
    out.print(terminal.facts(facts), "")
    out.print(_parameters(recipe["params"]), "")


def _diagram(recipe: dict[str, Any]) -> Table:
    """The modules on the workers of the default placement, and what each reads: one row for each edge."""
    from modtrain.cli import terminal

    table = terminal.table(terminal.Column(style="dim", no_wrap=True), "", "", header=False)
    workers = [(f"worker {number}", group) for number, group in enumerate(recipe["placement"], 1)]
    fixed = [name for name, module in recipe["modules"].items() if module["fixed"]]
    for title, group in [*workers, *([("never trained", fixed)] if fixed else [])]:
        labels = [title, *[""] * len(group)]
        for label, module in zip(labels, group, strict=False):
            edges = [
                _edge(peer, last, peer in (*group, *fixed)) for peer, last in recipe["modules"][module]["reads"].items()
            ]
            for row, edge in enumerate(edges or [""]):
                table.add_row(*((label, module) if row == 0 else ("", "")), edge)
    return table


def _cost_table(placement: Sequence[Sequence[str]], costs: Mapping[str, float]) -> Table:
    """What a step of each module costs, and the share of each worker in the costs of all."""
    from modtrain.cli import terminal

    table = terminal.table("worker", terminal.Column("share", justify="right"), "modules, milliseconds of a step")
    for number, group in enumerate(placement, 1):
        share = sum(costs[module] for module in group) / sum(costs.values())
        table.add_row(str(number), f"{share:.0%}", ", ".join(f"{module} {costs[module] * 1e3:.1f}" for module in group))
    return table


def _edge(peer: str, last: int | None, is_live: bool) -> str:
    """A peer that is read, and how many of its versions."""
    versions = "" if last == 1 else f"  newest {last or 'versions'}{', where apart' if is_live else ''}"
    return f"{LIVE if is_live else COPY} {peer}{versions}"


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
