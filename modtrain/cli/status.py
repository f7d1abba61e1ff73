"""`status` and `watch`: one run, or all runs of a folder, once or continuously.

On a terminal the view is updated in place; elsewhere lines are printed: for what has changed, and for each
worker once in a while.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption, RunOrSweepArgument
from modtrain.cli.output import echo
from modtrain.errors import CONSEQUENCES, BackendSilent, InputError, ModtrainError, Preempted, StopRequested, counted
from modtrain.storage.layout import SWEEP_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from modtrain.monitoring.status import Status
    from modtrain.storage.run import Run
    from modtrain.storage.run_snapshot import WorkerJob

REFRESH_S = 1.0
"""Seconds between two readings of a run."""
REFRESH_ALL_S = 2.0
"""Seconds between two readings of a folder of runs."""
JOBS_S = 30.0
"""Seconds between two requests to a scheduler."""
SETTLED_S = 3.0
"""Seconds for which a run must look over: a worker that was killed may be about to be restarted."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (status, watch):
        app.command(cls=Command)(command)


def status(
    run: RunOrSweepArgument,
    as_json: JsonOption = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="Continue until the run is over, and exit with its code.")
    ] = False,
) -> None:
    """Show the state of a run, its modules and alarms.

    A module is shown with the versions of its peers that it trains against and how far they are behind. With --watch
    the exit code is the run's: 0 finished, 3 stopped, 75 preempted, else that of the worker that failed.
    """
    from modtrain.storage.run import Run

    if as_json and follow:
        raise InputError("--json prints one document and --watch continues; use one of them.")
    if (run / SWEEP_FILE).exists():
        if follow:
            raise InputError(f"{run} is a sweep: `modtrain watch {run}` follows it, and `status` one of its trials.")
        from modtrain.cli.sweep_view import show
        from modtrain.sweeps.sweep import Sweep

        show(Sweep.open(run), None, as_csv=False, as_json=as_json)
        return
    view = RunView(Run.open(run))
    if follow:
        raise typer.Exit(view.follow())
    view.settle()
    current = view.refresh()
    if as_json:
        echo(json.dumps(current, indent=2))
    else:
        from modtrain.cli import terminal

        out = terminal.console()
        out.print(view.render(current, out.width), soft_wrap=not out.is_terminal)
    raise typer.Exit(BackendSilent.exit_code if view.backend_is_silent else 0)


def watch(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder of runs and sweeps, or one of them.")],
    as_json: JsonOption = False,
) -> None:
    """Follow all runs and sweeps below a folder.

    Shows one line per run, those with alarms first, then the alarms and what to do. Ctrl-C ends it.
    """
    from rich.live import Live

    from modtrain.cli import catalog_table, terminal
    from modtrain.monitoring.catalog import Catalog
    from modtrain.storage.liveness import SHORT_PATIENCE_S

    if as_json:
        catalog = Catalog(root, patience_s=SHORT_PATIENCE_S, ask_every_s=JOBS_S)
        catalog.settle()
        echo(json.dumps(catalog.rows(), indent=2))
        return
    catalog, out, printed = Catalog(root, ask_every_s=JOBS_S), terminal.console(), terminal.Printed()
    with Live(console=out, auto_refresh=False) if terminal.is_live(out) else contextlib.nullcontext() as live:
        while True:
            catalog.refresh()
            table = catalog.rows()
            rows, notes = catalog_table.by_urgency(table["runs"]), catalog_table.notes(table)
            if live:
                view = catalog_table.render(root.name or str(root), rows, notes, out.width, out.height)
                live.update(view, refresh=True)
            else:
                for line in catalog_table.new_lines(printed, rows, notes):
                    echo(line)
            time.sleep(REFRESH_ALL_S)


class RunView:
    """One run in a terminal."""

    def __init__(self, run: Run) -> None:
        """Nothing is read before `refresh`."""
        from modtrain.cli import terminal
        from modtrain.cli.worker_lines import WorkerLines
        from modtrain.storage.history import History
        from modtrain.storage.liveness import SHORT_PATIENCE_S, Liveness

        self.run, self.history = run, History(run)
        self.liveness = Liveness(patience_s=SHORT_PATIENCE_S)
        self.backend_is_silent = False
        """Whether the scheduler did not answer when it was asked last."""
        self._jobs: Mapping[int, WorkerJob] = {}
        self._asked_at = float("-inf")
        self._printed, self._lines = terminal.Printed(), WorkerLines()

    def settle(self) -> None:
        """Observe workers on other machines for as long as it takes to know whether they are alive."""
        self.liveness.refresh(self.run)
        self.liveness.settle(self.run)

    def refresh(self) -> Status:
        """The run as `status --json` prints it: its status with the scheduler's answer, staleness and alarms."""
        from modtrain.monitoring.alarms import find_alarms
        from modtrain.monitoring.status import build_status, count_restarts
        from modtrain.storage.run_snapshot import read_snapshot

        self.history.refresh()
        current = build_status(read_snapshot(self.run, self.liveness, jobs=self._ask_scheduler()))
        for worker in current["workers"]:
            worker["restarts"] = count_restarts(self.history.events(worker["modules"][0]))
        return {**current, "alarms": [vars(alarm) for alarm in find_alarms(current, self.history)]}

    def follow(self) -> int:
        """Show the run until it is over; its exit code."""
        from rich.live import Live

        from modtrain.cli import terminal

        out, over_since = terminal.console(), None
        self.settle()
        with Live(console=out, auto_refresh=False) if terminal.is_live(out) else contextlib.nullcontext() as live:
            while True:
                current, now = self.refresh(), time.monotonic()
                if live:
                    live.update(self.render(current, out.width), refresh=True)
                else:
                    self._print_changes(current)
                over_since = (over_since or now) if _looks_over(current) else None
                if over_since is not None and (current["state"] == "finished" or now - over_since >= SETTLED_S):
                    return exit_code_of(current)
                time.sleep(REFRESH_S)

    def render(self, current: Status, width: int) -> RenderableType:
        """Header, modules, queued jobs, and alarms with what to do."""
        from rich.console import Group

        from modtrain.cli import terminal
        from modtrain.monitoring.status import queue_messages

        workers = counted(len(current["workers"]), "worker")
        name, state = terminal.plain(current["run"]), terminal.state_text(current["state"])
        head = terminal.Text.assemble((name, "bold"), "  ", state)
        restarts = sum(worker["restarts"] for worker in current["workers"])
        again = f", {restarts} restart{'s' * (restarts != 1)}" if restarts else ""
        stage = f", stage {current['stage']}" if current["stage"] and current["state"] != "finished" else ""
        about = terminal.Text(terminal.plain(f"{current['recipe']}, {workers}{stage}{again}"), "dim")
        parts: list[Any] = [head, about, "", terminal.modules_table(current, width=width)]
        if says := current["interruption"] or current["continuation"]:
            parts += ["", terminal.Text(says)]
        for name, weights in current["fixed"].items():  # not a table, which would fold a long path
            says = f"{weights['reference']}, sha256 {weights['sha256'][:12]}"
            parts += ["", terminal.Text.assemble((f"{name} (fixed)  ", "dim"), says)]
        if current["early_stop"]:
            parts += ["", terminal.Text(current["early_stop"]["says"])]
        for message in queue_messages(current):
            parts += ["", terminal.Text(message)]
        for alarm in current["alarms"]:
            parts += ["", terminal.alarm_text(alarm)]
        return Group(*parts)

    def _print_changes(self, current: Status) -> None:
        """A line of each worker whose state changed, or that had none for some time, and of each new alarm."""
        from modtrain.cli import terminal

        for line in self._lines.due(current):
            echo(terminal.plain(line))
        says = current["interruption"] or current["continuation"]
        if says and self._printed.is_new("interruption", says):
            echo(terminal.plain(says))
        for alarm in current["alarms"]:
            if self._printed.is_new(f"alarm {alarm['module']} {alarm['level']} {alarm['do']}", True):
                echo(terminal.plain(f"! {alarm['says']} {alarm['do']}"))

    def _ask_scheduler(self) -> Mapping[int, WorkerJob]:
        """The jobs by worker, where they are a scheduler's, from a request that is at most `JOBS_S` old."""
        from modtrain import plugins
        from modtrain.scheduling.job_record import is_known, read_record, worker_jobs

        if time.monotonic() - self._asked_at < JOBS_S:
            return self._jobs
        self._asked_at = time.monotonic()
        try:
            name = read_record(self.run).backend
            is_scheduler = name is not None and is_known(name) and plugins.load("backend", name).unattended
            self._jobs, self.backend_is_silent = worker_jobs(self.run) if is_scheduler else {}, False
        except ModtrainError as error:
            self.backend_is_silent = isinstance(error, BackendSilent)
            logging.getLogger(__name__).warning("%s", error)
        return self._jobs


def exit_code_of(current: Status) -> int:
    """The exit code of a run that is over: that of the cause of a failure rather than of a consequence."""
    states = {worker["state"] for worker in current["workers"]}
    if states == {"finished"}:
        failure = current["evaluation_failure"]
        return int(failure["exit_code"]) if failure else 0
    codes = [worker["exit_code"] or 1 for worker in current["workers"] if worker["state"] == "failed"]
    codes += [ModtrainError.exit_code] if "lost" in states else []
    if codes:
        return int(min(codes, key=lambda code: code in CONSEQUENCES))
    return Preempted.exit_code if "preempted" in states and not current["stop"] else StopRequested.exit_code


def _looks_over(current: Status) -> bool:
    """Whether no worker is alive or queued, and no launcher of this machine restarts one."""
    from modtrain.storage.run_state import PENDING

    states = {worker["state"] for worker in current["workers"]}
    return not states & PENDING and (states == {"finished"} or current["launcher"] is None)
