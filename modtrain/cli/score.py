"""`score`: how far the images of a folder are from real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption, UseDeviceOption
from modtrain.cli.output import echo
from modtrain.cli.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

REALS = "reals: real images, one half of the reference against the other, or all of it where no two sets are compared."


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(cls=Command)(score)


def score(
    images: Annotated[Path, typer.Argument(metavar="DIR_A", help="Folder of the images to judge.")],
    reference: Annotated[Path, typer.Argument(metavar="DIR_B", help="Folder of real images.")],
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Network that makes the features: orchard, efficientnet-lite0 or inception:PATH; repeatable. "
            "orchard knows only the built-in fruits. [orchard, or those of --metric]",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this metric, such as fid_orchard or swd; repeatable.  [all]"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=16, help="Resize all images to this edge.  [as they are]")
    ] = None,
    device: UseDeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compare two folders of images: FID, SWD and others.

    Beside each value is that of real images: of one half of the reference against the other.
    """
    from modtrain.metrics.folder_scores import score_folders
    from modtrain.training.learner import choose_device

    chosen: dict[str, Any] = {"extractors": extractor, "metrics": metric or (), "size": size}
    with Progress() as progress:
        scored = score_folders(images, reference, **chosen, device=choose_device(device), progress=progress)
    show_scores(scored, as_json=as_json)


def show_scores(scored: dict[str, Any], *, as_json: bool) -> None:
    """Print scores and what they are of: a table, or one JSON document."""
    if as_json:
        echo(json.dumps(scored, indent=2))
        return
    from modtrain.cli import terminal

    out = terminal.console()
    for role in ("images", "reference"):
        facts = scored[role]
        place = f" in {facts['path']}" if "path" in facts else f", split {facts['split']}" if "split" in facts else ""
        out.print(f"{role}: {facts['count']} of {facts['size']} px{place}", soft_wrap=True)
    for name, resize in scored["extractors"].items():
        out.print(f"{name}: resized to {resize}", soft_wrap=True, style="dim")
    out.print("")
    out.print(_scores_table(scored))
    made = "images: the images" if "metrics" in scored else "at T: samples of noise truncated at T, or none,"
    columns = f"{made} against the reference; {REALS}"
    for line in ("", columns, *scored["notes"]):
        out.print(terminal.Text(line, "dim" if line == columns else "yellow"), soft_wrap=True)


def _scores_table(scored: dict[str, Any]) -> Table:
    """One row for each metric: its value, or one for each truncation, that of real images, and which is better."""
    from modtrain.cli import terminal

    columns = {"images": scored["metrics"]} if "metrics" in scored else _curve(scored["curve"])
    table = terminal.table(
        "metric",
        *(terminal.Column(title, justify="right") for title in (*columns, "reals")),
        terminal.Column("better", style="dim"),
    )
    for name in next(iter(columns.values())):
        values = [metrics.get(name) for metrics in (*columns.values(), scored["reals"])]
        better = "lower" if name in scored["lower_is_better"] else "higher"
        table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values), better)
    return table


def _curve(points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The metrics at each truncation, by the title of their column."""
    return {
        "none" if point["truncation"] is None else f"at {point['truncation']:g}": point["metrics"] for point in points
    }
