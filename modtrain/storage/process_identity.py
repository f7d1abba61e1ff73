"""Identity of a process: host, pid and start time, which name it for ever; and whether it still runs here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.storage.json_lines import integer, text


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of some machine."""

    host: str | None
    pid: int | None
    started: int | None
    """Ticks between boot and start."""

    @staticmethod
    def current() -> ProcessIdentity:
        return ProcessIdentity(socket.gethostname(), os.getpid(), process_started(os.getpid()))

    @staticmethod
    def parse(values: Mapping[str, Any]) -> ProcessIdentity:
        """From the fields of a JSON object; None for each that is missing or foreign."""
        return ProcessIdentity(text(values.get("host")), integer(values.get("pid")), integer(values.get("started")))

    def is_running(self) -> bool | None:
        """Whether the process runs; None where it belongs to another machine."""
        if self.host != socket.gethostname():
            return None
        return self.pid is not None and self.started is not None and process_started(self.pid) == self.started


NO_PROCESS = ProcessIdentity(None, None, None)


def process_started(pid: int) -> int | None:
    """Start time of a process of this machine, in ticks since boot; None where it has ended, reaped or not."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(fields[18])
    except (OSError, IndexError, ValueError):
        return None


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The scheduler's id of the job that this process belongs to."""
    return next((environment[name] for name in ("SLURM_JOB_ID", "PBS_JOBID") if environment.get(name)), None)
