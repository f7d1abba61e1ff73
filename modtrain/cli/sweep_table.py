"""The trials of a sweep for users and programs: a table that fits the terminal, CSV, JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.sweeps.space import format_value
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trials import count_states, rank, state_of, with_metric

LONGEST = 20
"""Characters of a value, or a name, that a column shows."""
OTHERS = 3
"""Metrics beside the sweep's that the table shows."""
GAP = 2


def sort(sweep: Sweep, trials: list[Trial], metric: str | None = None, *, minimize: bool = False) -> list[Trial]:
    """The trials, best first, by the sweep's metric or another one."""
    if metric is not None and metric != sweep.spec.metric:
        trials = with_metric(sweep, trials, metric)
    return rank(sweep, trials, maximize=is_maximized(sweep, metric, minimize=minimize))


def is_maximized(sweep: Sweep, metric: str | None, *, minimize: bool) -> bool:
    """Whether more of the metric is better: by the sweep for its own metric, by the recipe for another one."""
    if minimize or metric in (None, sweep.spec.metric):
        return sweep.spec.maximize and not minimize
    runs = (run for number in range(sweep.spec.trials) if (run := sweep.intact_run(number)))
    return metric not in next((run.spec.lower_is_better for run in runs), [])


def print_trials(sweep: Sweep, trials: list[Trial], metric: str | None = None) -> None:
    """Print the state, the table, and why trials failed or have no result."""
    out = terminal.console()
    out.print(heading(sweep, trials), soft_wrap=True)
    out.print()
    for part in build_table(sweep, trials, metric or sweep.spec.metric, out.width):
        out.print(part)
    for trial in trials:
        if trial.why and trial.state in ("failed", "finished"):
            name, style = f"\ntrial {trial.number} {trial.state}: ", terminal.STYLES[trial.state]
            out.print(Text.assemble((name, style), terminal.plain(trial.why)), soft_wrap=True, end="")
    out.print()


def as_json(sweep: Sweep, trials: list[Trial], metric: str | None = None, *, minimize: bool = False) -> str:
    """One document; a number that is not finite is null, since JSON has no NaN."""
    values = [_finite(dataclasses.asdict(trial)) | {"path": str(sweep.run_path(trial.number))} for trial in trials]
    document = {
        "sweep": sweep.name,
        "path": str(sweep.path),
        "state": state_of(sweep, trials),
        "sampler": sweep.spec.sampler,
        "metric": metric or sweep.spec.metric,
        "maximize": is_maximized(sweep, metric, minimize=minimize),
        "counts": count_states(trials),
        "trials": values,
    }
    return json.dumps(document, indent=2, allow_nan=False)


def write_csv(sweep: Sweep, trials: list[Trial], metric: str | None = None) -> None:
    """A line for each trial: state, values by name, epoch, the metrics of its evaluation, and the reason."""
    names, ranking = list(sweep.space.dimensions), metric or sweep.spec.metric
    others = sorted({name for trial in trials for name in trial.metrics} - {ranking})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["trial", "state", *names, "epoch", *([ranking] if ranking else []), *others, "why"])
    for trial in trials:
        results = [*([trial.result] if ranking else []), *(trial.metrics.get(other) for other in others)]
        values = [_format(trial, name) for name in names]
        writer.writerow([trial.number, trial.state, *values, trial.epoch, *map(_finite, results), trial.why])


def heading(sweep: Sweep, trials: Sequence[Trial]) -> Text:
    """`sweep-1  running  50 trials: 4 running, 46 finished`."""
    state = terminal.state_text(state_of(sweep, trials))
    return Text.assemble((sweep.name, "bold"), "  ", state, "  ", (summary(trials), "dim"))


def summary(trials: Sequence[Trial]) -> str:
    """`50 trials: 4 running, 46 finished`."""
    counts = ", ".join(f"{count} {state}" for state, count in count_states(trials).items())
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}: {counts}"


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]
    right: bool = True

    @property
    def width(self) -> int:
        return min(LONGEST, max(map(cell_len, [self.name, *self.cells])))


def build_table(sweep: Sweep, trials: list[Trial], metric: str | None, width: int) -> list[Table | Text]:
    """A line for each trial in `width` columns; names that have no room are listed below."""
    first = [_Column("trial", [str(trial.number) for trial in trials])]
    first += [_Column("state", [trial.state for trial in trials], right=False)]
    first += [_Column(metric, [terminal.number(trial.result) for trial in trials])] if metric else []
    values = [_Column(name, [_format(trial, full) for trial in trials]) for full, name in _short_names(sweep).items()]
    last = [_Column("epoch", [str(trial.epoch or "") for trial in trials])]
    names = sorted({name for trial in trials for name in trial.metrics} - {metric})[:OTHERS]
    others = [_Column(name, [terminal.number(trial.metrics.get(name)) for trial in trials]) for name in names]
    hidden: list[str] = []
    while _total([*first, *values, *last, *others]) > width and (others or len(values) > 1):
        if others:
            others.pop()
        else:
            hidden.insert(0, values.pop().name)
    table = _table([*first, *values, *last, *others])
    note = Text(f"\nNo room for {', '.join(hidden)}; --csv and --json have everything.", "dim")
    return [table, note] if hidden else [table]


def _total(columns: list[_Column]) -> int:
    return sum(column.width + GAP for column in columns) - GAP


def _table(columns: list[_Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for column in columns:
        justify = "right" if column.right else "left"
        table.add_column(column.name, justify=justify, no_wrap=True, max_width=LONGEST)  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(
            *(Text(cell, terminal.STYLES.get(cell, "") if index == 1 else "") for index, cell in enumerate(cells))
        )
    return table


def _short_names(sweep: Sweep) -> dict[str, str]:
    """The names that vary, by their last part where that is unambiguous."""
    names = list(sweep.space.dimensions)
    lasts = [name.rpartition(".")[2] for name in names]
    return {name: last if lasts.count(last) == 1 else name for name, last in zip(names, lasts, strict=True)}


def _format(trial: Trial, name: str) -> str:
    return format_value(trial.values[name]) if name in trial.values else ""


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
