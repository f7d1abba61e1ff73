"""What the filters cost with which images are made smaller, and what each loses (Karwande et al., table 1)."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Annotated, get_args

import typer

if TYPE_CHECKING:
    from PIL.Image import Image

    from modtrain.data.decoding import Resize


def resize(
    size: Annotated[int, typer.Option(min=1, help="Edge that images are resized to.")] = 64,
    source: Annotated[int, typer.Option(min=2, help="Edge of the images before.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all filters, by turns.")] = 20,
) -> None:
    """Resize photographs by each of Pillow's filters: seconds an image, and the error once it is enlarged again."""
    from PIL import Image

    from modtrain.data.decoding import Resize, resized
    from modtrain.data.fruits.backgrounds import photographs

    images = [_square(picture).resize((source, source), Image.Resampling.LANCZOS) for picture in photographs()]
    filters: tuple[Resize, ...] = get_args(Resize)
    seconds: dict[str, list[float]] = {name: [] for name in filters}
    for _ in range(rounds + 1):  # the first round is not measured
        for name in filters:
            begun = time.thread_time()
            for image in images:
                resized(image, size, name)
            seconds[name].append((time.thread_time() - begun) / len(images))
    typer.echo(f"{source} to {size} pixels, {len(images)} photographs\n{'filter':<10}{'s an image':>12}{'error':>8}")
    for name in filters:
        error = statistics.mean(_error(image, size, name) for image in images)
        typer.echo(f"{name:<10}{statistics.median(seconds[name][1:]):12.6f}{error:8.2f}")


def _square(picture: Image) -> Image:
    side = min(picture.size)
    return picture.crop((0, 0, side, side))


def _error(image: Image, size: int, name: Resize) -> float:
    """Root of the mean squared difference from the image, of 255, when it is made smaller and enlarged bicubically."""
    import numpy as np
    from PIL import Image

    from modtrain.data.decoding import resized

    small = Image.fromarray(resized(image, size, name).permute(1, 2, 0).numpy())
    back = small.resize(image.size, Image.Resampling.BICUBIC)
    return float(np.sqrt(np.square(np.asarray(image, float) - np.asarray(back, float)).mean()))
