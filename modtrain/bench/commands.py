"""`modtrain bench`: each measurement as a command."""

from __future__ import annotations

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

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Measurements that anyone can repeat.",
    context_settings={"help_option_names": ["-h", "--help"]},
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
