"""`worker`, `status` and `stop`: one worker by hand, how far a run is, and asking it to finish."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli.parsing import Command
from modtrain.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from modtrain.run import Run

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, such as runs/apples-1.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (worker, status, stop):
        app.command(cls=Command)(command)


def worker(
    run: RunArgument,
    modules: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="The modules to train here: all of one worker of the run's placement."),
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads that torch may use.")] = None,
) -> None:
    """Train some modules of a run here: what every job runs.

    The exit code says how it ended: 0 finished, 3 stopped on request, 4 overtaken by another worker, 5 NaN, 6 storage
    failed, 7 a peer was late, 75 told to leave by SIGTERM, 130 Ctrl-C, 2 wrong input, 1 anything else.
    """
    from modtrain.run import Run

    opened = Run.open(run)
    placed = _placed(opened, modules)
    from modtrain.worker import work

    work(opened, placed, threads=threads)


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show how far every module is, and who is in trouble.

    With each module stand the versions of its peers that it trains against, and how far they are behind.
    """
    from modtrain.run import Run
    from modtrain.status import alarms
    from modtrain.status import status as read

    found = read(Run.open(run))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from modtrain.cli import terminal

    out = terminal.console()
    out.print(terminal.Text.assemble((found["run"], "bold"), "  ", terminal.state_text(found["state"])), soft_wrap=True)
    out.print(f"[dim]{found['recipe']}[/], {len(found['workers'])} workers\n", soft_wrap=True)
    out.print(terminal.modules_table(found, width=out.width))
    for sentence in alarms(found):
        out.print(terminal.Text.assemble(("\n! ", "bold red"), sentence), soft_wrap=not out.is_terminal)


def stop(
    run: RunArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; the workers and `status` repeat it.")] = "asked for",
) -> None:
    """Ask the workers of a run to publish and leave.

    They do so at their next batch; `modtrain launch RUN` goes on from there.
    """
    from modtrain.run import Run
    from modtrain.status import status as read

    opened = Run.open(run)
    state = read(opened)["state"]
    if state == "finished":
        typer.echo(f"{opened.name} is finished already: there is nothing to stop.")
        return
    opened.request_stop(reason)
    logging.getLogger(__name__).debug("Wrote %s", opened.path / "stop")
    now = "" if state == "running" else " No worker seems to run now."
    typer.echo(f"Asked the workers of {opened.name} to publish and leave.{now} `modtrain launch {run}` goes on.")


def _placed(run: Run, modules: str | None) -> list[str]:
    """The group of the placement that is meant; who sees whom live is decided by the run, not by the worker."""
    if modules is None:
        if len(run.spec.placement) == 1:
            return run.spec.placement[0]
        raise InputError(f"Give --modules; the workers of {run.name} train {_groups(run)}.")
    names = [name.strip() for name in modules.split(",") if name.strip()]
    for name in names:
        if name not in run.modules:
            near = did_you_mean(name, run.modules)
            raise InputError(f"{run.name} has no module {name!r}; it has {', '.join(run.modules)}.{near}")
    for placed in run.spec.placement:
        if sorted(placed) == sorted(names):
            return placed
    raise InputError(
        f"--modules {modules} is no worker of {run.name}: its placement, decided at its launch, is {_groups(run)}. "
        "Give one of these groups, or launch a run with another --name and --place."
    )


def _groups(run: Run) -> str:
    return " | ".join(",".join(placed) for placed in run.spec.placement)
