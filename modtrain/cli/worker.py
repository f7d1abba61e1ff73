"""`worker`, `stop` and `cancel`: one worker by hand, and ending a run."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import (
    EvaluateEveryOption,
    LeaveAfterOption,
    RunArgument,
    RunOrSweepArgument,
    ThreadsOption,
    UnattendedOption,
)
from modtrain.errors import InputError, did_you_mean
from modtrain.storage.layout import SWEEP_FILE

if TYPE_CHECKING:
    from modtrain.scheduling.backends.base import JobState
    from modtrain.storage.run import Run


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (worker, stop, cancel):
        app.command(cls=Command)(command)


def worker(
    run: RunArgument,
    modules: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="The modules to train here: all of one worker of the run's placement."),
    ] = None,
    threads: ThreadsOption = None,
    leave_after: LeaveAfterOption = None,
    unattended: UnattendedOption = False,
    evaluate_every: EvaluateEveryOption = None,
) -> None:
    """Train some modules of a run here: what jobs run.

    The exit code says how it ended: 0 finished, 3 stopped on request, 4 overtaken by another worker, 5 NaN, 6 storage
    failed, 7 a peer was late, 75 told to leave by SIGTERM, 130 Ctrl-C, 2 wrong input, 1 anything else.
    """
    from modtrain.storage.run import Run

    opened = Run.open(run)
    placed = _placed(opened, modules)
    train(opened, placed, threads, leave_after, unattended, evaluate_every)


def train(
    run: Run,
    modules: list[str],
    threads: int | None,
    leave_after: float | None,
    unattended: bool,
    evaluate_every: int | None,
    *,
    ask: Callable[[Run], Mapping[int, JobState]] | None = None,
) -> None:
    """Train as the options say; `ask` knows the jobs of the run's workers, where the run itself does not."""
    if unattended or evaluate_every:
        from modtrain.scheduling import standalone_worker as alone
        from modtrain.scheduling.job_record import job_states

        every, ask = evaluate_every, ask or job_states
        alone.train(run, modules, threads=threads, leave_after_s=leave_after, evaluate_every=every, ask=ask)
    else:
        from modtrain.training.worker_process import work

        work(run, modules, threads=threads, leave_after_s=leave_after)


def stop(
    run: RunOrSweepArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; the workers and `status` repeat it.")
    ] = "modtrain stop",
) -> None:
    """Ask the workers of a run to publish and leave.

    They do so at their next batch; `modtrain launch RUN` goes on from there.
    """
    from modtrain.storage.run import Run

    if (run / SWEEP_FILE).exists():
        from modtrain.sweeps.runner import stop as stop_sweep
        from modtrain.sweeps.sweep import Sweep

        running = stop_sweep(Sweep.open(run), reason)
        typer.echo(
            f"No further trial begins, and {running} were asked to publish and leave; `modtrain sweep {run}` goes on."
        )
        return
    from modtrain.cli.status import RunView
    from modtrain.storage.run_state import LIVE

    opened = Run.open(run)
    view = RunView(opened)
    view.settle()
    state = view.refresh()["state"]
    if state == "finished":
        typer.echo(f"{opened.name} is finished already: there is nothing to stop.")
        return
    opened.request_stop(reason, sender="modtrain stop")
    shown = shlex.quote(str(run))
    logging.getLogger(__name__).debug("Wrote %s", opened.path / "stop")
    now = {
        **dict.fromkeys(LIVE, ""),
        "queued": f" Their jobs are queued and leave as they start; `modtrain cancel {shown}` takes them out.",
    }.get(state, " No worker seems to run now.")
    typer.echo(f"Asked the workers of {opened.name} to publish and leave.{now} `modtrain launch {shown}` goes on.")


def cancel(run: RunOrSweepArgument) -> None:
    """End the jobs of a run through whatever runs them.

    That is a scheduler, a cluster, or this machine. What is published stays, and `modtrain launch RUN` goes on from
    there. `modtrain stop` is the gentle way.
    """
    from modtrain.scheduling.job_record import cancel_jobs
    from modtrain.storage.run import Run

    if (run / SWEEP_FILE).exists():
        from modtrain.sweeps.runner import cancel as cancel_sweep
        from modtrain.sweeps.sweep import Sweep

        typer.echo(f"Ended the jobs of {cancel_sweep(Sweep.open(run))} trials; `modtrain sweep {run}` goes on.")
        return
    opened = Run.open(run)
    ended = cancel_jobs(opened)
    jobs = f"Ended {ended} job{'' if ended == 1 else 's'} of {opened.name}."
    typer.echo(jobs if ended else f"{opened.name} has no live job.")
    typer.echo(f"`modtrain launch {shlex.quote(str(run))}` goes on.")


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
