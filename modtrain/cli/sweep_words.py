"""What a person sees of a sweep: while it runs, and as a table, CSV or JSON.

Deliberately not here: what is to run (`sweep_plan.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.errors import Interrupted, ModtrainError, Preempted, StopRequested
from modtrain.queue import Queue
from modtrain.sweep import ranked, trials
from modtrain.trials import Sweep, SweepSpec, Trial

ORDER = ("running", "queued", "waiting", "stopped", "pruned", "failed", "finished")
LOOK_S = 2.0
BEST = 8
"""Trials in the live table."""
STYLES = {"finished": "green", "running": "cyan", "failed": "bold red", "pruned": "yellow", "queued": "dim"}


def rows(sweep: Sweep, metric: str | None) -> list[Trial]:
    """Every trial, best first; a scheduler that cannot be asked from here is said, and does without."""
    try:
        found = trials(sweep)
    except ModtrainError as error:
        logging.getLogger(__name__).warning("%s", error)
        found = [sweep.trial(number) for number in range(sweep.spec.trials)]
    return ranked(sweep, found, metric)


def show(sweep: Sweep, metric: str | None, *, as_csv: bool, as_json: bool) -> None:
    """`sweep-status`."""
    found = rows(sweep, metric)
    if as_json:
        typer.echo(json.dumps(described(sweep, found), indent=2))
    elif as_csv:
        _write_csv(sweep, found)
    else:
        out = terminal.console()
        out.print(Text.assemble((sweep.name, "bold"), "  ", (summary(found), "dim")), soft_wrap=True)
        out.print()
        out.print(table(sweep, found, metric))
        for trial in found:
            if trial.state == "failed" or (trial.state == "finished" and trial.why):
                out.print(Text.assemble((f"\ntrial {trial.number} ", "bold red"), trial.why), soft_wrap=True, end="")
        out.print()


def described(sweep: Sweep, found: list[Trial]) -> dict[str, Any]:
    """Plain values; NaN is no JSON."""
    told = [
        {name: _plain(value) for name, value in dataclasses.asdict(trial).items()}
        | {"path": str(sweep.run_path(trial.number))}
        for trial in found
    ]
    spec = sweep.spec
    return {
        "sweep": sweep.name,
        "path": str(sweep.path),
        "sampler": spec.sampler,
        "metric": spec.metric,
        "maximize": spec.maximize,
        "counts": counts(found),
        "trials": told,
    }


def counts(found: list[Trial]) -> dict[str, int]:
    """How many trials are in which state."""
    there = [trial.state for trial in found]
    return {state: there.count(state) for state in ORDER if state in there}


def summary(found: list[Trial]) -> str:
    """`50 trials: 4 running, 46 finished`."""
    return f"{len(found)} trials: " + ", ".join(f"{count} {state}" for state, count in counts(found).items())


def table(sweep: Sweep, found: list[Trial], metric: str | None = None) -> Table:
    """A line a trial."""
    wanted = metric or sweep.spec.metric
    names = list(sweep.space.dimensions)
    others = sorted({name for trial in found for name in trial.metrics} - {wanted})[:3]
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown.add_column("trial", justify="right", no_wrap=True)
    shown.add_column("state", no_wrap=True)
    for name in [*([wanted] if wanted else []), *names, "epoch", *others]:
        shown.add_column(name, justify="right", overflow="fold")
    for trial in found:
        result = trial.metrics.get(metric) if metric else trial.result
        cells = [terminal.number(result)] if wanted else []
        cells += [str(trial.values.get(name, "")) for name in names] + [str(trial.epoch or "")]
        cells += [terminal.number(trial.metrics.get(name)) for name in others]
        shown.add_row(str(trial.number), Text(trial.state, STYLES.get(trial.state, "")), *cells)
    return shown


class Follow:
    """A queue as a person follows it: lines for what happens, and on a terminal the best trials and the time left."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.sweep = queue, queue.sweep
        self.out = terminal.console()
        self._signals: list[signal.Signals] = []
        self._begun = time.monotonic()
        self._kept = sum(1 for trial in queue.trials if trial.state in ("finished", "pruned"))

    def to_the_end(self) -> int:
        """The exit code of the whole."""
        kept = f", {self._kept} of them done before" if self._kept else ""
        what = f"{len(self.queue.trials)} trials{kept}, {self.queue.at_once} at a time by {self.queue.backend_name}"
        self.out.print(Text.assemble((self.sweep.name, "bold"), "  ", (what, "dim")), soft_wrap=True)
        looked, obeyed = float("-inf"), 0
        with self._signals_noted(), self._shown() as update:
            for _ in self.queue.watch(self._tell):
                obeyed = self._obey(obeyed)
                if time.monotonic() - looked >= LOOK_S:
                    looked = time.monotonic()
                    update()
        return self._code()

    def _code(self) -> int:
        if self._signals:
            error: type[ModtrainError] = Interrupted if self._signals[0] is signal.SIGINT else Preempted
            return error.exit_code
        if self.queue.stopping:
            return StopRequested.exit_code
        return 1 if any(trial.state == "failed" for trial in self.queue.trials) else 0

    def _obey(self, obeyed: int) -> int:
        """The first signal asks the running trials to leave, the second one ends them."""
        if len(self._signals) > obeyed:
            if obeyed == 0:
                self.queue.stop("Ctrl-C" if self._signals[0] is signal.SIGINT else "the sweep was told to leave")
                self._tell("No further trial begins; asked those that run to publish and leave.")
            else:
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
        with Live(console=self.out, auto_refresh=False) as live:
            yield lambda: live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        best = [trial for trial in ranked(self.sweep, self.queue.trials) if trial.result is not None][:BEST]
        running = [self.sweep.trial(number, "running") for number in self.queue.running]
        whole = Table.grid()
        whole.add_row("")
        whole.add_row(table(self.sweep, [*best, *running]))
        whole.add_row(Text(f"\n{self._left()}", "dim"))
        return whole

    def _left(self) -> str:
        over = sum(1 for trial in self.queue.trials if trial.state in ("finished", "pruned", "failed"))
        seconds = time.monotonic() - self._begun
        new = over - self._kept
        left = f", {terminal.clock((len(self.queue.trials) - over) * seconds / new)} left" if new else ""
        rate = f", {new / seconds * 3600:.0f} an hour" if new else ""
        return f"{over}/{len(self.queue.trials)} trials{rate}{left}"

    @contextmanager
    def _signals_noted(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(signal.Signals(number))

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def facts_of(spec: SweepSpec, at_once: int | None) -> None:
    """What a sweep is, before it runs."""
    names = [str(entry["name"]) for entry in spec.space]
    workers = len(spec.placement)
    told = {
        "recipe": spec.config["recipe"],
        "varies": ", ".join(names),
        "trials": f"{spec.trials} by {spec.sampler}, each with {workers} worker{'s' * (workers > 1)}",
        "at once": at_once or "as many as there is room for",
        "metric": f"{spec.metric} ({'more' if spec.maximize else 'less'} is better)" if spec.metric else "none",
        "pruning": spec.prune or "none",
    }
    out = terminal.console()
    out.print(terminal.facts(told))
    out.print()


def follow(sweep: Sweep, poll_s: float) -> int:
    """Wait for arrays, a line whenever something has changed; the exit code of the whole."""
    before = ""
    while True:
        found = rows(sweep, None)
        now = summary(found)
        if now != before:
            typer.echo(now)
            before = now
        if not any(trial.state in ("running", "queued") for trial in found):
            return 0 if all(trial.state in ("finished", "pruned") for trial in found) else 1
        time.sleep(poll_s)


def hints(sweep: Sweep) -> None:
    """How to go on from here."""
    shown = shlex.quote(terminal.short(sweep.path))
    typer.echo(f"  watch it   modtrain sweep-status {shown}")
    typer.echo(f"  stop it    modtrain stop {shown}")
    typer.echo(f"  go on      modtrain sweep {shown}")


def _write_csv(sweep: Sweep, found: list[Trial]) -> None:
    """A line a trial: what it is, its values by name, and every metric of its evaluation."""
    names = list(sweep.space.dimensions)
    metrics = sorted({name for trial in found for name in trial.metrics} | {*filter(None, [sweep.spec.metric])})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["trial", "state", "epoch", *names, *metrics, "why"])
    for trial in found:
        told = {**trial.metrics, **({sweep.spec.metric: trial.result} if sweep.spec.metric else {})}
        values = [trial.values.get(name) for name in names]
        writer.writerow([trial.number, trial.state, trial.epoch, *values, *(told.get(m) for m in metrics), trial.why])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
