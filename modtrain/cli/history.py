"""`history` and `log`: what a run has measured, for tables and plots, and what its workers have said.

Deliberately not here: how a run is now (`running.py`), and reading its files (`modtrain/history.py`, `tail.py`).
"""

from __future__ import annotations

import csv
import heapq
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modtrain.cli.arguments import Command
from modtrain.cli.options import RunArgument, RunOrSweepArgument
from modtrain.errors import InputError, ModtrainError, did_you_mean

if TYPE_CHECKING:
    from modtrain.storage.json_lines import GrowingFile
    from modtrain.storage.run import Run

PAD = 2
"""Blanks between two columns."""
SHOWN = 15
"""Rows of a curve that are shown in a terminal."""
FOLLOW_S = 3600.0
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")
_UNSEEN = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")
"""Control characters: a log may hold what others wrote, and a terminal would obey it."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (history, log):
        app.command(cls=Command)(command)


def history(
    run: RunOrSweepArgument,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every row, for pandas and spreadsheets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every row as one JSON list.")] = False,
) -> None:
    """Print the curves and evaluations of a run.

    A row has the module, step, epoch, time (at), learning rate and every scalar; evaluations are rows of the module
    "evaluation". A sweep's folder gives the rows of all of its trials. Without an option some rows are shown.
    """
    if as_csv and as_json:
        raise InputError("Give --csv or --json, not both.")
    damaged: list[str] = []
    found = _rows(run, damaged)
    if as_json:
        _print_json(found)
    elif as_csv:
        _print_csv(list(found))
    else:
        _show(list(found))
    if damaged:
        raise ModtrainError(f"{len(damaged)} of its trials cannot be read, all others are shown. {damaged[0]}")


def log(
    run: RunArgument,
    module: Annotated[str | None, typer.Argument(metavar="MODULE", help="Of one module only.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="The last lines of each worker.")
    ] = 40,
) -> None:
    """Print what the workers of a run have logged last.

    Lines of several workers are merged by their times, each with its modules in front. With --follow the command goes
    on until Ctrl-C, also over a log that is begun anew, or does not exist yet.
    """
    from modtrain.storage import filesystem
    from modtrain.storage.json_lines import GrowingFile
    from modtrain.storage.run import Run

    opened = Run.open(run)
    logs = {name: GrowingFile(path, last=lines) for name, path in _logs(opened, module).items()}
    printed = _print_new(logs, torn=not follow)
    if not printed and not any(path.exists() for path in _logs(opened, module).values()):
        typer.echo(f"No worker of {opened.name} has logged anything{' yet' if follow else ''}.", err=True)
    while follow:
        filesystem.wait_until(lambda: _print_new(logs, torn=False) or None, timeout_s=FOLLOW_S)


def _rows(path: Path, damaged: list[str]) -> Iterator[dict[str, Any]]:
    """Of a run, or of every trial of a sweep; what is wrong with trials that cannot be read goes into `damaged`."""
    from modtrain.storage.run import Run

    if not (path / "sweep.json").exists():
        yield from _rows_of(Run.open(path))
        return
    from modtrain.sweeps.sweep import Sweep

    sweep = Sweep.open(path)
    for number in range(sweep.spec.trials):
        try:
            begun = sweep.run(number)
        except InputError as error:
            damaged.append(str(error))
            continue
        if begun is not None:
            yield from ({"trial": number, **row} for row in _rows_of(begun))


def _rows_of(run: Run) -> Iterator[dict[str, Any]]:
    from modtrain.storage.history import History

    history = History(run)
    history.refresh()
    yield from history.rows()


def _print_json(found: Iterator[dict[str, Any]]) -> None:
    """One list, a row a line: a long curve is never held as text."""
    before = "["
    for row in found:
        typer.echo(before + json.dumps(row), nl=False)
        before = ",\n"
    typer.echo("[]" if before == "[" else "]")


def _print_csv(found: list[dict[str, Any]]) -> None:
    columns = _columns(found)
    writer = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)


def _columns(found: list[dict[str, Any]]) -> list[str]:
    """Where a row is first, then the scalars as they come, and at the end what the time went into."""
    from modtrain.storage.curves import POSITION

    first = ("trial", "module", *POSITION) if found and "trial" in found[0] else ("module", *POSITION)
    names = dict.fromkeys(name for row in found for name in row)
    spent = [name for name in names if name.startswith("seconds_")]
    return [*first, *(name for name in names if name not in (*first, *spent)), *spent]


def _show(found: list[dict[str, Any]]) -> None:
    """A short table for each module: some of its rows, the last among them. Of a sweep the last row of each trial."""
    from modtrain.cli import terminal

    out = terminal.console()
    if not found:
        out.print("Nothing was measured yet.")
    for module in dict.fromkeys(row["module"] for row in found):
        mine = [row for row in found if row["module"] == module]
        if "trial" in mine[0]:
            mine = list({row["trial"]: row for row in mine}.values())
        shown = _some(mine)
        more = f"  {len(shown)} of {len(mine)} rows" if len(mine) > len(shown) else ""
        out.print(terminal.Text.assemble((module, "bold"), (more, "dim")))
        for columns in _that_fit(shown, out.width):
            table = terminal.Table(box=None, pad_edge=False, padding=(0, PAD, 0, 0), header_style="dim")
            for name in columns:
                table.add_column(terminal.Text(name), justify="right", no_wrap=True)
            for row in shown:
                table.add_row(*(_cell(row, name) for name in columns))
            out.print(table, "")


def _that_fit(shown: list[dict[str, Any]], width: int) -> Iterator[list[str]]:
    """The columns of one table below the other: each has where its rows are, and as many scalars as it has room for."""
    of_each = [name for name in _columns(shown) if name not in ("module", "at") and not name.startswith("seconds_")]
    told = [name for name in of_each if any(row.get(name) is not None for row in shown)]
    first = [name for name in told if name in ("trial", "step", "epoch")]
    takes = {name: PAD + max([len(name), *(len(_cell(row, name)) for row in shown)]) for name in told}
    columns = list(first)
    for name in told[len(first) :]:
        if len(columns) > len(first) and sum(takes[each] for each in (*columns, name)) - PAD > width:
            yield columns
            columns = list(first)
        columns.append(name)
    yield columns


def _cell(row: Mapping[str, Any], name: str) -> str:
    return "" if row.get(name) is None else f"{row[name]:.6g}"


def _some(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most so many as are shown, evenly, and the last."""
    last = len(found) - 1
    return found if last < SHOWN else [found[round(place * last / (SHOWN - 1))] for place in range(SHOWN)]


def _logs(run: Run, module: str | None) -> dict[str, Path]:
    """The logs by the name in front of their lines. The modules of one worker have the same log: it is shown once."""
    if module is None:
        return {"+".join(placed): run.module_path(placed[0]) / "worker.log" for placed in run.spec.placement}
    if module not in run.modules:
        near = did_you_mean(module, run.modules)
        raise InputError(f"{run.name} has no module {module!r}; it has {', '.join(run.modules)}.{near}")
    return {"": run.module_path(module) / "worker.log"}


def _print_new(logs: dict[str, GrowingFile], *, torn: bool) -> bool:
    """Print what is new; False where nothing was."""
    width = max(map(len, logs))
    merged = heapq.merge(*(_timed(name, log, torn) for name, log in logs.items()))
    printed = False
    for _, name, line in merged:
        sys.stdout.write(f"{name:{width}} | {line}\n" if len(logs) > 1 else f"{line}\n")
        printed = True
    if printed:
        sys.stdout.flush()
    return printed


def _timed(name: str, log: GrowingFile, torn: bool) -> Iterator[tuple[tuple[str, int], str, str]]:
    """Each new line with what it is sorted by: its time, or that of the line that it belongs to."""
    time, number = "", 0
    changed, _ = log.refresh()
    while changed and (new := log.read()) is not None:
        for line in new:
            text = line.decode(errors="replace").translate(_UNSEEN)
            time, number = found[0] if (found := _TIME.match(text)) else time, number + 1
            yield (time, number), name, text
    if torn and log.torn:
        yield (time, number + 1), name, log.torn.decode(errors="replace").translate(_UNSEEN)
