"""`launch` on a batch scheduler: submit one job per worker and return, or only write the job scripts."""

from __future__ import annotations

import shlex

import typer

from modtrain.cli import terminal
from modtrain.errors import ModtrainError
from modtrain.scheduling.launcher import Launch


def submit(launch: Launch) -> None:
    """Submit the workers without a live job, and print every worker's job and the commands that follow."""
    submitted = {member.number for member in launch.start()}
    out, run, reasons = terminal.console(), launch.run, _reasons(launch)
    out.print(terminal.Text.assemble((run.name, "bold"), "  ", (f"on {launch.backend_name}", "dim")), soft_wrap=True)
    for member in launch.members:
        status = "submitted" if member.number in submitted else "finished" if member.over else "live already"
        id, reason = (member.id or "").rpartition("@")[2], reasons.get(member.id or "", "")
        line = f"  {member.name:<28}  {status:<12}  {id:<8}  {reason}".rstrip()
        out.print(line, soft_wrap=True, markup=False, highlight=False)
    path = shlex.quote(terminal.short(run.path))
    typer.echo("Jobs submitted; you can log out." if submitted else "No job had to be submitted.")
    typer.echo(f"  watch     modtrain status {path}")
    typer.echo(f"  stop      modtrain stop {path}")
    typer.echo(f"  cancel    modtrain cancel {path}")


def show_scripts(launch: Launch) -> None:
    """Write and print the job scripts, and submit nothing."""
    for path in launch.scripts():
        typer.echo(f"# {path}")
        typer.echo(path.read_text())
    typer.echo(f"# Nothing was submitted. The scripts are in {launch.run.jobs_path} and can be submitted by hand.")


def _reasons(launch: Launch) -> dict[str, str]:
    """Why the scheduler has not started each job: one that can never run is recognized at once."""
    try:
        states = launch.backend.status(launch.job_ids().get(launch.backend_name, []))
    except ModtrainError:  # the jobs are submitted all the same
        return {}
    return {id: state.reason for id, state in states.items() if state.reason != "None"}
