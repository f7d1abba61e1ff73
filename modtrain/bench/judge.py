"""Trains the judge of the built-in fruits again, and compares it with the one that comes with modtrain."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer


def judge(
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the weights to this safetensors file.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training pictures.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
) -> None:
    """Train the judge of the built-in fruits, on one worker of this machine: accuracy on the test pictures."""
    from modtrain import Config, launch, load
    from modtrain.data.fruits.orchard import orchard
    from modtrain.metrics.orchard import SIZE, OrchardJudge, accuracy_on, trained_judge
    from modtrain.storage import filesystem
    from modtrain.storage.manifest import create_output
    from modtrain.training.serialization import pack_weights

    if out is not None:
        create_output(out.parent, "The folder of --out,")
    test, started_at = orchard(SIZE, "test"), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="modtrain-bench-") as folder:
        config = Config(
            recipe="modtrain.bench.judge_recipe",
            root=folder,
            backend="local",
            device="cpu",
            epochs=epochs,
            seed=seed,
            check=False,
        )
        trained = load(launch(config), device="cpu").networks["judge"]
    assert isinstance(trained, OrchardJudge)
    typer.echo(f"{time.monotonic() - started_at:8.0f} s    training for {epochs} epochs")
    typer.echo(
        f"{accuracy_on(trained, test.images, test.labels):8.2%}      of {len(test.labels)} test pictures are right"
    )
    if out is not None:
        filesystem.replace_file(out, pack_weights(trained))
        return
    shipped = accuracy_on(trained_judge()[0].eval(), test.images, test.labels)
    typer.echo(f"{shipped:8.2%}      by the judge that comes with modtrain")
