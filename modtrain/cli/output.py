"""Everything that the command line writes passes `plain`: `echo` for text, `write_csv` for tables, and the console of
`terminal.py`. Names and messages come from files, and could hold escape sequences of a terminal.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from modtrain.errors import plain

KEPT = "\n\t"
FORMULA = ("=", "+", "-", "@")
"""First characters for which spreadsheets take a text to be a formula."""


def echo(text: str = "", *, err: bool = False, nl: bool = True, in_place: bool = False) -> None:
    """Print text, which may have several lines; `in_place` over the present line of a terminal."""
    typer.echo(("\r" if in_place else "") + plain(text, KEPT), err=err, nl=nl)


def print_note(text: str) -> None:
    """Print what a command has to say beside its output, on standard error."""
    echo(text, err=True)


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as CSV; None is an empty cell. A text that a spreadsheet would take for a formula gets a quote."""
    for row in (columns, *rows):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow([_as_cell(value) for value in row])
        echo(line.getvalue())


def _as_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
