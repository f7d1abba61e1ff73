"""`status` and `watch`: one run, or all of a folder, once or for as long as somebody looks.

On a terminal what is shown is renewed in place; elsewhere a line is printed when something changed. Deliberately not
here: what a launch shows while it runs (`watching.py`), and what is the case (`status.py`, `alarms.py`, `catalog.py`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import JsonOption, RunOrSweepArgument
from modtrain.errors import CONSEQUENCES, BackendSilent, InputError, ModtrainError, Preempted, StopRequested

if TYPE_CHECKING:
    from rich.console import RenderableType

    from modtrain.storage.run import Run

LOOK_S = 1.0
"""Seconds between two looks at a run."""
LOOK_ALL_S = 2.0
"""The same at a folder of runs."""
JOBS_S = 30.0
"""Seconds between two questions to a scheduler."""
SURE_S = 3.0
"""How long a run must look over: a worker that was killed may be about to be started again."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (status, watch):
        app.command(cls=Command)(command)


def status(
    run: RunOrSweepArgument,
    as_json: JsonOption = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="Go on until the run is over, and end with its exit code.")
    ] = False,
) -> None:
    """Show how far every module is, and who is in trouble.

    With each module stand the versions of its peers that it trains against, and how far they are behind. With --watch
    the exit code is the run's: 0 finished, 3 stopped, 75 told to leave, else that of the worker that failed.
    """
    from modtrain.storage.run import Run

    if as_json and follow:
        raise InputError("--json prints one document and --watch goes on; take one of them.")
    if (run / "sweep.json").exists():
        if follow:
            raise InputError(f"{run} is a sweep: `modtrain watch {run}` follows it, and `status` one of its trials.")
        from modtrain.cli.sweep_view import show
        from modtrain.sweeps.sweep import Sweep

        show(Sweep.open(run), None, as_csv=False, as_json=as_json)
        return
    following = Following(Run.open(run))
    if follow:
        raise typer.Exit(following.to_the_end())
    following.settle()
    found = following.look()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        from modtrain.cli import terminal

        out = terminal.console()
        out.print(following.picture(found, out.width), soft_wrap=not out.is_terminal)
    raise typer.Exit(BackendSilent.exit_code if following.is_silent else 0)


def watch(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder of runs and sweeps, or one of them.")],
    as_json: JsonOption = False,
) -> None:
    """Follow every run and sweep below a folder.

    There is a line for each, first those that somebody should look at, and below what is wrong with them and what to
    do. Ctrl-C ends it.
    """
    from modtrain.cli import catalog_table, terminal
    from modtrain.monitoring.catalog import Catalog
    from modtrain.storage.liveness import ONE_LOOK_S

    if as_json:
        catalog = Catalog(root, patience_s=ONE_LOOK_S)
        catalog.settle()
        typer.echo(json.dumps(catalog.rows(), indent=2))
        return
    catalog, out, lines = Catalog(root), terminal.console(), catalog_table.Lines()

    def look() -> tuple[list[catalog_table.Row], bool]:
        catalog.look()
        found = catalog.rows()
        return catalog_table.by_attention(found["runs"]), found["unsearched"]

    if not terminal.is_live(out):
        while True:
            for line in lines.new(*look()):
                typer.echo(line)
            time.sleep(LOOK_ALL_S)
    from rich.live import Live

    with Live(console=out, auto_refresh=False) as live:
        while True:
            shown = catalog_table.picture(root.name or str(root), *look(), out.width, out.height)
            live.update(shown, refresh=True)
            time.sleep(LOOK_ALL_S)


class Following:
    """One run as a person follows it."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet."""
        from modtrain.storage.history import History
        from modtrain.storage.liveness import ONE_LOOK_S, Pulse

        self.run, self.history = run, History(run)
        self.pulse = Pulse(patience_s=ONE_LOOK_S)
        self._jobs: tuple[Any, Any] | None = None
        self.is_silent = False
        """Whether the scheduler did not answer when it was asked last."""
        self._asked = float("-inf")
        self._told: dict[str, object] = {}

    def settle(self) -> None:
        """Take the moment that it takes to know whether workers on other machines live."""
        from modtrain.storage.liveness import settle

        self.pulse.look(self.run)
        settle(self.pulse, self.run)

    def look(self) -> dict[str, Any]:
        """The run as `status --json` prints it: joined with its scheduler, how old the peers are, and alarms."""
        from modtrain.monitoring.alarms import alarms
        from modtrain.monitoring.status import summary
        from modtrain.scheduling.job_record import with_jobs

        self.history.look()
        found = summary(self.run, *self.pulse.look(self.run))
        if (jobs := self._ask()) is not None:
            found = with_jobs(found, *jobs)
        for module in found["modules"].values():
            for peer, used in module["peers"].items():
                used["behind_steps"] = self._behind(peer, used["version"])
        return {**found, "alarms": [vars(alarm) for alarm in alarms(found, self.history)]}

    def to_the_end(self) -> int:
        """Show it until it is over; the exit code of the run."""
        from modtrain.cli import terminal

        out = terminal.console()
        if terminal.is_live(out):
            from rich.live import Live

            with Live(console=out, auto_refresh=False) as live:
                found = self._until_over(lambda found: live.update(self.picture(found, out.width), refresh=True))
        else:
            found = self._until_over(lambda found: self._lines(found, typer.echo))
        return outcome(found)

    def picture(self, found: dict[str, Any], width: int) -> RenderableType:
        """Header, modules, who is queued, and alarms with what to do."""
        from rich.console import Group

        from modtrain.cli import terminal
        from modtrain.scheduling.job_record import queued

        text = terminal.Text
        workers = f"{len(found['workers'])} worker{'s' * (len(found['workers']) != 1)}"
        head = text.assemble((terminal.plain(found["run"]), "bold"), "  ", terminal.state_text(found["state"]))
        about = text(terminal.plain(f"{found['recipe']}, {workers}"), "dim")
        parts: list[Any] = [head, about, "", terminal.modules_table(found, width=width)]
        for sentence in queued(found):
            parts += ["", text(sentence)]
        for alarm in found["alarms"]:
            parts += ["", terminal.alarm_text(alarm)]
        return Group(*parts)

    def _until_over(self, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        over_since: float | None = None
        self.settle()
        while True:
            found, now = self.look(), time.monotonic()
            show(found)
            over_since = (over_since or now) if self._looks_over(found) else None
            if over_since is not None and (found["state"] == "finished" or now - over_since >= SURE_S):
                return found
            time.sleep(LOOK_S)

    def _looks_over(self, found: dict[str, Any]) -> bool:
        """No worker lives or is to come, and nobody of this machine is there who would start it again."""
        from modtrain.storage.liveness import LIVE, launcher

        states = {worker["state"] for worker in found["workers"]}
        return not states & {*LIVE, "queued"} and (states == {"finished"} or launcher(self.run) is None)

    def _lines(self, found: dict[str, Any], say: Callable[[str], None]) -> None:
        """A line of each worker that is elsewhere or something else now, and of each new alarm."""
        from modtrain.cli import launch_view, terminal

        for worker in found["workers"]:
            module = found["modules"][worker["modules"][0]]
            key = f"worker {worker['worker']}"
            if self._is_new(key, (worker["state"], worker["waiting_for"], module["epoch"], module["version"])):
                version = "" if module["version"] is None else f", v{module['version']}"
                say(terminal.plain(launch_view.line_of(worker, module) + version))
        for alarm in found["alarms"]:
            if self._is_new(f"alarm {alarm['module']} {alarm['level']} {alarm['do']}", True):
                say(terminal.plain(f"! {alarm['says']} {alarm['do']}"))

    def _is_new(self, key: str, value: object) -> bool:
        before, self._told[key] = self._told.get(key), value
        return before != value

    def _behind(self, peer: str, version: int | None) -> int | None:
        """Steps of a peer between the version of it that was used and its newest."""
        lines = self.history.versions(peer) if peer in self.run.modules else []
        step = next((line["step"] for line in reversed(lines) if line["version"] == version), None)
        return None if step is None else max(0, int(lines[-1]["step"] - step))

    def _ask(self) -> tuple[Any, Any] | None:
        """What was submitted and where it is; now and then, where the jobs are a scheduler's."""
        from modtrain import plugins
        from modtrain.scheduling.job_record import known, read_record, states

        if time.monotonic() - self._asked < JOBS_S:
            return self._jobs
        self._asked = time.monotonic()
        try:
            record = read_record(self.run)
            if (
                record.backend is None
                or not known(record.backend)
                or not plugins.load("backend", record.backend).unattended
            ):
                self._jobs = None
                return None
            self._jobs, self.is_silent = (record, states(self.run)), False
        except ModtrainError as error:
            self.is_silent = isinstance(error, BackendSilent)
            logging.getLogger(__name__).warning("%s", error)
        return self._jobs


def outcome(found: dict[str, Any]) -> int:
    """The exit code of a run that is over: of the cause rather than of its consequences."""
    states = {worker["state"] for worker in found["workers"]}
    if states == {"finished"}:
        return 0
    codes = [worker["exit_code"] or 1 for worker in found["workers"] if worker["state"] == "failed"]
    codes += [ModtrainError.exit_code] if "lost" in states else []
    if codes:
        return int(min(codes, key=lambda code: code in CONSEQUENCES))
    return Preempted.exit_code if "preempted" in states and not found["stop"] else StopRequested.exit_code
