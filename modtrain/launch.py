"""launch: place the modules, submit what has no live job, watch, start killed workers again.

Launching an existing run again resumes it: only what is not running and not finished is submitted. Deliberately not
here: how a command is run (`backends/`), training (`worker.py`, which is never imported here), and the terminal
(`cli/`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modtrain import fs, plugins
from modtrain.backends.base import Backend, BackendOptions, Deaths, Job, JobState, Resources, python_path, wants_restart
from modtrain.config import Config
from modtrain.errors import FencedOut, InputError, Interrupted, ModtrainError, Preempted, StopRequested
from modtrain.prepare import prepare
from modtrain.run import Run, process_started
from modtrain.status import LIVE, states_of

log = logging.getLogger(__name__)

POLL_S = 0.5
LEAVING_S = 10.0
"""How long a start waits for workers of a launcher that was just killed: they die with it, but not at once."""
FINISHED = 0
STOPPED = (StopRequested.exit_code, Preempted.exit_code, Interrupted.exit_code)
"""Exit codes of workers that published and left because they were asked to."""


@dataclass
class Member:
    """One worker of a launched run and its job."""

    number: int
    modules: list[str]
    id: str | None = None
    backend: str = ""
    """Where its job runs: a live job of an earlier launch stays where it is."""
    exit_code: int | None = None
    over: bool = False
    restarts: int = 0
    begun: float = field(default_factory=time.monotonic)
    again_at: float | None = None
    deaths: Deaths = field(default_factory=Deaths)

    @property
    def name(self) -> str:
        """For people: the modules."""
        return "+".join(self.modules)


class Launch:
    """The jobs of a run on a backend."""

    def __init__(self, run: Run, backend: str, options: BackendOptions) -> None:
        """Nothing is started yet: `start` does."""
        self.run, self.backend_name, self.options = run, backend, options
        self.backend: Backend = plugins.load("backend", backend)(options)
        self.members = [Member(number, list(modules)) for number, modules in enumerate(run.spec.placement)]
        self._backends = {backend: self.backend}

    def start(self) -> list[Member]:
        """Submit every worker that has no live job and is not finished; those that were submitted.

        InputError where another launch, or somebody by hand, runs a worker that cannot be watched from here.
        """
        (self.run.path / "jobs").mkdir(exist_ok=True)
        self._claim()
        self._adopt()
        missing = [member for member in self.members if member.id is None and not member.over]
        try:
            self._refuse_strangers(missing)
            self.run.clear_stop()
            self._submit(missing)
        except BaseException:
            self._leave_alone([member for member in self.members if member not in missing])
            raise
        return [member for member in missing if member.id is not None]

    def watch(self, tell: Callable[[str], None]) -> Iterator[list[Member]]:
        """Every half second the members, until all are over; killed workers are started again meanwhile."""
        while True:
            self._poll(tell)
            yield self.members
            if all(member.over for member in self.members):
                self._release()
                return
            time.sleep(POLL_S)

    def cancel(self) -> None:
        """End every job now; what is published stays."""
        self._release()
        for member in self.members:
            if not member.over:
                member.over, member.exit_code = True, -signal.SIGKILL

    def outcome(self) -> int:
        """The exit code of the whole: 0 finished, else the worst reason of a worker."""
        codes = [1 if member.exit_code is None else member.exit_code for member in self.members]
        failed = [code for code in codes if code != FINISHED and code not in STOPPED]
        stopped = [code for code in codes if code in STOPPED]
        code = (failed or stopped or [FINISHED])[0]
        return code if 0 <= code < 256 else 1

    def trouble(self, member: Member) -> str:
        """What a worker said last of its end, else how it ended."""
        return str(self.run.heartbeat(member.modules[0]).get("trouble") or _said(member.exit_code))

    def _poll(self, tell: Callable[[str], None]) -> None:
        for name, backend in self._backends.items():
            watched = {m.id: m for m in self.members if m.id is not None and not m.over and m.backend == name}
            for id, state in backend.status(list(watched)).items():
                self._look_at(watched[id], state, backend, tell)
        self._submit([m for m in self.members if m.again_at is not None and time.monotonic() >= m.again_at])

    def _look_at(self, member: Member, state: JobState, backend: Backend, tell: Callable[[str], None]) -> None:
        if state.live:
            return
        member.exit_code = self._exit_code(member, state)
        pause_s = self._pause_s(member, backend)
        if pause_s is not None:
            member.restarts += 1
            member.id, member.again_at = None, time.monotonic() + pause_s
            tell(f"{member.name} was ended ({_said(member.exit_code)}); starting it again from its newest checkpoint.")
            return
        member.over = True
        if member.exit_code not in (FINISHED, FencedOut.exit_code, *STOPPED):
            self._stop_the_others(member, tell)

    def _pause_s(self, member: Member, backend: Backend) -> float | None:
        """Seconds until a worker that has ended is started again; None where it is not."""
        obeyed = member.exit_code == StopRequested.exit_code  # a request that was taken back since
        again = obeyed or (wants_restart(member.exit_code) and not backend.restarts)
        if not again or self.run.stop_requested() is not None:
            return None
        return member.deaths.pause_s(time.monotonic() - member.begun)

    def _stop_the_others(self, failed: Member, tell: Callable[[str], None]) -> None:
        """Nobody should wait for a peer that will never publish again: the others publish and leave."""
        if any(not member.over for member in self.members) and self.run.stop_requested() is None:
            trouble = self.trouble(failed)
            self.run.request_stop(f"{failed.name} failed: {trouble}")
            tell(f"{failed.name} failed ({trouble}); the others publish and leave.")

    def _exit_code(self, member: Member, state: JobState) -> int | None:
        """How a worker ended; its checkpoints and its last word say it where its backend did not see it."""
        if state.exit_code is not None:
            return state.exit_code
        if self.run.is_finished(member.modules):
            return FINISHED
        said = self.run.heartbeat(member.modules[0]).get("exit_code")
        return None if said is None else int(said)

    def _submit(self, members: list[Member]) -> None:
        """Start workers, but not against a stop request."""
        if not members:
            return
        if self.run.stop_requested() is not None:
            for member in members:
                member.over, member.again_at, member.exit_code = True, None, StopRequested.exit_code
            return
        threads = self.options.cpus or self.backend.cores(len(self.members))
        ids = self.backend.submit([self._job(member, threads) for member in members])
        for member, id in zip(members, ids, strict=True):
            member.id, member.backend, member.exit_code, member.over = id, self.backend_name, None, False
            member.begun, member.again_at = time.monotonic(), None
        record = {str(m.number): {"backend": m.backend, "id": m.id} for m in self.members if m.id}
        fs.replace_file(self._record, json.dumps(record, indent=2).encode())

    def _job(self, member: Member, threads: int) -> Job:
        command = (
            sys.executable,
            "-m",
            "modtrain",
            "worker",
            str(self.run.path),
            "--modules",
            ",".join(member.modules),
        )
        return Job(
            name=f"{self.run.name}.{member.name}",
            command=(*command, "--threads", str(threads)),
            log=self.run.path / "jobs" / f"{member.number}.log",
            resources=Resources(cpus=threads, gpus=0.0 if self.run.spec.device == "cpu" else 1.0),
            environment=python_path(),
        )

    def _adopt(self) -> None:
        """Take over the jobs of an earlier launch that still live; a finished worker is not started again."""
        record = _read_json(self._record)
        for member in self.members:
            job = record.get(str(member.number), {})
            if self._lives(job):
                member.id, member.backend = job["id"], job["backend"]
            elif self.run.is_finished(member.modules):
                member.over, member.exit_code = True, FINISHED

    def _lives(self, job: Mapping[str, str]) -> bool:
        """Whether a recorded job still lives, on whatever backend it was submitted to."""
        if not job:
            return False
        name, id = job["backend"], job["id"]
        if name not in self._backends:
            self._backends[name] = plugins.load("backend", name)(BackendOptions())
        return bool(self._backends[name].status([id])[id].live)

    def _refuse_strangers(self, missing: Sequence[Member]) -> None:
        """A worker that lives without a job that we know would be fenced out by a second one, or fence it out."""

        def alive() -> list[str]:
            beats = {name: self.run.heartbeat(name) for member in missing for name in member.modules}
            return [name for name, state in states_of(self.run, beats).items() if state in LIVE]

        if fs.wait_until(lambda: None if alive() else True, timeout_s=LEAVING_S) is None and (names := alive()):
            beat = self.run.heartbeat(names[0])
            who = f"{names[0]} by process {beat.get('pid')} on {beat.get('host')}"
            raise InputError(
                f"{self.run.name} is being trained already ({who}), by no job that can be seen from here. Name its "
                f"cluster (--address), or end it with `modtrain stop {self.run.path}`."
            )

    def _claim(self) -> None:
        """Say that this process launches the run; InputError where a live process of this machine does so already."""
        path, pid = self.run.path / "jobs" / "launcher.json", os.getpid()
        us = {"host": socket.gethostname(), "pid": pid, "started": process_started(pid)}
        other = _read_json(path)
        if other and other != us and other["host"] == us["host"] and process_started(other["pid"]) == other["started"]:
            raise InputError(
                f"{self.run.name} is launched already, by process {other['pid']}. Watch it with `modtrain status "
                f"{self.run.path}`, or stop it with `modtrain stop {self.run.path}`."
            )
        fs.replace_file(path, json.dumps(us).encode())

    @staticmethod
    def _leave_alone(adopted: Sequence[Member]) -> None:
        """A launch that fails to start ends no job of an earlier one."""
        for member in adopted:
            member.id = None

    def _release(self) -> None:
        for name, backend in self._backends.items():
            backend.cancel([member.id for member in self.members if member.id and member.backend == name])

    @property
    def _record(self) -> Path:
        return self.run.path / "jobs" / "jobs.json"


def launch(config: Config, *, tell: Callable[[str], None] = log.info) -> Run:
    """Create the run, or go on with it, train it to its end, and return it. ModtrainError where a worker failed."""
    run = prepare(config)
    started = Launch(run, config.backend, BackendOptions(address=config.address))
    started.start()
    for _ in started.watch(tell):
        pass
    failed = [m for m in started.members if m.exit_code not in (FINISHED, *STOPPED)]
    if failed:
        worker_log = run.module_path(failed[0].modules[0]) / "worker.log"
        raise ModtrainError(f"{failed[0].name} failed: {started.trouble(failed[0])} See {worker_log}.")
    return run


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(fs.read_file(path)))
    except (OSError, ValueError):
        return {}


def _said(exit_code: int | None) -> str:
    if exit_code is None:
        return "nobody saw how"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
