"""launch: place the modules, submit what has no live job, watch, start killed workers again.

Launching an existing run again resumes it: only what is not running and not finished is submitted. Deliberately not
here: how a command is run (`backends/`), training (`worker.py`, which is never imported here), and the terminal
(`cli/`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from modtrain import fs, plugins
from modtrain.backends.base import RESTARTS, Backend, BackendOptions, Job, JobState, Resources, wants_restart
from modtrain.run import Run

POLL_S = 0.5
QUICK_DEATH_S = 10.0
FINISHED, STOPPED = 0, (3, 75, 130)


@dataclass
class Member:
    """One worker of a launched run and its job."""

    number: int
    modules: list[str]
    id: str | None = None
    exit_code: int | None = None
    over: bool = False
    restarts: int = 0
    begun: float = field(default_factory=time.monotonic)
    again_at: float | None = None

    @property
    def name(self) -> str:
        """For people: the modules."""
        return "+".join(self.modules)


class Launch:
    """The jobs of a run on a backend."""

    def __init__(self, run: Run, backend: str, options: BackendOptions) -> None:
        """Nothing is started yet: `start` does."""
        self.run, self.backend_name = run, backend
        self.backend: Backend = plugins.load("backend", backend)(options)
        self.members = [Member(number, list(modules)) for number, modules in enumerate(run.spec.placement)]

    def start(self) -> list[Member]:
        """Submit every worker that has no live job and is not finished; those that were submitted."""
        self.run.clear_stop()
        self._adopt()
        missing = [member for member in self.members if member.id is None and not member.over]
        self._submit(missing)
        return missing

    def watch(self, tell: Callable[[str], None]) -> Iterator[list[Member]]:
        """Every half second the members, until all are over; killed workers are started again meanwhile."""
        while True:
            self._poll(tell)
            yield self.members
            if all(member.over for member in self.members):
                return
            time.sleep(POLL_S)

    def cancel(self) -> None:
        """End every job now; what is published stays."""
        self.backend.cancel([member.id for member in self.members if member.id and not member.over])

    def outcome(self) -> int:
        """The exit code of the whole: 0 finished, else the worst reason of a worker."""
        codes = [1 if member.exit_code is None else member.exit_code for member in self.members]
        failed = [code for code in codes if code != FINISHED and code not in STOPPED]
        stopped = [code for code in codes if code in STOPPED]
        code = (failed or stopped or [FINISHED])[0]
        return code if 0 <= code < 256 else 1

    def _poll(self, tell: Callable[[str], None]) -> None:
        watched = [member for member in self.members if member.id is not None and not member.over]
        states = self.backend.status([member.id for member in watched if member.id])
        for member in watched:
            self._look_at(member, states[str(member.id)], tell)
        due = [m for m in self.members if m.again_at is not None and time.monotonic() >= m.again_at]
        self._submit(due)

    def _look_at(self, member: Member, state: JobState, tell: Callable[[str], None]) -> None:
        if state.live:
            return
        member.exit_code = FINISHED if state.exit_code is None and self._finished(member) else state.exit_code
        stopping = self.run.stop_requested() is not None
        if self.backend.restarts or stopping or not wants_restart(member.exit_code) or member.restarts >= RESTARTS:
            member.over = True
            return
        quick = time.monotonic() - member.begun < QUICK_DEATH_S
        member.restarts += 1
        member.id, member.again_at = None, time.monotonic() + (min(2.0**member.restarts, 30.0) if quick else 0.0)
        tell(f"{member.name} was killed ({_said(member.exit_code)}); starting it again from its newest checkpoint.")

    def _submit(self, members: list[Member]) -> None:
        if not members:
            return
        jobs = [self._job(member) for member in members]
        for member, id in zip(members, self.backend.submit(jobs), strict=True):
            member.id, member.exit_code, member.over = id, None, False
            member.begun, member.again_at = time.monotonic(), None
        record = {str(m.number): {"backend": self.backend_name, "id": m.id} for m in self.members if m.id}
        fs.replace_file(self._record, json.dumps(record, indent=2).encode())

    def _job(self, member: Member) -> Job:
        threads = max(1, len(os.sched_getaffinity(0)) // len(self.members))
        command = (sys.executable, "-m", "modtrain", "worker", str(self.run.path))
        command += ("--modules", ",".join(member.modules), "--threads", str(threads))
        log = self.run.path / "jobs" / f"{member.number}.log"
        return Job(name=f"{self.run.name}.{member.name}", command=command, log=log, resources=Resources(cpus=threads))

    def _adopt(self) -> None:
        """Take over the jobs of an earlier launch that still live; a finished worker is not started again."""
        (self.run.path / "jobs").mkdir(exist_ok=True)
        try:
            record = json.loads(fs.read_file(self._record))
        except (OSError, ValueError):
            record = {}
        ids = {n: said["id"] for n, said in record.items() if said.get("backend") == self.backend_name}
        states = self.backend.status(list(ids.values())) if ids else {}
        for member in self.members:
            id = ids.get(str(member.number))
            if id is not None and states[id].live:
                member.id = id
            elif self._finished(member):
                member.over, member.exit_code = True, FINISHED

    @property
    def _record(self) -> Path:
        return self.run.path / "jobs" / "jobs.json"

    def _finished(self, member: Member) -> bool:
        newest = [self.run.store(module).latest() for module in member.modules]
        return all(checkpoint is not None and checkpoint.final for checkpoint in newest)


def _said(exit_code: int | None) -> str:
    if exit_code is None:
        return "nobody saw how"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"

