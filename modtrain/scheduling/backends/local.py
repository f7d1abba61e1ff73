"""Jobs as processes of this machine, each in its own session: neither Ctrl-C nor the launcher's death ends them.

Killed jobs are restarted by the launcher (`launcher.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence

from modtrain.errors import InputError
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState, check_device
from modtrain.scheduling.profile import check_supported
from modtrain.storage import filesystem
from modtrain.storage.process_identity import process_started

CANCEL_S = 10.0
_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}
"""Processes that this one started, by id: only their parent can read their exit codes, and it must reap them."""


class LocalBackend:
    """Processes. An id is `host:pid:start time`, which is never reused."""

    unattended = False
    poll_s = 0.5

    def __init__(self, options: BackendOptions) -> None:
        check_supported(options.profile, ("cpus",), "local")
        if options.address:
            raise InputError(f"--address {options.address} is not for --backend local, which has no cluster.")

    def check(self, device: str) -> None:
        """Nothing is needed but this machine."""
        check_device(device)

    def cores(self, jobs: int) -> int:
        """Equal share of the cores that this process may use."""
        return max(1, len(os.sched_getaffinity(0)) // jobs)

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        return [self._start(job) for job in jobs]

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """Running or ended; the exit code is known where this process started the job."""
        return {id: self._state(id) for id in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the jobs' process groups and wait until the jobs are gone."""
        for id in ids:
            if self._state(id).live:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(id.split(":")[1]), signal.SIGKILL)
        filesystem.wait_until(lambda: None if any(self._state(id).live for id in ids) else True, timeout_s=CANCEL_S)

    def _start(self, job: Job) -> str:
        try:
            job.log.parent.mkdir(exist_ok=True)
            with job.log.open("ab") as log:
                child = subprocess.Popen(
                    job.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=os.environ | job.environment,
                )
        except OSError as error:
            raise InputError(f"{job.command[0]} cannot be started: {error.strerror}.") from error
        id = f"{socket.gethostname()}:{child.pid}:{process_started(child.pid)}"
        _CHILDREN[id] = child
        return id

    def _state(self, id: str) -> JobState:
        child = _CHILDREN.get(id)
        if child is not None:
            code = child.poll()
            return JobState(phase="running") if code is None else JobState(phase="ended", exit_code=code)
        host, pid, started = (*id.split(":"), "", "")[:3]
        if host != socket.gethostname() or not pid.isdecimal():
            return JobState(phase="unknown")
        return JobState(phase="running" if str(process_started(int(pid))) == started else "ended")


backend = LocalBackend
"""Loaded by `--backend local`."""
