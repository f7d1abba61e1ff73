"""`bench`: the measurements, each of which is a command of its own."""

from __future__ import annotations

import typer
from typer.main import get_command


def add_to(app: typer.Typer) -> None:
    """Register the command, which leaves all its words, such as `--help`, to the measurement."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=settings)(bench)


def bench(ctx: typer.Context) -> None:
    """Run one of the measurements, or list them."""
    from modtrain.bench.commands import app

    code = get_command(app).main(ctx.args or ["--help"], prog_name="modtrain bench", standalone_mode=False)
    raise typer.Exit(code or 0)
