"""Runs and sweeps as a table on a terminal, or as lines: one for each, the most urgent first, and their alarms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.errors import counted
from modtrain.storage.run_state import BY_URGENCY, ENDED, LIVE

ALARM_SHARE = 3
"""One in so many lines of the terminal is for alarms, where there are many."""
UNSEARCHED = "Not all folders were searched: there are too many. Give a folder further down to see all of its runs."

COLUMNS = ("done", "epoch", "left", "published", "metric", "recipe")
BY_IMPORTANCE = ("done", "epoch", "metric", "published", "left", "recipe")
"""The same columns; where the terminal is narrow, the last ones are left out first."""
MIN_NAME_WIDTH = 16

Row = Mapping[str, Any]


def by_urgency(rows: Iterable[Row]) -> list[Row]:
    """Rows sorted: damaged runs and bad alarms, then warnings, then by state, the newest first among equals."""

    def key(row: Row) -> tuple[int, int, float, str]:
        levels = {alarm["level"] for alarm in _alarms(row)}
        urgency = 0 if "bad" in levels else 1 if levels else 2
        state = BY_URGENCY.index(row["state"]) if row["state"] in BY_URGENCY else len(BY_URGENCY)
        return urgency, state, -(row["created_at"] or 0.0), row["path"]

    return sorted(rows, key=key)


def notes(table: Mapping[str, Any]) -> list[str]:
    """What a list may lack, as sentences."""
    return [
        *([UNSEARCHED] if table["unsearched"] else []),
        *([terminal.plain(table["silent"])] if table["silent"] else []),
    ]


def render(name: str, rows: list[Row], notes: Sequence[str], width: int, height: int) -> RenderableType:
    """As many rows and alarms as fit on the terminal, and the number of those that do not."""
    head = Text.assemble((terminal.plain(name), "bold"), "  ", (_counts(rows), "dim"))
    alarms = [(row, alarm) for row in rows for alarm in _alarms(row)]
    shown = alarms[: max(1, height // ALARM_SHARE // 2)]
    room = max(1, height - 6 - 2 * len(shown))
    parts: list[RenderableType] = [head, "", _table(rows[:room], width)]
    if len(rows) > room:
        parts.append(Text(f"and {len(rows) - room} more; `modtrain watch ROOT --json` lists all.", "dim"))
    for note in notes:
        parts += ["", Text(note, "yellow")]
    parts += ["", *(terminal.alarm_text(alarm, _name(row)) for row, alarm in shown)] if shown else []
    if hidden := len(alarms) - len(shown):
        parts.append(Text(f"and {counted(hidden, 'more alarm')}.", "dim"))
    return Group(*parts)


def new_lines(printed: terminal.Printed, rows: list[Row], notes: Sequence[str]) -> Iterator[str]:
    """A line for each run with another state or epoch, and for each new alarm, for output that is no terminal."""
    yield from (note for note in notes if printed.is_new(f"\0{note}", True))
    if printed.is_new("\0none", not rows) and not rows:
        yield "There is no run or sweep here yet."
    for row in rows:
        if printed.is_new(row["path"], (row["state"], row.get("epoch"), row["problem"], row.get("counts"))):
            about = row["problem"] or ", ".join(part for part in (_state(row), *_facts(row)) if part)
            yield terminal.plain(f"{_name(row)}  {about}")
        for alarm in row["alarms"]:
            text = alarm["says" if row["kind"] == "sweep" else "do"]  # the figures in `says` of a run change
            if printed.is_new(f"{row['path']}\0{alarm['module']}{alarm['level']}{text}", True):
                yield terminal.plain(f"! {_name(row)}: {alarm['says']} {alarm['do']}")


def _table(rows: list[Row], width: int) -> Table:
    """The table with the columns that fit beside a name, the most important ones; numbers are never cut."""
    pad = 2 if width >= terminal.WIDE else 1
    cells = [_cells(row) for row in rows]
    states = [terminal.state_text("broken" if row["problem"] else str(row["state"])) for row in rows]
    room = width - MIN_NAME_WIDTH - max([5, *(state.cell_len for state in states)]) - pad
    columns = list[str]()
    for name in BY_IMPORTANCE:
        needed = pad + max([len(name), *(cell_len(row_cells[name]) for row_cells in cells)])
        if needed <= room:
            columns.append(name)
            room -= needed
    columns.sort(key=COLUMNS.index)
    table = terminal.table(
        Column("run", no_wrap=True, overflow="ellipsis", max_width=MIN_NAME_WIDTH + room - pad),
        Column("state", no_wrap=True),
        *(Column(name, justify="left" if name == "recipe" else "right", no_wrap=True) for name in columns),
        pad=pad,
    )
    for row, state, row_cells in zip(rows, states, cells, strict=True):
        levels = {alarm["level"] for alarm in _alarms(row)}
        style = "bold red" if "bad" in levels else "yellow" if levels else "bold"
        table.add_row(Text(_name(row), style), state, *(row_cells[name] for name in columns))
    return table


def _cells(row: Row) -> dict[str, str]:
    done = "" if row["progress"] is None else f"{row['progress']:.0%}"
    if row["kind"] == "sweep":
        ended = sum(row["counts"].get(state, 0) for state in ENDED)
        epoch = f"{ended}/{row['trials']}" if row["trials"] else ""
        ages: list[float] = []
    else:
        stage = terminal.plain(f" {row['stage']}") if row.get("stage") and row["state"] != "finished" else ""
        epoch = "" if row["epoch"] is None else f"{row['epoch']}/{row['epochs']}{stage}"
        ages = [module["age_s"] for module in row["modules"] if module["age_s"] is not None]
    age = f"{terminal.age(max(ages))} ago" if ages else ""
    metric = row["metric"]
    best = f"{terminal.plain(metric['name'])} {terminal.number(metric['value'])}" if metric else ""
    left = terminal.clock(row.get("left_s") if row["state"] in LIVE else None)
    recipe = terminal.plain(str(row["recipe"] or "").rpartition("/")[2])
    return dict(zip(COLUMNS, (done, epoch, left, age, best, recipe), strict=True))


def _state(row: Row) -> str:
    """The state, and why a run has stopped."""
    return f"{row['state']} ({row['stop']})" if row["state"] == "stopped" and row.get("stop") else str(row["state"])


def _facts(row: Row) -> list[str]:
    cells, unit = _cells(row), "trials" if row["kind"] == "sweep" else "epoch"
    epoch, left = cells["epoch"], cells["left"]
    return [cells["done"], f"{unit} {epoch}" if epoch else "", f"{left} left" if left else "", cells["metric"]]


def _counts(rows: list[Row]) -> str:
    states = ["broken" if row["problem"] else str(row["state"]) for row in rows]
    counts = [f"{states.count(state)} {state}" for state in ("broken", *BY_URGENCY) if state in states]
    return ", ".join(counts) or "no run or sweep yet"


def _alarms(row: Row) -> list[Mapping[str, Any]]:
    if row["problem"]:
        return [{"level": "bad", "says": row["problem"], "do": "Repair it, or move the folder elsewhere."}]
    return list(row["alarms"])


def _name(row: Row) -> str:
    return terminal.plain(row["path"] or row["name"]) + ("/" if row["kind"] == "sweep" else "")
