"""Progress of a command that makes many results: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sized
from types import TracebackType
from typing import Any

from modtrain.cli.output import echo

PROGRESS_S = 5.0
"""Seconds between two lines of progress where standard error is no terminal."""


class Progress:
    """A bar on a terminal, elsewhere a line on standard error every few seconds: called with each step of the work."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from modtrain.cli import terminal

        out = terminal.console(stderr=True)
        words, rate = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rate]}")
        columns = (words, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self._bar = Bar(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._task: Any = None
        self._lock = threading.Lock()
        self._what: str | None = None
        self._started_at = self._called_at = self._printed_at = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` results are there; `what` names them, and a new name begins anew.

        A `total` of 0 is work without steps. A single result has no bar.
        """
        with self._lock:  # images are decoded by several threads
            self._show(what, done, total)

    def _show(self, what: str, done: int, total: int) -> None:
        from modtrain.cli import terminal

        now = time.monotonic()
        if what != self._what:
            self._begin(what)
        self._called_at = now
        rate = done / max(now - self._started_at, 1e-9)
        shown = f"{rate:.1f}/s" if done else ""
        self._bar.update(self._task, completed=done, total=total or None, rate=shown, visible=total != 1)
        if (self._bar.disable or total == 1) and now - self._printed_at > PROGRESS_S:
            self._printed_at = now
            left = f"  {shown}  {terminal.clock((total - done) / rate)} left" if done else ""
            echo(": ".join(part for part in (what, f"{done}/{total}{left}" * bool(total)) if part), err=True)

    def _begin(self, what: str) -> None:
        self._what, self._started_at = what, self._called_at  # when the work before it had ended
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=None, rate="")


def show_progress(results: Iterable[object], total: int, broken: Sized = ()) -> int:
    """The number of results, with a bar on a terminal, elsewhere with a line on standard error every few seconds."""
    done = 0
    with Progress() as progress:
        for done, _ in enumerate(results, 1):
            progress("", done + len(broken), total)
    return done
