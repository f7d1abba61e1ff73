"""Member: one worker of a launched run, its job, and how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from modtrain.scheduling.restarts import RestartBackoff
from modtrain.storage.heartbeat import WorkerReport


@dataclass
class Member:
    """One worker of a launched run and its job."""

    number: int
    modules: list[str]
    id: str | None = None
    """Of its job; None before it is submitted, and while it waits for its restart."""
    backend: str = ""
    """Where the job runs: a live job of an earlier launch stays on its own backend."""
    phase: str = "pending"
    """Of the job, as its backend reported it last."""
    exit_code: int | None = None
    over: bool = False
    """Whether the worker has ended and is not restarted."""
    restarts: int = 0
    earlier_reports: dict[str, WorkerReport] = field(default_factory=dict)
    """By module the heartbeat of an earlier worker, as it was when the job was submitted."""
    backoff: RestartBackoff = field(default_factory=RestartBackoff)
    _started_at: float = field(default_factory=time.monotonic)
    _restart_at: float | None = None

    @property
    def name(self) -> str:
        """The modules, for messages."""
        return "+".join(self.modules)

    @property
    def is_watched(self) -> bool:
        """Whether the state of its job is of interest."""
        return self.id is not None and not self.over

    @property
    def is_due(self) -> bool:
        """Whether it is time to restart the worker."""
        return self._restart_at is not None and time.monotonic() >= self._restart_at

    def run_as(self, id: str, backend: str) -> None:
        """Note the job that was submitted."""
        self.id, self.backend, self.phase = id, backend, "pending"
        self.exit_code, self.over = None, False
        self._started_at, self._restart_at = time.monotonic(), None

    def end(self, exit_code: int | None) -> None:
        """Note that the worker has ended and is not restarted."""
        self.over, self.exit_code, self._restart_at = True, exit_code, None

    def restart_pause_s(self) -> float | None:
        """Seconds until the worker may be restarted; None where it died too often in a row."""
        return self.backoff.pause_s(time.monotonic() - self._started_at)

    def restart_after(self, pause_s: float) -> None:
        """Note that the worker is to be restarted."""
        self.restarts += 1
        self.id, self._restart_at = None, time.monotonic() + pause_s
