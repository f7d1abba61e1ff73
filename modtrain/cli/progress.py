"""Progress of a command that makes many results: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sized

from modtrain.cli.output import echo

PROGRESS_S = 5.0
"""Seconds between two lines of progress where standard error is no terminal."""


def show_progress(results: Iterable[object], total: int, broken: Sized = ()) -> int:
    """The number of results, with a bar on a terminal, elsewhere with a line on standard error every few seconds."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from modtrain.cli import terminal

    out, done, started_at = terminal.console(stderr=True), 0, time.monotonic()
    printed_at, is_lines = started_at, not out.is_terminal or total == 1
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=is_lines) as bar:
        task = bar.add_task("", total=total, rate="")
        for done, _ in enumerate(results, 1):
            now, count = time.monotonic(), done + len(broken)
            rate = count / max(now - started_at, 1e-9)
            bar.update(task, completed=count, rate=f"{rate:.1f}/s")
            if is_lines and now - printed_at > PROGRESS_S:
                printed_at = now
                echo(f"{count}/{total}  {rate:.1f}/s  {terminal.clock((total - count) / rate)} left", err=True)
    return done
