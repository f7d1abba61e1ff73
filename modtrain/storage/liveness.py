"""Pulse: which workers of a run live, remembered between looks and without waiting.

A worker of this machine is known by its process, any other one by its heartbeat: no two machines' clocks are compared,
what counts is for how long we have seen it say nothing new. Deliberately not here: what the run's folder says
otherwise (`status.py`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.heartbeat import HEARTBEAT_S
from modtrain.storage.manifest import read_json
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run

Beat = Mapping[str, Any]
"""A heartbeat; empty where a worker has said nothing yet."""

OVER = ("finished", "stopped", "preempted", "failed")
"""The last words of a worker."""
LIVE = ("starting", "training", "waiting")

PATIENCE_S = 15.0
"""Silence after which a worker counts as lost, for whoever looks again and again: storage that stalls delays a beat."""
ONE_LOOK_S = 2.5 * HEARTBEAT_S
"""The same for whoever looks once: so long a single answer may take."""


class Pulse:
    """The heartbeats of one run, kept by whoever looks again and again."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        """A worker of another machine that says nothing new for `patience_s` is lost."""
        self.patience_s = patience_s
        self._beats: dict[str, Beat] = {}
        self._moved_at: dict[str, float] = {}
        self._has_moved: set[str] = set()

    def look(self, run: Run, modules: Iterable[str] | None = None) -> tuple[dict[str, Beat], dict[str, str]]:
        """Heartbeats and states by module (of all, or of these), as they are now; nothing is waited for."""
        for module in run.modules if modules is None else modules:
            self.hear(module, run.heartbeat(module))
        return dict(self._beats), self.states()

    def hear(self, module: str, beat: Beat) -> None:
        """Take a heartbeat that was read already; one that cannot be read this time stays what it was."""
        before = self._beats.get(module)
        if before == beat or (before and not beat):
            return
        self._beats[module], self._moved_at[module] = beat, time.monotonic()
        if before:
            self._has_moved.add(module)

    def beat(self, module: str) -> Beat:
        """The newest heartbeat that was taken; empty where there is none."""
        return self._beats.get(module, {})

    def states(self) -> dict[str, str]:
        """What each module's worker said last, or `lost` where it died without a word."""
        return {module: self._state(module) for module in self._beats}

    def silent_s(self, module: str) -> float | None:
        """Seconds since its heartbeat changed, as seen by us; None where it has none."""
        return time.monotonic() - self._moved_at[module] if self._beats.get(module) else None

    def unsure(self) -> list[str]:
        """Modules whose workers, on other machines, may be dead: we have not seen them for long enough to know."""
        found = [module for module, state in self.states().items() if state not in (*OVER, "lost", "not started")]
        return [m for m in found if m not in self._has_moved and _process_lives(self._beats[m]) is None]

    def _state(self, module: str) -> str:
        beat = self._beats[module]
        said = str(beat.get("state", "not started"))
        if not beat or said in OVER:
            return said
        lives = _process_lives(beat)
        if lives is None:
            lives = (self.silent_s(module) or 0.0) < self.patience_s
        return said if lives else "lost"


def states_of(run: Run, beats: Mapping[str, Beat]) -> dict[str, str]:
    """The state of each module now; takes a moment where it takes a second look to know."""
    pulse = Pulse(patience_s=ONE_LOOK_S)
    for module, beat in beats.items():
        pulse.hear(module, beat)
    settle(pulse, run)
    return pulse.states()


def settle(pulse: Pulse, run: Run) -> None:
    """Look at those of whom we are not sure until we are, for as long as it takes to know."""

    def sure() -> bool | None:
        pulse.look(run, unsure)
        return None if pulse.unsure() else True

    if unsure := pulse.unsure():
        filesystem.wait_until(sure, timeout_s=2 * pulse.patience_s)


def _process_lives(beat: Beat) -> bool | None:
    """Whether the worker's process runs on this machine; None where it belongs to another one."""
    if beat.get("host") != socket.gethostname():
        return None
    pid, started = beat.get("pid"), beat.get("started")
    return isinstance(pid, int) and started is not None and process_started(pid) == started


def launcher(run: Run) -> int | None:
    """The process of this machine that has submitted it and watches, if there is one."""
    by = read_json(run.path / "jobs" / "launcher.json")
    pid = by.get("pid")
    here = isinstance(pid, int) and by.get("host") == socket.gethostname() and process_started(pid) == by.get("started")
    return pid if here else None
