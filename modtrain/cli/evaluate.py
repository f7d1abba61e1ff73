"""`evaluate` and `apply`: metrics of the trained modules, and inference on image files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption, RunArgument

DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
PROGRESS_S = 5.0
"""Seconds between two lines of progress where standard error is no terminal."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (evaluate, apply):
        app.command(cls=Command)(command)


def evaluate(run: RunArgument, device: DeviceOption = "auto", as_json: JsonOption = False) -> None:
    """Compute metrics and a sample grid of the newest checkpoints.

    Uses the newest full version of each module, its moving average where the recipe keeps one, and held-out data. The
    metrics and the grid are also written to RUN/evaluation.
    """
    from modtrain.storage.run import Run
    from modtrain.training.evaluation import evaluate as evaluate_run

    evaluation = evaluate_run(Run.open(run), device=device)
    if as_json:
        typer.echo(json.dumps(evaluation, indent=2))
        return
    from modtrain.cli import terminal

    out = terminal.console()
    versions = ", ".join(f"{name} v{version}" for name, version in evaluation["versions"].items())
    out.print(f"[bold]{evaluation['run']}[/]  [dim]{versions}[/]\n", soft_wrap=not out.is_terminal)
    out.print(terminal.metrics_table(evaluation["metrics"]))
    if evaluation["grid"]:
        out.print(f"\nGrid: {evaluation['grid']}", soft_wrap=True)


def apply(
    run: RunArgument,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders with images at any depth.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the results, as PNG.  [default: RUN/evaluation/applied]"),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Run the trained modules on images of any size.

    Results keep the tree of an input folder. Inputs are never overwritten. An image that cannot be read is reported and
    skipped; the exit code is then 1.
    """
    from modtrain.storage.run import Run
    from modtrain.training.inference import apply_to_files, result_paths

    opened = Run.open(run)
    target = out if out is not None else opened.path / "evaluation" / "applied"
    files = result_paths(images, target)
    broken: list[Path] = []

    def skip(file: Path, reason: str) -> None:
        broken.append(file)
        typer.echo(f"Skipped: {reason}", err=True)

    done, started_at = 0, time.monotonic()
    with Progress(len(files)) as progress:
        for done, _ in enumerate(apply_to_files(opened, files, device=device, broken=skip), 1):
            progress.update(done + len(broken))
    from modtrain.cli.terminal import duration

    typer.echo(f"{done} of {len(files)} images in {duration(time.monotonic() - started_at)}: {target}")
    raise typer.Exit(1 if broken else 0)


class Progress:
    """Progress over many images on standard error: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from modtrain.cli import terminal

        self._total, self._started_at, self._printed_at = total, time.monotonic(), time.monotonic()
        console = terminal.console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal and total > 1 else None
        self._task = self._bar.add_task("", total=total, rate="") if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int) -> None:
        """Show the number of images that are done."""
        now = time.monotonic()
        rate = done / max(now - self._started_at, 1e-9)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, rate=f"{rate:.1f}/s")
        elif now - self._printed_at > PROGRESS_S:
            from modtrain.cli.terminal import clock

            self._printed_at = now
            typer.echo(f"{done}/{self._total}  {rate:.1f}/s  {clock((self._total - done) / rate)} left", err=True)
