"""A sweep in the terminal: its trials as a table that fits, as CSV and JSON, while they run, and afterwards."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.cli.output import echo, write_csv
from modtrain.errors import BackendSilent, InputError, Interrupted, ModtrainError, Preempted, StopRequested, counted
from modtrain.storage.liveness import Liveness
from modtrain.storage.run_state import ENDED, PENDING
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps.space import format_value
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trial_queue import TrialQueue
from modtrain.sweeps.trials import count_states, rank, read_trials, state_of, with_metric

REFRESH_S = 2.0
BEST = 8
"""Trials in the live table."""
LONGEST = 20
"""Characters of a value, or a name, that a column shows."""
OTHERS = 3
"""Metrics beside the sweep's that the table shows."""
GAP = 2

_Column = tuple[str, list[str]]
"""A name and its cells."""


def show(
    sweep: Sweep, metric: str | None = None, *, minimize: bool = False, as_csv: bool = False, as_json: bool = False
) -> list[Trial]:
    """`sweep-status`: the trials, best first, by the sweep's metric or another one.

    Where the scheduler does not answer, the trials are shown by their folders, and the exit code says so.
    """
    code = 0
    try:
        trials = read_trials(sweep)
    except ModtrainError as error:
        trials = read_trials(sweep, ask_scheduler=False)
        code = error.exit_code if isinstance(error, BackendSilent) else 0
        logging.getLogger(__name__).warning("%s", error)
    ranking = metric or sweep.spec.metric
    if ranking is not None and ranking != sweep.spec.metric:
        trials = with_metric(sweep, trials, ranking)
    maximize = not minimize and _is_maximized(sweep, ranking)
    trials = rank(sweep, trials, maximize=maximize)
    if as_json:
        echo(_as_json(sweep, trials, ranking, maximize=maximize))
    elif as_csv:
        _write_csv(sweep, trials, ranking)
    else:
        _print_trials(sweep, trials, ranking)
    if code:
        raise typer.Exit(code)
    return trials


def heading(sweep: Sweep, trials: Sequence[Trial]) -> Text:
    """`sweep-1  running  50 trials: 4 running, 46 finished`."""
    state = terminal.state_text(state_of(sweep, trials))
    return Text.assemble((sweep.name, "bold"), "  ", state, "  ", (summary(trials), "dim"))


def summary(trials: Sequence[Trial]) -> str:
    """`50 trials: 4 running, 46 finished`."""
    counts = ", ".join(f"{count} {state}" for state, count in count_states(trials).items())
    return f"{counted(len(trials), 'trial')}: {counts}"


def build_table(sweep: Sweep, trials: Sequence[Trial], metric: str | None, width: int) -> list[Table | Text]:
    """A line for each trial in `width` columns; names that have no room are listed below."""
    names, others = list(sweep.space), _other_metrics(trials, metric)[:OTHERS]
    lasts = [name.rpartition(".")[2] for name in names]  # shown instead of the whole name where it is unambiguous
    first: list[_Column] = [("trial", [str(trial.number) for trial in trials]), ("state", [t.state for t in trials])]
    first += [(metric, [terminal.number(trial.result) for trial in trials])] if metric else []
    values = [
        (last if lasts.count(last) == 1 else name, [_value(trial, name) for trial in trials])
        for name, last in zip(names, lasts, strict=True)
    ]
    epochs = ("epoch", ["" if trial.epoch is None else str(trial.epoch) for trial in trials])
    measured = [(name, [terminal.number(trial.metrics.get(name)) for trial in trials]) for name in others]
    hidden: list[str] = []
    while _width([*first, *values, epochs, *measured]) > width and (measured or len(values) > 1):
        if measured:
            measured.pop()
        else:
            hidden.insert(0, values.pop()[0])
    note = Text(f"\nNo room for {', '.join(hidden)}; --csv and --json have everything.", "dim")
    return [_table([*first, *values, epochs, *measured]), *([note] if hidden else [])]


class QueueView:
    """A queue in the terminal: a line for each event, and on a terminal the best trials and the time left below."""

    def __init__(self, queue: TrialQueue) -> None:
        self.queue, self.sweep = queue, queue.sweep
        self.out = terminal.console(outlives_reader=True)
        self._signals: list[signal.Signals] = []
        self._handled = 0
        self._started_at = time.monotonic()
        self._liveness: dict[int, Liveness] = {}

    def follow(self) -> int:
        """Run the queue to its end; the exit code of the sweep."""
        if self.queue.waiting:
            count, ended = len(self.queue.trials), len(self.queue.trials) - len(self.queue.waiting)
            kept = f", {ended} of them ended before" if ended else ""
            facts = f"{counted(count, 'trial')}{kept}, {self.queue.at_once} at a time on {self.queue.backend_name}"
            self.out.print(Text.assemble((self.sweep.name, "bold"), "  ", (facts, "dim")), soft_wrap=True)
            if words := terminal.closing_words(unattended=False, detaches=False):
                self.out.print(Text(words, "dim"), soft_wrap=True)
            refreshed_at = float("-inf")
            live = Live(console=self.out, auto_refresh=False, transient=True)
            with terminal.collected_signals(self._signals), live:
                for _ in self.queue.watch(self._print):
                    self._handle_signals()
                    if self.out.is_terminal and time.monotonic() - refreshed_at >= REFRESH_S:
                        refreshed_at = time.monotonic()
                        live.update(self.render(), refresh=True)
            self.out.print()
        if self._signals:
            return (Interrupted if self._signals[0] is signal.SIGINT else Preempted).exit_code
        return exit_code_of(self.queue.trials)

    def _handle_signals(self) -> None:
        """The first signal asks the running trials to publish and leave, the second one ends them."""
        if len(self._signals) <= self._handled:
            return
        self._handled += 1
        if self._handled == 1:
            self.queue.stop(StopRequest(reason=terminal.cause(self._signals[0]), sender="modtrain sweep"))
            self._print("No further trial begins; the running ones publish and leave. Ctrl-C again ends them now.")
        elif self._handled == 2:
            self._print("Ending every running trial; published versions are kept.")
            self.queue.cancel()

    def _print(self, message: str) -> None:
        self.out.print(Text.assemble((f"{self._clock():>7}", "dim"), "  ", message), soft_wrap=True)

    def _clock(self) -> str:
        return terminal.clock(time.monotonic() - self._started_at)

    def render(self) -> Group:
        """The best trials so far, the running ones, and below them the state, the counts and the time left."""
        trials = [self._read(trial) if trial.number in self.queue.running else trial for trial in self.queue.trials]
        room = max(4, self.out.height - 8)
        running = [trial for trial in trials if trial.number in self.queue.running]
        shown = running[: room - 2]
        best = [trial for trial in rank(self.sweep, trials) if trial.state in ENDED and trial.result is not None]
        best = best[: min(BEST, room - len(shown))]
        table = build_table(self.sweep, [*best, *shown], self.sweep.spec.metric, self.out.width)
        left = f", about {terminal.clock(self.queue.left_s)} left" if self.queue.left_s is not None else ""
        more = f", {len(running) - len(shown)} more are running" if len(running) > len(shown) else ""
        below = Text.assemble("\n", heading(self.sweep, trials), (f"; {self._clock()}{left}{more}", "dim"))
        return Group("", *table, below)

    def _read(self, trial: Trial) -> Trial:
        """A running trial as every other view shows it, from its folder."""
        try:
            return self.sweep.trial(trial.number, liveness=self._liveness.setdefault(trial.number, Liveness()))
        except InputError:
            return trial


def print_submitted(sweep: Sweep, numbers: Sequence[int], *, retry_failed: bool) -> None:
    """Print which trials were submitted, why the others were not, and the next commands."""
    tasks = len(numbers) * sweep.workers
    rest = "" if len(numbers) == sweep.spec.trials else "; the others have ended, or have live jobs"
    if rest and not retry_failed and _can_retry(read_trials(sweep, ask_scheduler=False)):
        rest += " (--retry-failed runs failed ones again)"
    total = counted(sweep.spec.trials, "trial")
    echo(f"{sweep.name}: submitted {len(numbers)} of {total} ({counted(tasks, 'task')}){rest}.")
    path = shlex.quote(terminal.short(sweep.path))
    echo(f"  watch it   modtrain sweep-status {path}")
    echo(f"  stop it    modtrain stop {path}")
    echo(f"  resume it  modtrain sweep {path}")


def follow_arrays(sweep: Sweep, poll_s: float) -> int:
    """Wait for arrays, printing a line whenever something has changed; the exit code of the sweep."""
    before = ""
    while True:
        try:
            trials = read_trials(sweep)
            line = f"{state_of(sweep, trials)}, {summary(trials)}"
        except BackendSilent as error:  # the jobs continue meanwhile
            trials, line = [], str(error)
        if line != before:
            echo(line)
            before = line
        if trials and not any(trial.state in PENDING or trial.is_evaluating for trial in trials):
            return exit_code_of(trials)
        time.sleep(poll_s)


def exit_code_of(trials: Sequence[Trial]) -> int:
    """The exit code of a sweep that nothing runs any more: 1 where a trial failed, or finished without a result."""
    if any(trial.state == "failed" or (trial.state == "finished" and trial.why) for trial in trials):
        return ModtrainError.exit_code
    return 0 if all(trial.state in ENDED for trial in trials) else StopRequested.exit_code


def print_next_steps(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Print the commands that apply after a sweep; `trials` are best first."""
    path = shlex.quote(terminal.short(sweep.path))
    if trials[0].result is not None:
        echo(f"  the best      {shlex.quote(terminal.short(sweep.run_path(trials[0].number)))}")
    echo(f"  see it again  modtrain sweep-status {path}")
    if any(trial.state not in ENDED for trial in trials):
        echo(f"  resume it     modtrain sweep {path}")
    if _can_retry(trials):
        echo(f"  try again     modtrain sweep {path} --retry-failed")


def _can_retry(trials: Sequence[Trial]) -> bool:
    """Whether a trial failed that can run again; a damaged one cannot."""
    return any(trial.state == "failed" and not trial.is_damaged for trial in trials)


def _is_maximized(sweep: Sweep, metric: str | None) -> bool:
    """Whether more of the metric is better: by the sweep for its own metric, by the recipe for another one."""
    if metric == sweep.spec.metric:
        return sweep.spec.maximize
    runs = (run for number in range(sweep.spec.trials) if (run := sweep.intact_run(number)))
    return metric not in next((run.spec.lower_is_better for run in runs), [])


def _print_trials(sweep: Sweep, trials: Sequence[Trial], metric: str | None) -> None:
    """Print the state, the table, and why trials failed or have no result."""
    out = terminal.console()
    out.print(heading(sweep, trials), soft_wrap=True)
    out.print()
    for part in build_table(sweep, trials, metric, out.width):
        out.print(part)
    for trial in trials:
        why = "its last worker evaluates it" if trial.is_evaluating else trial.why
        if why and trial.state in ("failed", "finished"):
            name, style = f"\ntrial {trial.number} {trial.state}: ", terminal.STYLES[trial.state]
            out.print(Text.assemble((name, style), terminal.plain(why)), soft_wrap=True, end="")
    out.print()


def _as_json(sweep: Sweep, trials: Sequence[Trial], metric: str | None, *, maximize: bool) -> str:
    """One document; a number that is not finite is null, since JSON has no NaN."""
    values = [_finite(dataclasses.asdict(trial)) | {"path": str(sweep.run_path(trial.number))} for trial in trials]
    document = {
        "sweep": sweep.name,
        "path": str(sweep.path),
        "state": state_of(sweep, trials),
        "sampler": sweep.spec.sampler,
        "metric": metric,
        "maximize": maximize,
        "counts": count_states(trials),
        "trials": values,
    }
    return json.dumps(document, indent=2, allow_nan=False)


def _write_csv(sweep: Sweep, trials: Sequence[Trial], metric: str | None) -> None:
    """A line for each trial: state, values by name, epoch, the metrics of its evaluation, and the reason."""
    names, others = list(sweep.space), _other_metrics(trials, metric)
    columns = ["trial", "state", *names, "epoch", *([metric] if metric else []), *others, "why"]
    rows = []
    for trial in trials:
        results = [*([trial.result] if metric else []), *(trial.metrics.get(other) for other in others)]
        values = [_value(trial, name) for name in names]
        rows.append([trial.number, trial.state, *values, trial.epoch, *map(_finite, results), trial.why])
    write_csv(columns, rows)


def _other_metrics(trials: Sequence[Trial], metric: str | None) -> list[str]:
    return sorted({name for trial in trials for name in trial.metrics} - {metric or ""})


def _width(columns: Sequence[_Column]) -> int:
    return sum(min(LONGEST, max(map(cell_len, [name, *cells]))) + GAP for name, cells in columns) - GAP


def _table(columns: Sequence[_Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for index, (name, _) in enumerate(columns):
        table.add_column(name, justify="left" if index == 1 else "right", no_wrap=True, max_width=LONGEST)
    for number, state, *cells in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(number, terminal.state_text(state), *map(Text, cells))
    return table


def _value(trial: Trial, name: str) -> str:
    return format_value(trial.values[name]) if name in trial.values else ""


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
