"""`history` and `log`: the measurements of a run as a table, and the logs of its workers."""

from __future__ import annotations

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
from modtrain.cli.output import echo, write_csv
from modtrain.errors import InputError, ModtrainError, counted, plain
from modtrain.storage.layout import SWEEP_FILE

if TYPE_CHECKING:
    from modtrain.storage.json_lines import GrowingFile
    from modtrain.storage.run import Run

PAD = 2
"""Spaces between two columns."""
MAX_ROWS = 15
"""Rows of a curve that are shown in a terminal."""
FOLLOW_S = 3600.0
"""Longest wait in one call for new lines; `--follow` repeats it."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (history, log):
        app.command(cls=Command)(command)


def history(
    run: RunOrSweepArgument,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rows as one JSON list.")] = False,
) -> None:
    """Print the curves and evaluations of a run or a sweep.

    A row has the module, step, epoch, time (at), learning rate and every scalar, and in a run of several stages the
    stage; evaluations are rows of the module "evaluation". The rows of a sweep have a column trial. Without --csv or
    --json only some rows are shown.
    """
    if as_csv and as_json:
        raise InputError("Use --csv or --json, not both.")
    damaged: list[str] = []
    rows = _rows(run, damaged)
    if as_json:
        before = "["
        for row in rows:  # their text need not fit into memory
            echo(before + json.dumps(row), nl=False)
            before = ",\n"
        echo("[]" if before == "[" else "]")
    elif as_csv:
        table = list(rows)
        columns = _columns(table)
        write_csv(columns, ([row.get(name) for name in columns] for row in table))
    else:
        _print_tables(list(rows))
    if damaged:
        raise ModtrainError(f"Skipped {counted(len(damaged), 'trial')} that cannot be read: {damaged[0]}")


def log(
    run: RunArgument,
    module: Annotated[str | None, typer.Argument(metavar="MODULE", help="A module; all modules by default.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new lines until Ctrl-C.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="Number of lines of each worker.")
    ] = 40,
) -> None:
    """Print the last log lines of the workers of a run.

    Lines of several workers are merged by time, each after the names of its modules. With --follow new lines are
    printed until Ctrl-C; a log may be replaced meanwhile, or not exist yet.
    """
    from modtrain.storage import filesystem
    from modtrain.storage.json_lines import GrowingFile
    from modtrain.storage.run import Run

    opened = Run.open(run)
    logs = {name: GrowingFile(path, last=lines) for name, path in _logs(opened, module).items()}
    printed = _print_new(logs, torn=not follow)
    if not printed and not any(path.exists() for path in _logs(opened, module).values()):
        echo(f"The workers of {opened.name} have no log{' yet' if follow else ''}.", err=True)
    while follow:
        filesystem.wait_until(lambda: _print_new(logs, torn=False) or None, timeout_s=FOLLOW_S)


def _rows(path: Path, damaged: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a run, or of every trial of a sweep; errors of trials that cannot be read go into `damaged`."""
    from modtrain.storage.run import Run

    if not (path / SWEEP_FILE).exists():
        yield from Run.open(path).history()
        return
    from modtrain.sweeps.sweep import Sweep

    sweep = Sweep.open(path)
    for number in range(sweep.spec.trials):
        try:
            trial = sweep.run(number)
        except InputError as error:
            damaged.append(str(error))
            continue
        if trial is not None:
            yield from ({"trial": number, **row} for row in trial.history())


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """The columns: the position of a row, then the scalars, then the seconds that were spent."""
    from modtrain.storage.history import POSITION

    first = ("trial", "module", *POSITION) if rows and "trial" in rows[0] else ("module", *POSITION)
    names = dict.fromkeys(name for row in rows for name in row)
    seconds = [name for name in names if name.startswith("seconds_")]
    return [*first, *(name for name in names if name not in (*first, *seconds)), *seconds]


def _print_tables(rows: list[dict[str, Any]]) -> None:
    """Print a short table for each module: some of its rows and the last; of a sweep the last row of each trial."""
    from modtrain.cli import terminal

    out = terminal.console()
    if not rows:
        out.print("Nothing was measured yet.")
    for module in dict.fromkeys(row["module"] for row in rows):
        own = [row for row in rows if row["module"] == module]
        if "trial" in own[0]:
            own = list({row["trial"]: row for row in own}.values())
        last = len(own) - 1  # at most so many rows at equal distances, including the last one
        shown = own if last < MAX_ROWS else [own[round(place * last / (MAX_ROWS - 1))] for place in range(MAX_ROWS)]
        more = f"  {len(shown)} of {len(own)} rows" if len(own) > len(shown) else ""
        out.print(terminal.Text.assemble((module, "bold"), (more, "dim")))
        for columns in _split_columns(shown, out.width):
            headers = [terminal.Column(terminal.Text(name), justify="right", no_wrap=True) for name in columns]
            table = terminal.table(*headers, pad=PAD)
            for row in shown:
                table.add_row(*(_cell(row, name) for name in columns))
            out.print(table, "")


def _split_columns(rows: list[dict[str, Any]], width: int) -> Iterator[list[str]]:
    """The columns of tables that fit into `width`: each has the position of its rows and some of the scalars."""
    names = [name for name in _columns(rows) if name not in ("module", "at") and not name.startswith("seconds_")]
    names = [name for name in names if any(row.get(name) is not None for row in rows)]
    first = [name for name in names if name in ("trial", "step", "epoch", "stage")]
    widths = {name: PAD + max([len(name), *(len(_cell(row, name)) for row in rows)]) for name in names}
    columns = list(first)
    for name in [name for name in names if name not in first]:
        if len(columns) > len(first) and sum(widths[each] for each in (*columns, name)) - PAD > width:
            yield columns
            columns = list(first)
        columns.append(name)
    yield columns


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else plain(value) if isinstance(value, str) else f"{value:.6g}"


def _logs(run: Run, module: str | None) -> dict[str, Path]:
    """The logs by the label of their lines; the modules of one worker share its log."""
    if module is None:
        return {"+".join(modules): run.log_path(modules[0]) for modules in run.spec.placement}
    run.check_module(module)
    return {"": run.log_path(module)}


def _print_new(logs: dict[str, GrowingFile], *, torn: bool) -> bool:
    """Print the new lines; False where there are none."""
    width = max(map(len, logs))
    merged = heapq.merge(*(_timed(name, log, torn) for name, log in logs.items()))
    printed = False
    for _, name, line in merged:
        echo(f"{name:{width}} | {line}" if len(logs) > 1 else line)
        printed = True
    if printed:
        sys.stdout.flush()
    return printed


def _timed(name: str, log: GrowingFile, torn: bool) -> Iterator[tuple[tuple[str, int], str, str]]:
    """The new lines with their sort keys: the time of the line or of the last line before it that has one."""
    from modtrain.cli import terminal

    time, number = "", 0
    changed, _ = log.refresh()
    while changed and (new := log.read()) is not None:
        for line in new:
            text = terminal.plain(line.decode(errors="replace").expandtabs())
            time, number = match[0] if (match := _TIME.match(text)) else time, number + 1
            yield (time, number), name, text
    if torn and log.torn:
        yield (time, number + 1), name, terminal.plain(log.torn.decode(errors="replace").expandtabs())
