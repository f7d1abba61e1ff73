"""Heartbeat: what a worker is doing, in heartbeat.json of each of its modules."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.process_identity import job_id, process_started
from modtrain.storage.run import Run, log

HEARTBEAT_S = 2.0


class Heartbeat:
    """Says every few seconds what a worker is doing, in `heartbeat.json` of each of its modules.

    A reader sees by the counter that the worker lives; no clock of another machine is asked. Storage that fails here
    costs nothing but the news.
    """

    def __init__(self, run: Run, modules: Iterable[str], **facts: Any) -> None:
        self._paths = [run.module_path(module) / "heartbeat.json" for module in modules]
        self._says: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": process_started(os.getpid()),
            "job": job_id(),
            "state": "starting",
            **facts,
        }
        self._counter = 0
        self._silenced: set[Path] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._write()

    def say(self, *, now: bool = False, **news: Any) -> None:
        """Change what is said; `now` writes it at once instead of with the next beat."""
        self._says.update(news)
        if now:
            self._write()

    def fall_silent(self) -> None:
        """Write nothing any more."""
        with self._lock:
            self._paths = []

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._counter += 1
            content = json.dumps({**self._says, "counter": self._counter, "at": time.time()}).encode()
            for path in self._paths:
                try:
                    filesystem.replace_file(path, content)
                    self._silenced.discard(path)
                except OSError as error:
                    if path not in self._silenced:  # once, not every two seconds
                        log.warning("Could not write %s: %s", path, error)
                    self._silenced.add(path)
