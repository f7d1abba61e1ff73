"""Heartbeat: `heartbeat.json` of a module, which its worker replaces every few seconds, and what it says."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from modtrain.errors import message_of
from modtrain.storage import filesystem
from modtrain.storage.json_lines import integer, json_objects, number, tails, text
from modtrain.storage.process_identity import NO_PROCESS, ProcessIdentity, job_id

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
GIVEN_GPUS = "MODTRAIN_GPUS"
"""Variable with the number of GPUs that a job was given: a worker that sees none reports it."""
LIVE = ("starting", "running", "waiting", "resting")
"""States that a worker reports while its process runs."""
OVER = ("finished", "stopped", "preempted", "failed")
"""States that a worker reports when it ends."""
_TYPES: dict[Any, Callable[[Any], Any]] = {"int | None": integer, "float | None": number, "str | None": text}
"""How a field is checked, by its type in the class."""


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """One heartbeat. Every field is None, or empty, where the worker has not reported it."""

    state: str | None = None
    """One of `LIVE` or `OVER`; None where there is no heartbeat."""
    counter: int | None = None
    at: float | None = None
    """Unix time by the worker's clock."""
    process: ProcessIdentity = NO_PROCESS
    job: str | None = None
    run: str | None = None
    """Folder of the run, as the worker finds it."""
    device: str | None = None
    gpus: int | None = None
    """GPUs that its job was given, where it may use them."""
    epoch: int | None = None
    step: int | None = None
    steps: int | None = None
    """Steps of the whole run."""
    steps_per_s: float | None = None
    left_s: float | None = None
    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By module the means over the last interval."""
    waiting_for: str | None = None
    evaluating: int | None = None
    """The epoch that it evaluates at present, before it trains on."""
    trouble: str | None = None
    exit_code: int | None = None

    def __bool__(self) -> bool:
        return self.state is not None

    @property
    def is_live(self) -> bool:
        """Whether the worker was running when it reported."""
        return self.state in LIVE


NO_REPORT = WorkerReport()
_CHECKS = {each.name: check for each in fields(WorkerReport) if (check := _TYPES.get(each.type))}


def read_report(path: Path) -> WorkerReport:
    """The report in a `heartbeat.json`; `NO_REPORT` where there is none or a foreign one; OSError if unreadable."""
    try:
        return parse_report(json.loads(filesystem.read_plain(path) or b""))
    except (ValueError, RecursionError):
        return NO_REPORT


def parse_report(values: Any) -> WorkerReport:
    """The report of a JSON object; fields of a wrong type are left out."""
    if not isinstance(values, dict) or values.get("state") not in (*LIVE, *OVER):
        return NO_REPORT
    checked = {name: check(values.get(name)) for name, check in _CHECKS.items()}
    process, losses = ProcessIdentity.parse(values), _losses(values.get("losses"))
    return WorkerReport(process=process, losses=losses, **checked)


def with_exit(report: WorkerReport, path: Path) -> WorkerReport:
    """The report with how its process ended, where the last line of `workers.jsonl` says it: storage may be full."""
    last = next((line for _, lines in tails(path) for line in json_objects(lines[-1:])), {})
    is_own = (last.get("host"), last.get("pid")) == (report.process.host, report.process.pid)
    if last.get("what") != "left" or last.get("state") not in OVER or not is_own:
        return report
    exit_code, trouble = integer(last.get("exit_code")), text(last.get("trouble"))
    return replace(report, state=last["state"], exit_code=exit_code, trouble=trouble)


def _losses(values: Any) -> dict[str, dict[str, float]]:
    tables = values.items() if isinstance(values, dict) else ()
    items = ((module, table.items()) for module, table in tables if isinstance(table, dict))
    return {module: {name: value for name, value in each if number(value) is not None} for module, each in items}


class Heartbeat:
    """A thread that writes what the worker does; the counter tells readers that the worker runs.

    No two machines' clocks are compared. A failing write is logged once and costs only the report.
    """

    def __init__(self, paths: Iterable[Path], **facts: Any) -> None:
        """Nothing is written before the `with` statement; `facts` are fields of `WorkerReport`."""
        self._paths = list(paths)
        process = vars(ProcessIdentity.current())
        self._fields: dict[str, Any] = {**process, "job": job_id(), "state": "starting", **facts}
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
                    filesystem.overwrite_file(path, content)
                    self._failing.discard(path)
                except OSError as error:
                    if path not in self._failing:
                        log.warning("Could not write %s: %s", path, message_of(error))
                    self._failing.add(path)
