"""`evaluate` and `apply`: metrics of the trained modules, and inference on image files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import (
    BestOption,
    JsonOption,
    RunArgument,
    TruncateOption,
    TrustOption,
    UseDeviceOption,
    truncate_method,
    truncations,
)
from modtrain.cli.output import echo, print_note
from modtrain.cli.progress import Progress, show_progress
from modtrain.cli.score import show_scores
from modtrain.errors import counted, message_of

SAMPLES = 10_000


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (evaluate, apply):
        app.command(cls=Command)(command)


def evaluate(
    run: RunArgument,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Compare samples with test images instead: fid_orchard, swd; repeatable."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=8, help=f"Number of samples for --metric.  [{SAMPLES}]")
    ] = None,
    truncation: Annotated[
        str | None,
        typer.Option(
            metavar="T,...",
            help="Truncate the noise of the samples; of several values, as in 0.3,0.5,1,none, the curve is measured.",
        ),
    ] = None,
    truncate: TruncateOption = None,
    reference: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="Compare samples with images of: test or train.  [test]")
    ] = None,
    best: BestOption = False,
    device: UseDeviceOption = "auto",
    trust_recipe: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute metrics and a sample grid of the newest checkpoints.

    Uses the newest full version of each module, or with --best the best one, its moving average where the recipe keeps
    one, and held-out data. --metric, --samples, --truncation or --reference compares samples with real images instead.
    What is measured is also written to RUN/evaluation.
    """
    thresholds = truncations(truncation)
    method = truncate_method(truncate, thresholds)
    if metric or samples is not None or truncation is not None or reference is not None:
        noise = {"truncations": thresholds, "truncate": method}
        compared = {"samples": samples or SAMPLES, "reference": reference or "test", **noise}
        _score_samples(run, metric or [], compared, best, device, trust_recipe, as_json)
        return
    from modtrain.storage.run import Run
    from modtrain.training.evaluation import evaluate as evaluate_run

    opened = Run.open(run, trusted=trust_recipe)
    evaluation = evaluate_run(opened, best=best, device=device)
    if as_json:
        echo(json.dumps(evaluation, indent=2))
        return
    from modtrain.cli import terminal

    out = terminal.console()
    versions = ", ".join(f"{name} v{version}" for name, version in evaluation["versions"].items())
    head = terminal.Text.assemble((evaluation["run"], "bold"), "  ", (versions, "dim"), "\n")
    out.print(head, soft_wrap=not out.is_terminal)
    out.print(terminal.metrics_table(evaluation["metrics"]))
    if note := terminal.judge_note(evaluation["metrics"], opened.spec):
        out.print(terminal.Text(f"\n{note}", "yellow"), soft_wrap=True)
    if evaluation["grid"]:
        out.print(f"\nGrid: {terminal.short(Path(evaluation['grid']))}", soft_wrap=True)


def _score_samples(
    run: Path,
    metrics: list[str],
    compared: dict[str, Any],
    best: bool,
    device: str,
    trust_recipe: bool,
    as_json: bool,
) -> None:
    from modtrain.storage.run import Run
    from modtrain.training.inference.model import load
    from modtrain.training.inference.scoring import record_scores, score_samples

    model = load(Run.open(run, trusted=trust_recipe), best=best, device=device)
    with Progress() as progress:
        scored = score_samples(model, metrics, **compared, progress=progress)
    show_scores(scored, as_json=as_json)
    try:
        record_scores(model, scored)
    except OSError as error:  # the run of another user can be measured
        print_note(f"Not recorded in {model.run.path}: {message_of(error)}.")


def apply(
    run: RunArgument,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders with images at any depth.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the results, as PNG.  [default: RUN/evaluation/applied]"),
    ] = None,
    best: BestOption = False,
    device: UseDeviceOption = "auto",
    trust_recipe: TrustOption = False,
) -> None:
    """Run the trained modules on images of any size.

    Results keep the tree of an input folder. A result replaces an earlier file of its name, but never an input.
    An image that cannot be read is reported and skipped; the exit code is then 1.
    """
    from modtrain.cli.terminal import duration, short
    from modtrain.storage.run import Run
    from modtrain.training.inference.image_files import apply_to_files, result_paths
    from modtrain.training.inference.model import load

    opened = Run.open(run, trusted=trust_recipe)
    model = load(opened, best=best, device=device)
    model.check_applicable()  # before the images: none of them can mend it
    target = out if out is not None else opened.path / "evaluation" / "applied"
    files = result_paths(images, target)
    broken: list[Path] = []

    def skip(file: Path, reason: str) -> None:
        broken.append(file)
        echo(f"Skipped: {reason}", err=True)

    started_at = time.monotonic()
    done = show_progress(apply_to_files(model, files, broken=skip), len(files), broken)
    echo(f"{done} of {counted(len(files), 'image')} in {duration(time.monotonic() - started_at)}: {short(target)}")
    raise typer.Exit(1 if broken else 0)
