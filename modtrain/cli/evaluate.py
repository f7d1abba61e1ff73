"""`evaluate` and `apply`: what the trained modules are worth, and images in, images out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption, RunArgument

DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")]
TELL_S = 5.0
"""Seconds between two lines of progress where there is no terminal."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (evaluate, apply):
        app.command(cls=Command)(command)


def evaluate(run: RunArgument, device: DeviceOption = "auto", as_json: JsonOption = False) -> None:
    """Measure the newest checkpoints, and draw a sample grid.

    The newest full version of each module is judged on held-out data, by its moving average where the recipe keeps
    one. The metrics and the picture are also written to RUN/evaluation.
    """
    from modtrain.storage.run import Run
    from modtrain.training.evaluation import evaluate as judge

    found = judge(Run.open(run), device=device)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from modtrain.cli import terminal

    out = terminal.console()
    versions = ", ".join(f"{name} v{version}" for name, version in found["versions"].items())
    out.print(f"[bold]{found['run']}[/]  [dim]{versions}[/]\n", soft_wrap=not out.is_terminal)
    out.print(terminal.metrics_table(found["metrics"]))
    if found["grid"]:
        out.print(f"\nGrid: {found['grid']}", soft_wrap=True)


def apply(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders with all below.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the results go, as PNG.  [default: RUN/evaluation/applied]"),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Run the trained modules on images of any size.

    A folder's tree is kept. Inputs are never overwritten. An image that cannot be read is named and left out, and the
    exit code is 1 then.
    """
    from modtrain.storage.run import Run
    from modtrain.training.inference import apply_to_files, result_paths

    opened = Run.open(run)
    target = out if out is not None else opened.path / "evaluation" / "applied"
    files = result_paths(images, target)
    broken: list[Path] = []

    def leave_out(file: Path, why: str) -> None:
        broken.append(file)
        typer.echo(f"Left out: {why}", err=True)

    done, begun = 0, time.monotonic()
    with Progress(len(files)) as progress:
        for done, _ in enumerate(apply_to_files(opened, files, device=device, broken=leave_out), 1):
            progress.at(done + len(broken))
    from modtrain.cli.terminal import duration

    typer.echo(f"{done} of {len(files)} images in {duration(time.monotonic() - begun)}: {target}")
    raise typer.Exit(1 if broken else 0)


class Progress:
    """Many images: a bar with rate and time left on a terminal, a line now and then elsewhere; always on stderr."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from modtrain.cli import terminal

        self._total, self._begun, self._told = total, time.monotonic(), time.monotonic()
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

    def at(self, done: int) -> None:
        """So many are through."""
        now = time.monotonic()
        rate = done / max(now - self._begun, 1e-9)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, rate=f"{rate:.1f}/s")
        elif now - self._told > TELL_S:
            from modtrain.cli.terminal import clock

            self._told = now
            typer.echo(f"{done}/{self._total}  {rate:.1f}/s  {clock((self._total - done) / rate)} left", err=True)
