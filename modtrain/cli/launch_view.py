"""The terminal during a launch: a live table, or lines where the output is no terminal; and the effect of Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.cli.worker_lines import WorkerLines
from modtrain.errors import STOPPED, Interrupted, ModtrainError, Preempted, StopRequested, counted, message_of
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.status import Status, build_status
from modtrain.scheduling import job_record
from modtrain.scheduling.launcher import Launch, Member
from modtrain.storage.evaluations import read_failure
from modtrain.storage.filesystem import fault_of
from modtrain.storage.heartbeat import NO_REPORT, WorkerReport
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run_snapshot import ModuleSnapshot, RunSnapshot, WorkerJob

REFRESH_S = 1.0
"""Seconds between two readings of the heartbeats."""


class LaunchView:
    """One launch in a terminal."""

    def __init__(self, launch: Launch, started_at: float) -> None:
        """`started_at`: when the command began, by `time.monotonic`."""
        self.launch, self.run = launch, launch.run
        self.out = terminal.console(outlives_reader=True)
        self._reports = dict.fromkeys(self.run.modules, NO_REPORT)
        self._signals: list[signal.Signals] = []
        self._started_at = started_at
        self._lines = WorkerLines()
        self._is_unreadable = False
        self._stop_requests = 0
        """Signals that have had an effect: the first one stops the workers, the second one ends them."""

    def follow(self) -> int:
        """Show the launch until every worker is over; its exit code."""
        self._print_header()
        refreshed_at = float("-inf")
        hangup = not self.launch.backend.unattended
        with terminal.collected_signals(self._signals, hangup=hangup), self._display() as show:
            for _ in self.launch.watch(self._print):
                self._handle_signals()
                if self.launch.over or time.monotonic() - refreshed_at >= REFRESH_S:
                    refreshed_at = time.monotonic()
                    self._show(show)
        self._print_failures()
        return self._exit_code()

    def _show(self, show: Callable[[Status], None]) -> None:
        """Show the status. Where storage does not give it, that is said once; the jobs continue."""
        try:
            status = self.status()
        except (OSError, ModtrainError) as error:
            if (fault := fault_of(error)) is None:
                raise
            if not self._is_unreadable:
                self._print(
                    f"The status of {self.run.name} cannot be read now: {message_of(fault)}. The workers continue."
                )
            self._is_unreadable = True
            return
        self._is_unreadable = False
        try:
            show(status)
        except OSError as error:  # as where the terminal is gone, or the disk full to which output is redirected
            if fault_of(error) is None:
                raise

    def status(self) -> Status:
        """The status of the run; a worker that is being restarted counts with what it has published."""
        return build_status(self._snapshot())

    def print_result(self) -> None:
        """Print the metrics of the finished run, its sample grid, the time since the command began, and the alarms."""
        self.out.print()
        if (early_stop := self.status()["early_stop"]) is not None:
            self.out.print(Text(early_stop["says"]), soft_wrap=True)
        self._print_evaluation()
        for alarm in find_alarms(self.status()):
            self.out.print(terminal.alarm_text(vars(alarm)), soft_wrap=True)

    def _print_evaluation(self) -> None:
        from modtrain.training.evaluation import NothingToEvaluate, final_evaluation

        try:
            evaluation = final_evaluation(self.run)
        except NothingToEvaluate as error:
            self.out.print(f"Finished in {self._took()}, but not evaluated: {error}", soft_wrap=True)
            return
        except Exception:
            self.out.print(Text(f"Finished in {self._took()}, but the evaluation failed.", "bold red"))
            raise
        if evaluation is None:
            self.out.print(f"Finished in {self._took()}. The recipe has no `evaluate`: no metrics.")
            return
        self.out.print(terminal.metrics_table(evaluation.metrics))
        if note := terminal.judge_note(evaluation.metrics, self.run.spec):
            self.out.print(Text(f"\n{note}", "yellow"), soft_wrap=True)
        grid = {"grid": terminal.short(Path(evaluation.grid))} if evaluation.grid else {}
        self.out.print()
        facts = {**grid, "run": terminal.short(self.run.path), "took": self._took()}
        for name, value in facts.items():  # not a table, which would fold a long path
            self.out.print(Text.assemble((f"{name:<4}  ", "dim"), value), soft_wrap=True)

    def _took(self) -> str:
        return terminal.duration(time.monotonic() - self._started_at)

    def _print_header(self) -> None:
        spec = self.run.spec
        size = f"{counted(spec.epochs, 'epoch')}, {counted(len(spec.placement), 'worker')}"
        about = f"{Path(spec.recipe).name}, {size} on {self.launch.backend_name}"
        self.out.print(Text.assemble((self.run.name, "bold"), "  ", (about, "dim")), soft_wrap=True)
        if not self.out.is_terminal:
            self.out.print(Text(f"in {terminal.short(self.run.path)}"), soft_wrap=True)
        if words := terminal.closing_words(unattended=self.launch.backend.unattended):
            self.out.print(Text(words, "dim"), soft_wrap=True)

    def _print(self, message: str) -> None:
        """One line after the time since the command began; on a terminal it wraps beside the time."""
        clock = f"{terminal.clock(time.monotonic() - self._started_at):>7}"
        if not self.out.is_terminal:
            self.out.print(Text(f"{clock}  {message}"), soft_wrap=True)
            return
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(Text(clock, "dim"), Text(message))
        self.out.print(line)

    @contextmanager
    def _display(self) -> Iterator[Any]:
        """A function that shows a status: in a live table, or as lines."""
        if not terminal.is_live(self.out):
            yield self._print_lines
            return
        live = Live(console=self.out, auto_refresh=False, redirect_stdout=True, redirect_stderr=True)
        with live, ExitStack() as stack:
            for handler in logging.root.handlers:  # they keep the stream before rich's, which prints above the table
                if isinstance(handler, logging.StreamHandler) and handler.stream is not sys.stderr:
                    stack.callback(handler.setStream, handler.setStream(sys.stderr))
            yield lambda status: live.update(self._table(status), refresh=True)

    def _table(self, status: Status) -> RenderableType:
        foot = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=1, completed=status["progress"], width=min(48, self.out.width - 30))
        left = f"{terminal.clock(status['left_s'])} left" if status["left_s"] is not None else ""
        clock = Text(terminal.clock(time.monotonic() - self._started_at))
        foot.add_row(bar, f"{status['progress']:.0%}", clock, left)
        return Group("", terminal.modules_table(status, width=self.out.width), "", foot)

    def _print_lines(self, status: Status) -> None:
        for line in self._lines.due(status):
            self._print(line)

    def _snapshot(self) -> RunSnapshot:
        """The run's folder, with the states of the jobs as the launcher knows them."""
        members = self.launch.members
        return RunSnapshot(
            run=self.run,
            modules={module: self._module(member, module) for member in members for module in member.modules},
            stop=self.run.stop_request(),
            evaluation_failure=read_failure(self.run.evaluation_failure_path),
            launcher=launcher_pid(self.run.path),
            is_submitted=True,
            jobs={member.number: _job_of(member, self.launch.backend.unattended) for member in members},
        )

    def _module(self, member: Member, module: str) -> ModuleSnapshot:
        """A module's folder; the report of a worker before this launch or before a restart does not count."""
        report, earlier = self._read_report(module), member.earlier_reports.get(module, NO_REPORT)
        if report == earlier and not member.over:
            report = NO_REPORT
        if report.steps is None:  # a worker that starts does not know them yet, but the one before it did
            report = replace(report, steps=earlier.steps)
        newest = self.run.store(module).newest_intact()
        return ModuleSnapshot(
            report=report,
            is_alive=report.is_live and member.is_watched,
            newest=newest.checkpoint,
            damaged=newest.damaged,
        )

    def _read_report(self, module: str) -> WorkerReport:
        """The newest heartbeat; the one before where storage does not answer."""
        with contextlib.suppress(OSError):
            self._reports[module] = self.run.read_report(module)
        return self._reports[module]

    def _handle_signals(self) -> None:
        """The first signal asks the workers to publish and exit, the second one ends them."""
        if self._signals and self._stop_requests == 0:
            reason = terminal.cause(self._signals[0])
            self._stop_requests = 1
            self.run.request_stop(reason, sender="modtrain launch")
            self._print("Stop requested: the workers publish and exit. Press Ctrl-C again to end them at once.")
            try:
                for number in job_record.withdraw_pending(self.run):  # they have nothing to publish
                    self.launch.members[number].end(StopRequested.exit_code)
            except ModtrainError as error:
                self._print(str(error))
        elif len(self._signals) > 1 and self._stop_requests == 1:
            self._stop_requests = 2
            self._print("Ending all workers now. What is published stays.")
            self.run.request_stop("Ctrl-C", kind="cancelled", sender="modtrain launch")
            self.launch.cancel()

    def _print_failures(self) -> None:
        """One message for all workers that failed for the same reason, and the path of the log."""
        failures: dict[str, list[Member]] = {}
        for member in self.launch.failed if self._stop_requests < 2 else ():
            failures.setdefault(self.launch.failure(member), []).append(member)
        for reason, members in failures.items():
            names = ", ".join(member.name for member in members)
            self.out.print(Text.assemble(("\n" + names, "bold red"), f" failed: {reason}"), soft_wrap=True)
            self.out.print(Text(f"See {terminal.short(self.launch.worker_log(members[0]))}"), soft_wrap=True)

    def _exit_code(self) -> int:
        code = self.launch.outcome()
        if self._signals and (code in STOPPED or self._stop_requests == 2):
            error: type[ModtrainError] = Interrupted if self._signals[0] is signal.SIGINT else Preempted
            code = error.exit_code
        if code in STOPPED:
            outcome = self.run.stop_outcome()
            path = terminal.short(self.run.path)
            self.out.print(
                f"\n{outcome[:1].upper()}{outcome[1:]}. `modtrain launch {path}` resumes it.", soft_wrap=True
            )
        return code


def _job_of(member: Member, has_queue: bool) -> WorkerJob:
    """A worker's job as the launcher knows it; `has_queue` where jobs wait for their turn in a scheduler."""
    if member.over:
        return WorkerJob(phase="ended", exit_code=member.exit_code)
    if member.id is not None and member.phase == "pending" and has_queue:
        return WorkerJob(phase="pending")
    return WorkerJob(phase="running", ids=(None,))
