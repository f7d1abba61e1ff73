"""`export` and `import`: trained modules as the files of another project, and a run from such files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli import options
from modtrain.cli.arguments import Command, RecipeCommand, recipe_settings
from modtrain.cli.options import CHECKING, Count, Text, option
from modtrain.cli.output import echo, print_note
from modtrain.errors import InputError

if TYPE_CHECKING:
    from modtrain.scheduling.weights_import import Import
    from modtrain.storage.run import Run

FormatOption = Annotated[
    Text, typer.Option("--format", metavar="NAME", help="Format of the files, of those that the recipe has.")
]
FILES = "Files"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(cls=Command)(export)
    app.command("import", cls=RecipeCommand)(import_files)


def export(
    run: options.RunArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the files.")],
    format: FormatOption = None,
    version: options.VersionOption = None,
    best: options.BestOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    trust_recipe: options.TrustOption = False,
) -> None:
    """Write the trained modules as the files of another project.

    The format cyclegan is that of the CycleGAN and pix2pix project: latest_net_G_A.pth and so on, which its test.py
    loads. A module is exported as its moving average where it has one.
    """
    from modtrain.cli.terminal import short
    from modtrain.storage.run import Run
    from modtrain.training.export import export as export_run

    opened = Run.open(run, trusted=trust_recipe)
    for file in export_run(opened, out, format=format, version=version, best=best, replace=force):
        average = ", moving average" if file.is_average else ""
        echo(f"{short(file.path)}: {file.module} v{file.version}{average}")


def import_files(
    ctx: typer.Context,
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR | RUN...", help="Folder of the files, or runs of the recipe's parts.")
    ],
    recipe: Annotated[str, option(options.SUBJECT, "Name, file or module of the recipe.", metavar="NAME")],
    format: Annotated[
        Text, option(FILES, "Format of the files. [the recipe's only one]", "--format", metavar="NAME")
    ] = None,
    epoch: Annotated[str, option(FILES, "Epoch in the names of the files. [latest]", metavar="N")] = "latest",
    partial: Annotated[
        bool, option(FILES, "Begin modules without a file or run with random weights.", "--partial")
    ] = False,
    dataroot: options.DatarootOption = None,
    settings: options.SettingsOption = None,
    epochs: options.EpochsOption = None,
    seed: options.SeedOption = None,
    metric: options.MetricOption = None,
    nodes: Annotated[Count, option(options.EXECUTION, "Number of workers. [by the recipe]", metavar="N")] = None,
    place: options.PlaceOption = None,
    root: options.RootOption = None,
    name: Annotated[
        Text, option(options.EXECUTION, "Name of the run's folder. [the recipe's name, numbered]", metavar="NAME")
    ] = None,
    check: options.CheckOption = None,
) -> None:
    """Create a run from files of another project, or from runs.

    The networks become version 0 of the run, which can be evaluated and applied at once; `modtrain launch` trains them
    further. Widths and blocks are those of the files. Only tensors are read: no code in a file is run.
    A recipe whose parts are others, as progressive-srgan, takes a run of each, RUN or RUN@VERSION, with its parameters.
    Every parameter of the recipe (`modtrain recipes`) is an option as well, such as --batch-size 1.
    """
    from modtrain.recipes.loading import load_recipe
    from modtrain.recipes.params import parameters
    from modtrain.scheduling.config import read_config
    from modtrain.scheduling.joined_runs import is_run, plan_joined
    from modtrain.scheduling.weights_import import plan_import

    names = [parameter.name for parameter in parameters(load_recipe(recipe).params)]
    fields = ("recipe", "dataroot", "epochs", "seed", "metric", "nodes", "place", "root", "name", "check")
    config = read_config(
        None, {name: ctx.params[name] for name in fields}, [*recipe_settings(ctx, names), *(settings or [])]
    )
    if is_run(str(folders[0])):
        planned = plan_joined([str(folder) for folder in folders], config, partial=partial)
    elif len(folders) == 1:
        planned = plan_import(folders[0], config, format=format, epoch=epoch, partial=partial)
    else:
        raise InputError(
            f"There is no run in {folders[0]}; give the runs of the recipe's parts, or one folder of files."
        )
    if planned.plan.is_checked:
        print_note(CHECKING)
    _print_created(planned.create(print_note), planned)


def _print_created(run: Run, planned: Import) -> None:
    from modtrain.cli import terminal

    out = terminal.console()
    out.print(terminal.Text.assemble((run.name, "bold"), "  ", ("created", "dim"), "\n"))
    sources = {name: planned.sources.get(name, "random weights") for name in run.modules}
    params = ", ".join(f"{name} {value}" for name, value in planned.params.items())
    facts = {"folder": run.path, **sources, "from these": params, "data": run.spec.dataroot or "built in"}
    out.print(terminal.facts(facts))
    path = shlex.quote(terminal.short(run.path))
    out.print()
    samples = [f"sample {path}"] if planned.plan.target.recipe.sample else []
    for command in (*samples, f"apply {path} IMAGE", f"evaluate {path}", f"launch {path}"):
        echo(f"  modtrain {command}")
