"""WorkerEvents: when a worker started, waited for a peer, and exited, one line each.

Written to `workers.jsonl` of each of its modules. The heartbeat holds the present state, these lines the past ones.
Storage that fails costs only the line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.process_identity import job_id
from modtrain.storage.run import Run

log = logging.getLogger(__name__)


SHORTEST_WAIT_S = 0.5
"""Waits shorter than this are not recorded."""


class WorkerEvents:
    """The event lines of one worker. Times are Unix times by its own clock."""

    def __init__(self, run: Run, modules: Iterable[str], device: str) -> None:
        """Nothing is written yet."""
        self._paths = [run.workers_path(module) for module in modules]
        self._device = device
        self._writer = ""
        self._wait: tuple[str, float] | None = None
        """The peer that is waited for, and the monotonic time at which that began."""
        self.epoch = 0
        self.step: int | None = None
        """Where training is, for the lines; None before `record_start`."""

    def record_start(self, writer: str, step: int) -> None:
        """Training starts or continues at a step; `writer` is the writer id of the checkpoints to come."""
        self._writer, self.step = writer, step
        process = {"host": socket.gethostname(), "pid": os.getpid(), "job": job_id(), "device": self._device}
        self._write("began", **process, step=step)

    @contextlib.contextmanager
    def waiting(self, epoch: int, step: int) -> Iterator[None]:
        """A stretch in which `record_wait` may be called; it records each wait when it ends, however it ends."""
        self.epoch, self.step = epoch, step
        try:
            yield
        finally:
            self._end_wait()

    def record_wait(self, peer: str) -> None:
        """The worker waits for this peer, still or from now on."""
        if self._wait is None or self._wait[0] != peer:
            self._end_wait()
            self._wait = peer, time.monotonic()

    def record_exit(self, state: str, exit_code: int, trouble: str | None) -> None:
        """The worker exits. A worker that found its modules finished has written no start and writes no exit."""
        if not self._writer and exit_code == 0:
            return
        self._write("left", state=state, exit_code=exit_code, trouble=trouble, step=self.step)

    def _end_wait(self) -> None:
        if self._wait is None:
            return
        (peer, since), self._wait = self._wait, None
        seconds = time.monotonic() - since
        if seconds >= SHORTEST_WAIT_S:
            fields = {"for": peer, "seconds": round(seconds, 3), "epoch": self.epoch, "step": self.step}
            self._write("waited", **fields)

    def _write(self, what: str, **fields: Any) -> None:
        line = json.dumps({"what": what, "at": time.time(), "writer": self._writer, **fields})
        for path in self._paths:
            try:
                filesystem.append_line(path, line)
            except OSError as error:
                log.warning("Could not write %s: %s", path, error)
