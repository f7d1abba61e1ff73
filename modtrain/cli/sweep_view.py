"""A sweep in the terminal: before it runs, while it runs, and afterwards."""

from __future__ import annotations

import logging
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from modtrain.cli import sweep_table, terminal
from modtrain.errors import BackendSilent, Interrupted, ModtrainError, Preempted, StopRequested
from modtrain.storage.liveness import Liveness
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.storage.run_state import ENDED, PENDING
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps import space
from modtrain.sweeps.space import format_values
from modtrain.sweeps.sweep import Sweep, SweepSpec
from modtrain.sweeps.trial import Trial, build_trial
from modtrain.sweeps.trial_queue import TrialQueue
from modtrain.sweeps.trials import rank, read_trials, state_of

REFRESH_S = 2.0
BEST = 8
"""Trials in the live table."""
FIRST = 3
"""Trials whose values are shown before anything runs."""


def show(
    sweep: Sweep, metric: str | None = None, *, minimize: bool = False, as_csv: bool = False, as_json: bool = False
) -> list[Trial]:
    """`sweep-status`: the trials, best first.

    Where the scheduler does not answer, the trials are shown by their folders, and the exit code says so.
    """
    silent: ModtrainError | None = None
    try:
        trials = read_trials(sweep)
    except ModtrainError as error:
        silent, trials = error, read_trials(sweep, ask_scheduler=False)
        logging.getLogger(__name__).warning("%s", error)
    trials = sweep_table.sort(sweep, trials, metric, minimize=minimize)
    if as_json:
        typer.echo(sweep_table.as_json(sweep, trials, metric, minimize=minimize))
    elif as_csv:
        sweep_table.write_csv(sweep, trials, metric)
    else:
        sweep_table.print_trials(sweep, trials, metric)
    if isinstance(silent, BackendSilent):
        raise typer.Exit(silent.exit_code)
    return trials


class QueueView:
    """A queue in the terminal: a line for each event, and on a terminal the best trials and the time left below."""

    def __init__(self, queue: TrialQueue) -> None:
        self.queue, self.sweep = queue, queue.sweep
        self.out = terminal.console()
        self._signals: list[signal.Signals] = []
        self._handled = 0
        self._started_at = time.monotonic()
        self._liveness: dict[int, Liveness] = {}

    def follow(self) -> int:
        """Run the queue to its end; the exit code of the sweep."""
        if self.queue.waiting:
            self._print_header()
            refreshed_at = float("-inf")
            with terminal.collected_signals(self._signals), self._live() as refresh:
                for _ in self.queue.watch(self._print):
                    self._handle_signals()
                    if time.monotonic() - refreshed_at >= REFRESH_S:
                        refreshed_at = time.monotonic()
                        refresh()
            self.out.print()
        if self._signals:
            error: type[ModtrainError] = Interrupted if self._signals[0] is signal.SIGINT else Preempted
            return error.exit_code
        return exit_code_of(self.queue.trials)

    def _print_header(self) -> None:
        count, ended = len(self.queue.trials), len(self.queue.trials) - self.queue.waiting
        kept = f", {ended} of them ended before" if ended else ""
        facts = f"{count} trials{kept}, {self.queue.at_once} at a time on {self.queue.backend_name}"
        self.out.print(Text.assemble((self.sweep.name, "bold"), "  ", (facts, "dim")), soft_wrap=True)

    def _handle_signals(self) -> None:
        """The first signal asks the running trials to publish and leave, the second one ends them."""
        if len(self._signals) <= self._handled:
            return
        self._handled += 1
        if self._handled == 1:
            reason = "Ctrl-C" if self._signals[0] is signal.SIGINT else "SIGTERM"
            self.queue.stop(StopRequest(reason=reason, sender="modtrain sweep"))
            self._print("No further trial begins; the running ones publish and leave. Ctrl-C again ends them now.")
        elif self._handled == 2:
            self._print("Ending every running trial; published versions are kept.")
            self.queue.cancel()

    def _print(self, message: str) -> None:
        clock = f"{terminal.clock(time.monotonic() - self._started_at):>7}"
        self.out.print(Text.assemble((clock, "dim"), "  ", message), soft_wrap=True)

    @contextmanager
    def _live(self) -> Iterator[Callable[[], None]]:
        if not self.out.is_terminal:
            yield lambda: None
            return
        with Live(console=self.out, auto_refresh=False, transient=True) as live:
            yield lambda: live.update(self.render(), refresh=True)

    def render(self) -> Group:
        """The best trials so far, the running ones, and below them the state, the counts and the time left."""
        trials = [self._read(trial) if trial.number in self.queue.running else trial for trial in self.queue.trials]
        room = max(4, self.out.height - 8)
        running = [trial for trial in trials if trial.number in self.queue.running]
        shown = running[: room - 2]
        best = [trial for trial in rank(self.sweep, trials) if trial.state in ENDED and trial.result is not None]
        best = best[: min(BEST, room - len(shown))]
        table = sweep_table.build_table(self.sweep, [*best, *shown], self.sweep.spec.metric, self.out.width)
        clock = terminal.clock(time.monotonic() - self._started_at)
        left = f", about {terminal.clock(self.queue.left_s)} left" if self.queue.left_s is not None else ""
        more = f", {len(running) - len(shown)} more are running" if len(running) > len(shown) else ""
        below = Text.assemble("\n", sweep_table.heading(self.sweep, trials), (f"; {clock}{left}{more}", "dim"))
        return Group("", *table, below)

    def _read(self, trial: Trial) -> Trial:
        """A running trial as every other view shows it, from its folder."""
        run = self.sweep.intact_run(trial.number)
        if run is None:
            return trial
        liveness = self._liveness.setdefault(trial.number, Liveness())
        return replace(build_trial(read_snapshot(run, liveness), self.sweep.spec.metric), number=trial.number)


def print_facts(spec: SweepSpec, at_once: int | None) -> None:
    """Print what a sweep is, before it runs."""
    varied, workers = space.from_json(spec.space), len(spec.placement)
    sampler = "sobol" if spec.sampler == "tpe" else spec.sampler  # the first points of TPE are Sobol's
    first = [space.point(varied, sampler, seed=spec.seed, index=n) for n in range(min(FIRST, spec.trials))]
    facts = {
        "recipe": spec.config["recipe"],
        "varies": ", ".join(varied.dimensions),
        "trials": f"{spec.trials} by {spec.sampler}, each with {workers} worker{'s' * (workers > 1)}",
        "first": "\n".join(map(format_values, first)),
        "at once": at_once or "as many as there is room for",
        "metric": f"{spec.metric} ({'more' if spec.maximize else 'less'} is better)" if spec.metric else "none",
        "pruning": spec.prune or "none",
    }
    out = terminal.console()
    out.print(terminal.facts(facts))
    out.print()


def print_submitted(sweep: Sweep, numbers: Sequence[int], *, retry_failed: bool) -> None:
    """Print which trials were submitted, and why the others were not."""
    tasks = len(numbers) * sweep.workers
    rest = "" if len(numbers) == sweep.spec.trials else "; the others have ended, or have live jobs"
    if rest and not retry_failed and _can_retry(read_trials(sweep, ask_scheduler=False)):
        rest += " (--retry-failed runs failed ones again)"
    typer.echo(f"{sweep.name}: submitted {len(numbers)} of {sweep.spec.trials} trials ({tasks} tasks){rest}.")


def follow_arrays(sweep: Sweep, poll_s: float) -> int:
    """Wait for arrays, printing a line whenever something has changed; the exit code of the sweep."""
    before = ""
    while True:
        try:
            trials = read_trials(sweep)
            line = f"{state_of(sweep, trials)}, {sweep_table.summary(trials)}"
        except BackendSilent as error:  # the jobs continue meanwhile
            trials, line = [], str(error)
        if line != before:
            typer.echo(line)
            before = line
        if trials and not any(trial.state in PENDING for trial in trials):
            return exit_code_of(trials)
        time.sleep(poll_s)


def exit_code_of(trials: Sequence[Trial]) -> int:
    """The exit code of a sweep that nothing runs any more: 1 where a trial failed, or finished without a result."""
    if any(trial.state == "failed" or (trial.state == "finished" and trial.why) for trial in trials):
        return ModtrainError.exit_code
    return 0 if all(trial.state in ENDED for trial in trials) else StopRequested.exit_code


def print_commands(sweep: Sweep) -> None:
    """Print the commands for a submitted sweep."""
    path = shlex.quote(terminal.short(sweep.path))
    typer.echo(f"  watch it   modtrain sweep-status {path}")
    typer.echo(f"  stop it    modtrain stop {path}")
    typer.echo(f"  resume it  modtrain sweep {path}")


def print_next_steps(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Print the commands that apply after a sweep; `trials` are best first."""
    path = shlex.quote(terminal.short(sweep.path))
    if trials[0].result is not None:
        typer.echo(f"  the best      {shlex.quote(terminal.short(sweep.run_path(trials[0].number)))}")
    typer.echo(f"  see it again  modtrain sweep-status {path}")
    if any(trial.state not in ENDED for trial in trials):
        typer.echo(f"  resume it     modtrain sweep {path}")
    if _can_retry(trials):
        typer.echo(f"  try again     modtrain sweep {path} --retry-failed")


def _can_retry(trials: Sequence[Trial]) -> bool:
    """Whether a trial failed that can run again; a damaged one cannot."""
    return any(trial.state == "failed" and not trial.is_damaged for trial in trials)
