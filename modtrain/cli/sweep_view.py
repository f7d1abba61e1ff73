"""What a person sees while a sweep runs, before it and after it.

Deliberately not here: the trials as a table, CSV or JSON (`sweep_table.py`), and what is to run (`sweep_plan.py`).
"""

from __future__ import annotations

import logging
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from modtrain.cli import sweep_table, terminal
from modtrain.cli.sweep_table import summary, table
from modtrain.errors import BackendSilent, Interrupted, ModtrainError, Preempted, StopRequested
from modtrain.storage.run_state import ENDED, PENDING
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps import space
from modtrain.sweeps.runner import ranked, trials
from modtrain.sweeps.sweep import Sweep, SweepSpec
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trial_queue import Queue, said

LOOK_S = 2.0
BEST = 8
"""Trials in the live table."""
FIRST = 3
"""Trials whose values are shown before anything runs."""


def show(
    sweep: Sweep, metric: str | None = None, *, minimize: bool = False, as_csv: bool = False, as_json: bool = False
) -> list[Trial]:
    """`sweep-status`: the trials, best first. Without a scheduler that does not answer, which code 8 says then."""
    silent: ModtrainError | None = None
    try:
        found = trials(sweep)
    except ModtrainError as error:
        silent, found = error, trials(sweep, ask=False)
        logging.getLogger(__name__).warning("%s", error)
    found = sweep_table.rows(sweep, found, metric, minimize=minimize)
    if as_json:
        typer.echo(sweep_table.as_json(sweep, found, metric, minimize=minimize))
    elif as_csv:
        sweep_table.write_csv(sweep, found, metric)
    else:
        sweep_table.tell(sweep, found, metric)
    if isinstance(silent, BackendSilent):
        raise typer.Exit(silent.exit_code)
    return found


class Follow:
    """A queue as a person follows it: lines for what happens, and on a terminal the best trials and the time left."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.sweep = queue, queue.sweep
        self.out = terminal.console()
        self._signals: list[signal.Signals] = []
        self._begun = time.monotonic()
        self._left_at_first = queue.left

    def to_the_end(self) -> int:
        """The exit code of the whole."""
        if self.queue.left:
            self._header()
            looked, obeyed = float("-inf"), 0
            with terminal.collected_signals(self._signals), self._shown() as update:
                for _ in self.queue.watch(self._tell):
                    obeyed = self._obey(obeyed)
                    if time.monotonic() - looked >= LOOK_S:
                        looked = time.monotonic()
                        update()
            self.out.print()
        return self._code()

    def _header(self) -> None:
        before = len(self.queue.trials) - self.queue.left
        kept = f", {before} of them over already" if before else ""
        what = f"{len(self.queue.trials)} trials{kept}, {self.queue.at_once} at a time by {self.queue.backend_name}"
        self.out.print(Text.assemble((self.sweep.name, "bold"), "  ", (what, "dim")), soft_wrap=True)

    def _code(self) -> int:
        """1 also where a trial that finished has nothing of what the sweep wants to know."""
        if self._signals:
            error: type[ModtrainError] = Interrupted if self._signals[0] is signal.SIGINT else Preempted
            return error.exit_code
        return _code(self.queue.trials)

    def _obey(self, obeyed: int) -> int:
        """The first signal asks the running trials to leave, the second one ends them."""
        if len(self._signals) > obeyed:
            if obeyed == 0:
                reason = "Ctrl-C" if self._signals[0] is signal.SIGINT else "SIGTERM"
                self.queue.stop(StopRequest(reason=reason, sender="modtrain sweep"))
                self._tell("No further trial begins; those that run publish and leave. Once more ends them at once.")
            else:
                self._tell("Ending every running trial now; what is published stays.")
                self.queue.cancel()
            return obeyed + 1
        return obeyed

    def _tell(self, sentence: str) -> None:
        clock = f"{terminal.clock(time.monotonic() - self._begun):>7}"
        self.out.print(Text.assemble((clock, "dim"), "  ", sentence), soft_wrap=True)

    @contextmanager
    def _shown(self) -> Iterator[Callable[[], None]]:
        if not self.out.is_terminal:
            yield lambda: None
            return
        with Live(console=self.out, auto_refresh=False, transient=True) as live:
            yield lambda: live.update(self._now(), refresh=True)

    def _now(self) -> Group:
        """The best trials so far, those that run, and how far the whole is."""
        best = [trial for trial in ranked(self.sweep, self.queue.trials) if trial.state in ENDED]
        room = max(4, self.out.height - 8)
        numbers = list(self.queue.running)[: room - 2]
        running = [self.sweep.trial(number, "running") for number in numbers]
        known = [trial for trial in best if trial.result is not None][: min(BEST, room - len(running))]
        parts = table(self.sweep, [*known, *running], self.sweep.spec.metric, self.out.width)
        more = len(self.queue.running) - len(running)
        return Group("", *parts, Text(f"\n{self._far()}{f', {more} more run' if more else ''}", "dim"))

    def _far(self) -> str:
        over = sum(1 for trial in self.queue.trials if trial.state in ENDED)
        count, seconds = len(self.queue.trials), time.monotonic() - self._begun
        new = over - (count - self._left_at_first)
        left = f", {terminal.clock((count - over) * seconds / new)} left" if new > 0 else ""
        rate = f", {new / seconds * 3600:.0f} an hour" if new > 0 else ""
        return f"{over}/{count} trials{rate}, {terminal.clock(seconds)}{left}"


def facts_of(spec: SweepSpec, at_once: int | None) -> None:
    """What a sweep is, before it runs."""
    varied, workers = space.from_json(spec.space), len(spec.placement)
    sampler = "sobol" if spec.sampler == "tpe" else spec.sampler  # whose points TPE begins with
    first = [said(space.point(varied, sampler, seed=spec.seed, index=n)) for n in range(min(FIRST, spec.trials))]
    told = {
        "recipe": spec.config["recipe"],
        "varies": ", ".join(varied.dimensions),
        "trials": f"{spec.trials} by {spec.sampler}, each with {workers} worker{'s' * (workers > 1)}",
        "first": "\n".join(first),
        "at once": at_once or "as many as there is room for",
        "metric": f"{spec.metric} ({'more' if spec.maximize else 'less'} is better)" if spec.metric else "none",
        "pruning": spec.prune or "none",
    }
    out = terminal.console()
    out.print(terminal.facts(told))
    out.print()


def _code(found: Sequence[Trial]) -> int:
    """Of a whole sweep that nobody works on any more."""
    if any(trial.state == "failed" or (trial.state == "finished" and trial.why) for trial in found):
        return 1
    return 0 if all(trial.state in ENDED for trial in found) else StopRequested.exit_code


def follow(sweep: Sweep, poll_s: float) -> int:
    """Wait for arrays, a line whenever something has changed; the exit code of the whole."""
    before = ""
    while True:
        try:
            found = trials(sweep)
            now = summary(found)
        except BackendSilent as error:  # the jobs go on meanwhile
            found, now = [], str(error)
        if now != before:
            typer.echo(now)
            before = now
        if found and not any(trial.state in PENDING for trial in found):
            return _code(found)
        time.sleep(poll_s)


def hints(sweep: Sweep) -> None:
    """How to go on from here."""
    shown = shlex.quote(terminal.short(sweep.path))
    typer.echo(f"  watch it   modtrain sweep-status {shown}")
    typer.echo(f"  stop it    modtrain stop {shown}")
    typer.echo(f"  go on      modtrain sweep {shown}")


def closing(sweep: Sweep, found: list[Trial]) -> None:
    """What to do with what came out; `found` is best first."""
    path = shlex.quote(terminal.short(sweep.path))
    states = {trial.state for trial in found}
    if found[0].result is not None:
        typer.echo(f"  the best      {shlex.quote(terminal.short(sweep.run_path(found[0].number)))}")
    typer.echo(f"  see it again  modtrain sweep-status {path}")
    if states - set(ENDED):
        typer.echo(f"  go on         modtrain sweep {path}")
    if "failed" in states:
        typer.echo(f"  try again     modtrain sweep {path} --retry-failed")
