"""Heartbeat: the worker's side of `heartbeat.json`, replaced every few seconds in the folder of each of its modules."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.process_identity import ProcessIdentity, job_id
from modtrain.storage.run import Run

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0


class Heartbeat:
    """A thread that writes what the worker does; the counter tells readers that the worker runs.

    No two machines' clocks are compared. A failing write is logged once and costs only the report.
    """

    def __init__(self, run: Run, modules: Iterable[str], **facts: Any) -> None:
        """Nothing is written before the `with` statement; `facts` are fields of `WorkerReport`."""
        self._paths = [run.heartbeat_path(module) for module in modules]
        self._fields: dict[str, Any] = {
            **ProcessIdentity.current().as_json(),
            "job": job_id(),
            "state": "starting",
            **facts,
        }
        self._counter = 0
        self._failing: set[Path] = set()
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

    def report(self, *, now: bool = False, **fields: Any) -> None:
        """Change fields of the report; `now` writes it at once instead of with the next beat."""
        self._fields.update(fields)
        if now:
            self._write()

    def silence(self) -> None:
        """Write nothing from now on: another worker owns the modules."""
        with self._lock:
            self._paths = []

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._counter += 1
            content = json.dumps({**self._fields, "counter": self._counter, "at": time.time()}).encode()
            for path in self._paths:
                try:
                    filesystem.replace_file(path, content)
                    self._failing.discard(path)
                except OSError as error:
                    if path not in self._failing:
                        log.warning("Could not write %s: %s", path, error)
                    self._failing.add(path)
