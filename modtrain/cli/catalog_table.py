"""Many runs on a terminal: a line for each, those that need attention first, and their alarms below.

Deliberately not here: what a line knows (`modtrain/glance.py`), and looking again (`following.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modtrain.cli import terminal
from modtrain.storage.run_state import BY_URGENCY, ENDED, LIVE

SHARE = 3
"""Of the lines of a terminal a third is for alarms, where there are many."""
UNSEARCHED = "There are too many folders to search all of them, so runs may be missing here: name one further down."

COLUMNS = ("done", "epoch", "left", "published", "metric", "recipe")
IMPORTANT = ("done", "epoch", "metric", "published", "left", "recipe")
"""The same, the last of them left out first."""
LEAST = 16
"""Columns that a name has at least."""

Row = Mapping[str, Any]


def by_attention(rows: Iterable[Row]) -> list[Row]:
    """Broken ones and bad alarms first, then warnings, then what runs; the youngest first among equals."""

    def key(row: Row) -> tuple[int, int, float, str]:
        levels = {alarm["level"] for alarm in row["alarms"]}
        urgency = 0 if row["problem"] or "bad" in levels else 1 if levels else 2
        state = BY_URGENCY.index(row["state"]) if row["state"] in BY_URGENCY else len(BY_URGENCY)
        return urgency, state, -(row["created_at"] or 0.0), row["path"]

    return sorted(rows, key=key)


def picture(name: str, rows: list[Row], unsearched: bool, width: int, height: int) -> RenderableType:
    """What fits on the terminal; what does not is counted."""
    head = Text.assemble((terminal.plain(name), "bold"), "  ", (_counted(rows), "dim"))
    said = [(row, alarm) for row in rows for alarm in _alarms(row)]
    told = said[: max(1, height // SHARE // 2)]
    room = max(1, height - 6 - 2 * len(told))
    parts: list[RenderableType] = [head, "", _table(rows[:room], width)]
    if len(rows) > room:
        parts.append(Text(f"and {len(rows) - room} more; `modtrain watch ROOT --json` has all.", "dim"))
    if unsearched:
        parts += ["", Text(UNSEARCHED, "yellow")]
    if told:
        parts.append("")
    for row, alarm in told:
        parts.append(terminal.alarm_text(alarm, _name(row)))
    if left := len(said) - len(told):
        parts.append(Text(f"and {left} more thing{'s' * (left != 1)} to look at.", "dim"))
    return Group(*parts)


class Lines:
    """What is new, as lines, where there is no terminal."""

    def __init__(self) -> None:
        self._told: dict[str, object] = {}

    def new(self, rows: Iterable[Row], unsearched: bool) -> Iterator[str]:
        """A line of each run that is in another state or epoch, and of each new alarm."""
        if self._is_new("\0", unsearched) and unsearched:
            yield UNSEARCHED
        found = list(rows)
        if self._is_new("\0none", not found) and not found:
            yield "There is no run or sweep here yet."
        for row in found:
            if self._is_new(row["path"], (row["state"], row.get("epoch"), row["problem"], row.get("counts"))):
                said = row["problem"] or ", ".join(part for part in (row["state"], *_facts(row)) if part)
                yield terminal.plain(f"{_name(row)}  {said}")
            for alarm in row["alarms"]:
                what = alarm["says" if row["kind"] == "sweep" else "do"]  # figures in `says` of a run go on changing
                if self._is_new(f"{row['path']}\0{alarm['module']}{alarm['level']}{what}", True):
                    yield terminal.plain(f"! {_name(row)}: {alarm['says']} {alarm['do']}")

    def _is_new(self, key: str, value: object) -> bool:
        before, self._told[key] = self._told.get(key), value
        return before != value


def _table(rows: list[Row], width: int) -> Table:
    """Numbers are never cut: what does not fit beside a name is left out, the less important first."""
    pad = 2 if width >= terminal.WIDE else 1
    told = [dict(zip(COLUMNS, _cells(row), strict=True)) for row in rows]
    states = [terminal.state_text("broken" if row["problem"] else str(row["state"])) for row in rows]
    room = width - LEAST - max([5, *(state.cell_len for state in states)]) - pad
    kept = set[str]()
    for name in IMPORTANT:
        takes = pad + max([len(name), *(cell_len(cells[name]) for cells in told)])
        if takes <= room:
            kept.add(name)
            room -= takes
    table = Table(box=None, pad_edge=False, padding=(0, pad, 0, 0), header_style="dim")
    table.add_column("run", no_wrap=True, overflow="ellipsis", max_width=LEAST + room - pad)
    table.add_column("state", no_wrap=True)
    for name in COLUMNS:
        if name in kept:
            table.add_column(name, justify="left" if name == "recipe" else "right", no_wrap=True)
    for row, state, cells in zip(rows, states, told, strict=True):
        named = Text(_name(row), "bold red" if _is_bad(row) else "yellow" if row["alarms"] else "bold")
        table.add_row(named, state, *(cells[name] for name in COLUMNS if name in kept))
    return table


def _cells(row: Row) -> list[str]:
    done = "" if row["progress"] is None else f"{row['progress']:.0%}"
    if row["kind"] == "sweep":
        counts, over = row["counts"], ENDED
        epoch = f"{sum(counts.get(state, 0) for state in over)}/{row['trials']}" if row["trials"] else ""
        ages: list[float] = []
    else:
        epoch = "" if row["epoch"] is None else f"{row['epoch']}/{row['epochs']}"
        ages = [module["age_s"] for module in row["modules"] if module["age_s"] is not None]
    age = f"{terminal.age(max(ages))} ago" if ages else ""
    metric = row["metric"]
    best = f"{terminal.plain(metric['name'])} {terminal.number(metric['value'])}" if metric else ""
    left = row.get("left_s") if row["state"] in LIVE else None
    return [done, epoch, terminal.clock(left), age, best, terminal.plain(str(row["recipe"] or "").rpartition("/")[2])]


def _facts(row: Row) -> list[str]:
    done, epoch, left, _, best, _ = _cells(row)
    what = "trials" if row["kind"] == "sweep" else "epoch"
    return [done, f"{what} {epoch}" if epoch else "", f"{left} left" if left else "", best]


def _counted(rows: list[Row]) -> str:
    states = ["broken" if row["problem"] else str(row["state"]) for row in rows]
    many = [f"{states.count(state)} {state}" for state in ("broken", *BY_URGENCY) if state in states]
    return ", ".join(many) or "no run or sweep yet"


def _alarms(row: Row) -> list[Mapping[str, Any]]:
    if row["problem"]:
        return [{"level": "bad", "says": row["problem"], "do": "Mend it, or move the folder away."}]
    return list(row["alarms"])


def _is_bad(row: Row) -> bool:
    return any(alarm["level"] == "bad" for alarm in _alarms(row))


def _name(row: Row) -> str:
    return terminal.plain(row["path"] or row["name"]) + ("/" if row["kind"] == "sweep" else "")
