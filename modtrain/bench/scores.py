"""What it costs to compare samples with real images: which part of an evaluation takes how long."""

from __future__ import annotations

from typing import Annotated

import typer


def scores(
    samples: Annotated[int, typer.Option(min=8, help="Number of images that are compared.")] = 10_000,
    size: Annotated[int, typer.Option(min=16, help="Their edge in pixels.")] = 32,
    extractor: Annotated[str, typer.Option(help="Network that makes the features.")] = "orchard",
) -> None:
    """Compare built-in fruits with others by all metrics: seconds of each part."""
    from modtrain.data.fruits.orchard import CLASSES, orchard
    from modtrain.metrics.features import extractor as build
    from modtrain.metrics.scores import score

    images, reference = (orchard(size, "train", each=-(-samples // len(CLASSES)), seed=seed).images for seed in (1, 2))
    measured = score(images[:samples], reference[:samples], [build(extractor)])
    for what, taken in measured.seconds.items():
        typer.echo(f"{taken:8.1f} s  {what}")
    typer.echo(f"{sum(measured.seconds.values()):8.1f} s  together, {samples} images of {size} pixels on both sides")
