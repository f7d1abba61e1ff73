"""`sample`: images that the trained modules make from noise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import (
    BestOption,
    JsonOption,
    RunArgument,
    TruncateOption,
    TrustOption,
    UseDeviceOption,
    VersionOption,
    truncate_method,
    truncations,
)
from modtrain.cli.output import echo
from modtrain.cli.progress import show_progress
from modtrain.errors import InputError, counted

if TYPE_CHECKING:
    from modtrain.training.inference.model import TrainedModel

SAMPLES, POINTS, STEPS = 64, 8, 12
"""How many samples are made where -n is not given, how many points a walk has, and images from one to the next."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=Command)(sample)


def sample(
    run: RunArgument,
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", metavar="N", min=1, help="Number of samples.  [64, or 8 points of a walk]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the images.  [default: RUN/evaluation/samples]")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Class of all samples.  [each class in turn]")
    ] = None,
    truncation: Annotated[
        str | None, typer.Option(metavar="T", help="Truncate the noise: better images, less variety.  [none]")
    ] = None,
    truncate: TruncateOption = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the noise.")] = 0,
    grid: Annotated[bool, typer.Option("--grid", help="Write one picture of all samples, grid.png.")] = False,
    walk: Annotated[
        bool, typer.Option("--walk", help="Walk from sample to sample: walk.gif, or with --grid the picture walk.png.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Images of a walk from one sample to the next.  [12]")
    ] = None,
    version: VersionOption = None,
    best: BestOption = False,
    device: UseDeviceOption = "auto",
    trust_recipe: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make images from noise with the trained modules.

    Uses the newest full version of each module, with --version or --best others, its moving average where the recipe
    keeps one. Sample I depends on the seed and I alone: versions can be compared. A file replaces an earlier one of its
    name.
    """
    from modtrain.cli.terminal import duration, short
    from modtrain.storage.run import Run
    from modtrain.training.inference.model import load

    if steps is not None and not walk:
        raise InputError(f"--steps {steps} is for a walk; add --walk.")
    threshold, *more = thresholds = truncations(truncation)
    if more:
        raise InputError(f"--truncation {truncation}: the noise of samples is truncated at one threshold; give one.")
    noise = {"truncation": threshold, "truncate": truncate_method(truncate, thresholds), "seed": seed}
    opened = Run.open(run, trusted=trust_recipe)
    model = load(opened, version=version, best=best, device=device)
    target = out if out is not None else opened.path / "evaluation" / "samples"
    started_at = time.monotonic()
    made = _Samples(model, target, count or (POINTS if walk else SAMPLES), class_name, noise)
    images, total, files = (
        made.walk(steps or STEPS, is_picture=grid) if walk else made.sheet() if grid else made.files()
    )
    show_progress(images, total)
    if as_json:
        facts = {"run": opened.name, "versions": model.versions, "class": class_name, **noise, "count": total}
        echo(json.dumps({**facts, "files": [str(file) for file in files]}, indent=2))
        return
    place = short(files[0] if grid or walk else target)
    echo(f"{counted(total, 'image')} in {duration(time.monotonic() - started_at)}: {place}")


Work = tuple[Iterator[Any], int, list[Path]]
"""What makes the images one by one, their number, and the files that it writes."""


class _Samples:
    """The samples that a command asks for; each method says how they are written."""

    def __init__(
        self, model: TrainedModel, target: Path, count: int, class_name: str | None, noise: dict[str, Any]
    ) -> None:
        if target.exists() and not target.is_dir():
            raise InputError(f"--out {target} is a file, but must be a folder.")
        self.model, self.target, self.seed = model, target, noise["seed"]
        self.noise, self.labels = model.noise(count, **noise), model.labels(count, class_name)

    def files(self) -> Work:
        """A file for each sample."""
        from modtrain.training.inference.image_files import sample_paths, sample_to_files

        paths = sample_paths(self.model, self.target, self.labels, len(self.noise))
        return sample_to_files(self.model, paths, self.noise, self.labels, seed=self.seed), len(paths), paths

    def sheet(self) -> Work:
        """One picture."""
        from modtrain.training.inference.image_files import sample_to_sheet

        path = self.target / "grid.png"
        images = sample_to_sheet(self.model, path, self.noise, self.labels, seed=self.seed)
        return images, len(self.noise), [path]

    def walk(self, steps: int, *, is_picture: bool) -> Work:
        """A film through all samples and back to the first, or a picture with a row from each to the next."""
        from modtrain.nets.noise import walk
        from modtrain.training.inference.image_files import sample_to_film, sample_to_sheet

        if len(self.noise) < 2:
            raise InputError("-n 1 has no way to walk; give at least 2 samples to walk between.")
        noise = walk(self.noise, steps, closed=not is_picture)
        labels = None if self.labels is None else self.labels[: len(noise)].repeat_interleave(steps)
        path, given = self.target / ("walk.png" if is_picture else "walk.gif"), (noise.flatten(0, 1), labels)
        if is_picture:
            images = sample_to_sheet(self.model, path, *given, seed=self.seed, columns=steps)
        else:
            images = sample_to_film(self.model, path, *given, seed=self.seed)
        return images, len(given[0]), [path]
