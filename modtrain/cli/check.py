"""`check`: whether a recipe can be trained, before a run of it exists."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli import options
from modtrain.cli.arguments import RecipeCommand, recipe_settings
from modtrain.cli.output import echo
from modtrain.cli.progress import Progress
from modtrain.errors import InputError

if TYPE_CHECKING:
    from modtrain.scheduling.recipe_check import CheckResult


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=RecipeCommand)(check)


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
    from modtrain.recipes.loading import load_recipe
    from modtrain.recipes.params import parameters
    from modtrain.scheduling.config import new_spec, read_config
    from modtrain.scheduling.recipe_check import CheckResult, check_recipe
    from modtrain.scheduling.run_plan import check_dataroot

    try:
        is_config = recipe.endswith((".yaml", ".yml"))
        named = values if is_config else {**values, "recipe": recipe}
        config = read_config(Path(recipe) if is_config else None, named)
        loaded = load_recipe(config.recipe)
        names = [parameter.name for parameter in parameters(loaded.params)]
        config = config.with_settings([*recipe_settings(ctx, names), *settings])
        if config.dataroot:
            check_dataroot(Path(config.dataroot).expanduser(), loaded)
        spec = new_spec(config, loaded, [loaded.trained])
        with Progress() as progress:
            return check_recipe(spec, metric=config.metric, progress=lambda part: progress(f"checking {part}", 0, 0))
    except InputError as error:
        return CheckResult(violations=[str(error)], warnings=[], metrics=None, seconds=0.0)


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
