"""`launch` on a scheduler: submit a job for each worker and return, or only write the job scripts."""

from __future__ import annotations

import shlex

import typer

from modtrain.cli import terminal
from modtrain.errors import ModtrainError
from modtrain.scheduling.launcher import Launch


def submit(launch: Launch) -> None:
    """Submit what has no live job and is not finished, and say how to go on from here."""
    new = {member.number for member in launch.start()}
    out, run, reasons = terminal.console(), launch.run, _reasons(launch)
    out.print(terminal.Text.assemble((run.name, "bold"), "  ", (f"on {launch.backend_name}", "dim")), soft_wrap=True)
    for member in launch.members:
        what = "submitted" if member.number in new else "finished" if member.over else "live already"
        id, why = (member.id or "").rpartition("@")[2], reasons.get(member.id or "", "")
        line = f"  {member.name:<28}  {what:<12}  {id:<8}  {why}".rstrip()
        out.print(line, soft_wrap=True, markup=False, highlight=False)
    shown = shlex.quote(terminal.short(run.path))
    typer.echo("Nobody has to stay.")
    typer.echo(f"  watch it   modtrain status {shown}")
    typer.echo(f"  stop it    modtrain stop {shown}")
    typer.echo(f"  end it     modtrain cancel {shown}")


def _reasons(launch: Launch) -> dict[str, str]:
    """What the scheduler says of each job at once: one that it took but can never place is seen here."""
    try:
        found = launch.backend.status(launch.asks().get(launch.backend_name, []))
    except ModtrainError:  # they are submitted all the same
        return {}
    return {id: state.reason for id, state in found.items() if state.reason != "None"}


def show_scripts(launch: Launch) -> None:
    """Write the job scripts, print them, and submit nothing."""
    for path in launch.scripts():
        typer.echo(f"# {path}")
        typer.echo(path.read_text())
    typer.echo(f"# Nothing was submitted. These scripts are in {launch.run.path / 'jobs'}, to be submitted by hand.")
