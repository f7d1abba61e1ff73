"""A sweep's trials for people and programs: a table that fits the terminal, CSV, JSON.

Deliberately not here: what a person sees while a sweep runs (`sweep_words.py`).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.storage.run_state import BY_URGENCY
from modtrain.sweeps.runner import by_metric, ranked
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trial_queue import shown

LONGEST = 20
"""Characters of a value, or a name, that a column shows."""
OTHERS = 3
"""Metrics beside the sweep's that the table shows."""
GAP = 2


def rows(sweep: Sweep, found: list[Trial], metric: str | None = None, *, minimize: bool = False) -> list[Trial]:
    """The trials, best first."""
    if metric is not None and metric != sweep.spec.metric:
        found = by_metric(sweep, found, metric)
    return ranked(sweep, found, maximize=more_is_better(sweep, metric, minimize=minimize))


def more_is_better(sweep: Sweep, metric: str | None, *, minimize: bool) -> bool:
    """As the sweep says of its own metric, and its recipe of another, unless it is asked for."""
    if minimize or metric in (None, sweep.spec.metric):
        return sweep.spec.maximize and not minimize
    begun = (run for number in range(sweep.spec.trials) if (run := sweep.sound_run(number)))
    return metric not in next((run.spec.lower_is_better for run in begun), [])


def tell(sweep: Sweep, found: list[Trial], metric: str | None = None) -> None:
    """A summary, the table, and what a person should know about single trials."""
    out = terminal.console()
    out.print(Text.assemble((sweep.name, "bold"), "  ", (summary(found), "dim")), soft_wrap=True)
    out.print()
    for part in table(sweep, found, metric or sweep.spec.metric, out.width):
        out.print(part)
    for trial in found:
        if trial.why and trial.state in ("failed", "finished"):
            name, style = f"\ntrial {trial.number} {trial.state}: ", terminal.STYLES[trial.state]
            out.print(Text.assemble((name, style), trial.why), soft_wrap=True, end="")
    out.print()


def as_json(sweep: Sweep, found: list[Trial], metric: str | None = None, *, minimize: bool = False) -> str:
    """One document; what is not finite is null, since JSON knows no NaN."""
    told = [_plain(dataclasses.asdict(trial)) | {"path": str(sweep.run_path(trial.number))} for trial in found]
    spec = sweep.spec
    about: dict[str, Any] = {
        "sweep": sweep.name,
        "path": str(sweep.path),
        "sampler": spec.sampler,
        "metric": metric or spec.metric,
    }
    about |= {"maximize": more_is_better(sweep, metric, minimize=minimize)}
    about |= {"counts": counts(found), "trials": told}
    return json.dumps(about, indent=2, allow_nan=False)


def write_csv(sweep: Sweep, found: list[Trial], metric: str | None = None) -> None:
    """A line a trial: what it is, its values by name, what came of it, and every metric of its evaluation."""
    names, wanted = list(sweep.space.dimensions), metric or sweep.spec.metric
    others = sorted({name for trial in found for name in trial.metrics} - {wanted})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["trial", "state", *names, "epoch", *([wanted] if wanted else []), *others, "why"])
    for trial in found:
        values = [shown(trial.values[name]) if name in trial.values else "" for name in names]
        told = [*([trial.result] if wanted else []), *(trial.metrics.get(other) for other in others)]
        writer.writerow([trial.number, trial.state, *values, trial.epoch, *map(_plain, told), trial.why])


def counts(found: Iterable[Trial]) -> dict[str, int]:
    """How many trials are in which state."""
    there = [trial.state for trial in found]
    return {state: there.count(state) for state in BY_URGENCY if state in there}


def summary(found: list[Trial]) -> str:
    """`50 trials: 4 running, 46 finished`."""
    many = f"{len(found)} trial{'s' * (len(found) != 1)}: "
    return many + ", ".join(f"{count} {state}" for state, count in counts(found).items())


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]
    right: bool = True

    @property
    def width(self) -> int:
        return min(LONGEST, max(map(cell_len, [self.name, *self.cells])))


def table(sweep: Sweep, found: list[Trial], metric: str | None, width: int) -> list[Table | Text]:
    """A line a trial, in so many columns of a terminal; what has no room in them is named below."""
    first = [_Column("trial", [str(trial.number) for trial in found])]
    first += [_Column("state", [trial.state for trial in found], right=False)]
    first += [_Column(metric, [terminal.number(trial.result) for trial in found])] if metric else []
    values = [_Column(name, [_value(trial, full) for trial in found]) for full, name in _short(sweep).items()]
    last = [_Column("epoch", [str(trial.epoch or "") for trial in found])]
    names = sorted({name for trial in found for name in trial.metrics} - {metric})[:OTHERS]
    others = [_Column(name, [terminal.number(trial.metrics.get(name)) for trial in found]) for name in names]
    hidden: list[str] = []
    while _total([*first, *values, *last, *others]) > width and (others or len(values) > 1):
        if others:
            others.pop()
        else:
            hidden.insert(0, values.pop().name)
    made = _table([*first, *values, *last, *others])
    note = Text(f"\nNo room for {', '.join(hidden)}; --csv and --json have everything.", "dim")
    return [made, note] if hidden else [made]


def _total(columns: list[_Column]) -> int:
    return sum(column.width + GAP for column in columns) - GAP


def _table(columns: list[_Column]) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for column in columns:
        justify = "right" if column.right else "left"
        made.add_column(column.name, justify=justify, no_wrap=True, max_width=LONGEST)  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(
            *(Text(cell, terminal.STYLES.get(cell, "") if place == 1 else "") for place, cell in enumerate(cells))
        )
    return made


def _short(sweep: Sweep) -> dict[str, str]:
    """The names that vary by their last parts, where those are enough to tell them apart."""
    names = list(sweep.space.dimensions)
    lasts = [name.rpartition(".")[2] for name in names]
    return {name: last if lasts.count(last) == 1 else name for name, last in zip(names, lasts, strict=True)}


def _value(trial: Trial, name: str) -> str:
    return shown(trial.values[name]) if name in trial.values else ""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
