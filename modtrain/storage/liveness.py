"""Liveness: whether the workers of a run are alive, without comparing two machines' clocks.

A worker of this machine is known by its process; elsewhere it is dead once its heartbeat has not changed for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from modtrain.errors import InputError, StorageError
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import HEARTBEAT_S, NO_REPORT, WorkerReport
from modtrain.storage.layout import JOBS, LAUNCHER_FILE
from modtrain.storage.manifest import read_json
from modtrain.storage.process_identity import NO_PROCESS, ProcessIdentity
from modtrain.storage.run import Run

PATIENCE_S = 15.0
"""Silence after which a worker counts as dead, for a reader that stays: stalling storage delays a heartbeat."""
SHORT_PATIENCE_S = 2.5 * HEARTBEAT_S
"""The same for a command that looks once: a single answer may take that long."""


class Liveness:
    """The newest heartbeat of each module, and since when it has not changed."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self.patience_s = patience_s
        self._reports: dict[str, WorkerReport] = {}
        self._changed_at: dict[str, float] = {}
        self._has_changed: set[str] = set()
        self._unread: dict[str, OSError] = {}
        """Why the last read of a heartbeat failed."""

    def refresh(self, run: Run, modules: Iterable[str] | None = None) -> None:
        """Read the heartbeats of all modules, or of these, without waiting; one that cannot be read stays as it was."""
        for module in run.modules if modules is None else modules:
            try:
                self.observe(module, run.read_report(module))
                self._unread.pop(module, None)
            except OSError as error:
                if filesystem.fault_of(error):
                    self._unread[module] = error

    def observe(self, module: str, report: WorkerReport) -> None:
        """Take a heartbeat that was read; a missing one does not replace one that was present."""
        before = self._reports.get(module)
        if before == report or (before and not report):
            return
        self._reports[module], self._changed_at[module] = report, time.monotonic()
        if before:
            self._has_changed.add(module)

    def check_read(self) -> None:
        """OSError where a heartbeat could not be read the last time: its worker may be alive."""
        for error in self._unread.values():
            raise error

    def report(self, module: str) -> WorkerReport:
        return self._reports.get(module, NO_REPORT)

    def is_alive(self, module: str) -> bool:
        """Whether the worker runs, as far as is known by now: a silent one does until its silence has lasted."""
        report = self.report(module)
        if not report.is_live:
            return False
        running = report.process.is_running()
        return (self.silent_s(module) or 0.0) < self.patience_s if running is None else running

    def is_evaluating(self, run: Run, module: str) -> bool:
        """Whether the worker is alive and evaluates, or waits for one that does: it publishes when that is over."""
        seen = set[str]()
        while module in run.modules and module not in seen:
            seen.add(module)
            self.refresh(run, [module])
            report = self.report(module)
            if report.evaluating is not None or not self.is_alive(module):
                break
            module = report.waiting_for or ""
        return self.is_alive(module) and self.report(module).evaluating is not None

    def silent_s(self, module: str) -> float | None:
        """Seconds since this process saw the heartbeat change; None where there is none."""
        return time.monotonic() - self._changed_at[module] if self._reports.get(module) else None

    def uncertain(self) -> list[str]:
        """Modules of workers elsewhere that were not observed for long enough to know whether they are alive."""
        return [
            module
            for module, report in self._reports.items()
            if module not in self._has_changed and self.is_alive(module) and report.process.is_running() is None
        ]

    def settle(self, run: Run, modules: Iterable[str] | None = None) -> None:
        """Observe workers until each is known to be alive or dead; at most twice the patience.

        A heartbeat that storage does not give is read again meanwhile.
        """

        def certain() -> bool | None:
            self.refresh(run, modules)
            return None if self.uncertain() or self._unread else True

        filesystem.wait_until(certain, timeout_s=2 * self.patience_s)


def live_modules(run: Run, modules: Iterable[str] | None = None) -> list[str]:
    """The modules with a live worker; waits up to twice the short patience for workers of other machines.

    OSError where storage does not give a heartbeat: that no worker is seen does not mean that there is none.
    """
    names = list(run.modules if modules is None else modules)
    liveness = Liveness(patience_s=SHORT_PATIENCE_S)
    liveness.settle(run, names)
    liveness.check_read()
    return [module for module in names if liveness.is_alive(module)]


def launcher_pid(folder: Path, *, strict: bool = False) -> int | None:
    """The process of this machine that launched the run or sweep in a folder and watches it, if there is one.

    With `strict` StorageError where it cannot be read; else there is none then, which is enough for a view.
    """
    launcher = read_launcher(folder, strict=strict)
    return launcher.pid if launcher.is_running() else None


def read_launcher(folder: Path, *, strict: bool = False) -> ProcessIdentity:
    """The process that launched the run or sweep last; `NO_PROCESS` where that is not known, errors as above."""
    try:
        return ProcessIdentity.parse(read_json(launcher_path(folder)))
    except InputError:
        return NO_PROCESS
    except StorageError:
        if strict:
            raise
        return NO_PROCESS


def launcher_path(folder: Path) -> Path:
    """The file that names the launcher of a run or sweep."""
    return folder / JOBS / LAUNCHER_FILE
