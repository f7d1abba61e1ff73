"""`worker`, `stop` and `cancel`: run one worker, stop a run, end its jobs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from modtrain.cli import options
from modtrain.cli.arguments import Command
from modtrain.cli.output import echo
from modtrain.errors import InputError, counted
from modtrain.storage.layout import SWEEP_FILE

if TYPE_CHECKING:
    from modtrain.storage.run import Run
    from modtrain.sweeps.sweep import Sweep


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (worker, stop, cancel):
        app.command(cls=Command)(command)


def worker(
    run: options.RunArgument,
    modules: Annotated[
        str | None, typer.Option(metavar="A,B", help="Modules of one worker of the run's placement.")
    ] = None,
    threads: options.ThreadsOption = None,
    leave_after: options.LeaveAfterOption = None,
    unattended: options.UnattendedOption = False,
    trust_recipe: options.TrustOption = False,
) -> None:
    """Run one worker of a run in this process.

    This is the command of every job.

    Exit codes: 0 finished, 2 wrong input, 3 stopped on request, 4 fenced out by another worker, 5 NaN or infinity,
    6 storage, 7 timeout of a peer, 75 preempted or at its time limit, 130 Ctrl-C, 1 any other error.
    """
    from modtrain.scheduling.standalone_worker import train
    from modtrain.storage.filesystem import STORAGE_TIMEOUT_S, Backoff, retry
    from modtrain.storage.run import Run

    opened = retry(lambda: Run.open(run, trusted=trust_recipe), Backoff("Reading", run, STORAGE_TIMEOUT_S))
    train(opened, _group(opened, modules), threads, leave_after, unattended)


def stop(
    run: options.RunOrSweepArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, shown by the workers and `status`.")
    ] = "modtrain stop",
) -> None:
    """Ask the workers of a run to publish and exit.

    They do so at their next batch, those that still start at once. `modtrain launch RUN` resumes the run. A sweep can
    be stopped as well.
    """
    from modtrain.storage.run import Run

    path = shlex.quote(str(run))
    if (run / SWEEP_FILE).exists():
        from modtrain.sweeps.runner import stop as stop_sweep
        from modtrain.sweeps.sweep import Sweep

        if state := _end_of(sweep := Sweep.open(run)):
            echo(f"{sweep.name} has ended already ({state}); there is nothing to stop.")
            return
        trials = counted(stop_sweep(sweep, reason), "running trial")
        echo(f"Asked {trials} to publish and exit; no other trial starts. `modtrain sweep {path}` resumes the sweep.")
        return
    from modtrain.cli.status import RunView
    from modtrain.storage.run_state import LIVE

    opened = Run.open(run)
    view = RunView(opened)
    view.settle()
    state, earlier = view.refresh()["state"], opened.stop_request()
    if state == "finished":
        echo(f"{opened.name} is already finished; there is nothing to stop.")
        return
    if earlier is not None and state not in (*LIVE, "queued"):
        echo(f"{opened.name} was {earlier.outcome} already. `modtrain launch {path}` resumes the run.")
        return
    opened.request_stop(reason, sender="modtrain stop")
    if state == "queued":
        note = f" Their jobs are queued and exit once they start; `modtrain cancel {path}` removes them from the queue."
    else:
        note = "" if state in LIVE else " No worker is running now."
    echo(f"Asked the workers of {opened.name} to publish and exit.{note} `modtrain launch {path}` resumes the run.")


def cancel(run: options.RunOrSweepArgument) -> None:
    """End the jobs of a run at once.

    They are ended through their backend; those of a sweep as well. What is published stays, and `modtrain launch RUN`
    resumes from there. `modtrain stop` lets the workers publish first.
    """
    from modtrain.scheduling.job_record import cancel_jobs
    from modtrain.storage.run import Run

    path = shlex.quote(str(run))
    if (run / SWEEP_FILE).exists():
        from modtrain.sweeps.runner import cancel as cancel_sweep
        from modtrain.sweeps.sweep import Sweep

        if state := _end_of(sweep := Sweep.open(run)):
            echo(f"{sweep.name} has ended already ({state}); there is nothing to cancel.")
            return
        trials = counted(cancel_sweep(sweep), "trial")
        echo(f"Ended the jobs of {trials}. `modtrain sweep {path}` resumes the sweep.")
        return
    opened = Run.open(run)
    ended = cancel_jobs(opened)
    echo(f"Ended {counted(ended, 'job')} of {opened.name}." if ended else f"{opened.name} has no live job.")
    if not opened.is_finished(opened.modules):
        echo(f"`modtrain launch {path}` resumes the run.")


def _end_of(sweep: Sweep) -> str | None:
    """The state of a sweep of which every trial has ended; None of any other, or where a job may run one again."""
    from modtrain.errors import BackendSilent
    from modtrain.storage.run_state import ENDED
    from modtrain.sweeps.trials import read_trials, state_of

    try:
        state = state_of(sweep, read_trials(sweep))
    except BackendSilent:
        return None
    return state if state in ENDED else None


def _group(run: Run, modules: str | None) -> list[str]:
    """The modules of the worker of the placement that `--modules` names."""
    from modtrain.scheduling.placement import format_placement

    groups = format_placement(run.spec.placement)
    if modules is None:
        if len(run.spec.placement) == 1:
            return run.spec.placement[0]
        raise InputError(f"Give --modules; the workers of {run.name} train {groups}.")
    names = [name.strip() for name in modules.split(",") if name.strip()]
    for name in names:
        run.check_module(name)
    for group in run.spec.placement:
        if sorted(group) == sorted(names):
            return group
    raise InputError(
        f"--modules {modules} is not a worker of {run.name}: its placement is {groups}. Give one of these groups, or "
        "launch a run with another --name and --place."
    )
