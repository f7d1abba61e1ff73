"""Logbook: the lives of a worker, one line each time it begins, has waited for a peer, and leaves.

It is written to `workers.jsonl` of each of its modules; the heartbeat says how it is now, this how it was. Storage that
fails costs only the line. Deliberately not here: reading it (`history.py`).
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

FILE = "workers.jsonl"
SHORTEST_WAIT_S = 0.5
"""A shorter wait is not worth a line."""


class Logbook:
    """What one worker writes about itself. Times are Unix times by its own clock."""

    def __init__(self, run: Run, modules: Iterable[str], device: str) -> None:
        """Nothing is written yet."""
        self._paths = [run.module_path(module) / FILE for module in modules]
        self._device = device
        self._writer = ""
        self._awaited: tuple[str, float] | None = None
        self.epoch = 0
        self.step: int | None = None
        """Where the worker is, as far as it has said so."""

    def began(self, writer: str, step: int) -> None:
        """The worker goes on from a step; `writer` is what its checkpoints bear."""
        self._writer, self.step = writer, step
        whereabouts = {"host": socket.gethostname(), "pid": os.getpid(), "job": job_id(), "device": self._device}
        self._write("began", **whereabouts, step=step)

    @contextlib.contextmanager
    def waits(self, epoch: int, step: int) -> Iterator[None]:
        """Inside, `awaits` says for whom; each wait is written when it is over, however it ends."""
        self.epoch, self.step = epoch, step
        try:
            yield
        finally:
            self._waited()

    def awaits(self, peer: str) -> None:
        """The worker waits for this peer, still or from now on."""
        if self._awaited is None or self._awaited[0] != peer:
            self._waited()
            self._awaited = peer, time.monotonic()

    def left(self, state: str, exit_code: int, trouble: str | None) -> None:
        """The worker's last line, if it has begun: one that had nothing to do has no life to tell of."""
        if not self._writer and exit_code == 0:
            return
        self._write("left", state=state, exit_code=exit_code, trouble=trouble, step=self.step)

    def _waited(self) -> None:
        if self._awaited is None:
            return
        (peer, since), self._awaited = self._awaited, None
        seconds = time.monotonic() - since
        if seconds >= SHORTEST_WAIT_S:
            more = {"for": peer, "seconds": round(seconds, 3), "epoch": self.epoch, "step": self.step}
            self._write("waited", **more)

    def _write(self, what: str, **more: Any) -> None:
        line = json.dumps({"what": what, "at": time.time(), "writer": self._writer, **more})
        for path in self._paths:
            try:
                filesystem.append_line(path, line)
            except OSError as error:
                log.warning("Could not write %s: %s", path, error)
