"""`python -m modtrain.bench`: each measurement as a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from modtrain.bench.catalog import catalog
from modtrain.bench.convolutions import convolutions
from modtrain.bench.dashboard import dashboard
from modtrain.bench.joint_step import biggan, cyclegan, dcgan, progressive_gan, srgan
from modtrain.bench.judge import judge
from modtrain.bench.precision import precision
from modtrain.bench.queue import queue
from modtrain.bench.resize import resize
from modtrain.bench.scores import scores
from modtrain.errors import ModtrainError

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Measurements that anyone can repeat."
)
for command in (
    queue,
    catalog,
    dashboard,
    biggan,
    cyclegan,
    dcgan,
    progressive_gan,
    srgan,
    convolutions,
    precision,
    resize,
    judge,
    scores,
):
    app.command()(command)


def main(words: Sequence[str] | None = None) -> None:
    """Run a measurement and exit; an expected error is one sentence and its exit code."""
    try:
        app(words, prog_name="python -m modtrain.bench")
    except ModtrainError as error:
        typer.echo(f"modtrain.bench: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
