"""Jobs as Ray actors, spread over the nodes of a cluster: the default backend.

Without an address (`--address`, `RAY_ADDRESS`) an instance is started on this machine, closed to other users, and ends
with this process. Only a command, a state and an exit code ever pass through Ray; results are in the run's folder.

Ray ends any process that uses it when its cluster is lost, and installs its own signal handlers. So only one process of
a launch, the driver, joins a cluster, and a lost cluster is a call without an answer. `actors.py` is its program.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from typing import Any

from modtrain.errors import BackendSilent, ClusterLost, InputError, ModtrainError
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState, check_device, python_path
from modtrain.scheduling.backends.ray.cluster import too_slow
from modtrain.scheduling.profile import check_supported

JOIN_S = 90.0
"""Longer than Ray takes to start, or to give up an address, on a slow machine."""
PLACE_S = 60.0
SUBMIT_S = 300.0
STATUS_S = 15.0
CANCEL_S = 30.0
CLOSE_S = 10.0
_DRIVERS: dict[str | None, Driver] = {}


class Driver:
    """A process that has joined the cluster at `address`, or started an instance of its own.

    It ends when the process that started it is gone, and its workers with it.
    """

    def __init__(self, address: str | None) -> None:
        """InputError where there is no cluster at the address, or it refuses this process."""
        self.address = address
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - for the lifetime of the process
        self._pipe, far_end = Pipe()
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modtrain.scheduling.backends.ray.actors", str(far_end.fileno())],
                pass_fds=(far_end.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,  # a terminal's Ctrl-C is for the launcher
                env=os.environ | python_path(),
            )
        self._pipe.send(address)
        self._calls = self._results = 0
        atexit.register(self.close)
        try:
            self.call("join", timeout_s=JOIN_S)
        except ModtrainError as error:
            self.close()
            if not isinstance(error, BackendSilent):
                raise
            if address is None:
                raise ModtrainError(too_slow(JOIN_S)) from None
            raise InputError(
                f"{self._cluster_name()} did not accept this process within {JOIN_S:.0f} s. Is it a Ray cluster?"
            ) from None

    def call(self, method: str, *arguments: object, timeout_s: float) -> Any:
        """Call a method of `Actors`: return its result or raise its error.

        BackendSilent without a result within `timeout_s`, ClusterLost where the driver has ended.
        """
        try:
            if self._receive(timeout_s):
                self._pipe.send((method, arguments))
                self._calls += 1
            if not self._receive(timeout_s):
                raise BackendSilent(f"{self._cluster_name()} does not answer; waiting for it.")
        except (EOFError, OSError):
            raise self._lost() from None
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process, its actors, and the instance that it started."""
        atexit.unregister(self.close)
        self._pipe.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._output.closed:
            self._output.seek(0)
            lines = self._output.read().decode(errors="replace").strip().splitlines()
            self._last_output = lines[-1] if lines else "no reason given"
            self._output.close()

    def _receive(self, timeout_s: float) -> bool:
        """Whether every call has its result. Only one is sent at a time, so that calls cannot fill the pipe."""
        deadline = time.monotonic() + timeout_s
        while self._results < self._calls and self._pipe.poll(max(0.0, deadline - time.monotonic())):
            self._result: object = self._pipe.recv()
            self._results += 1
        return self._results == self._calls

    def _cluster_name(self) -> str:
        return f"The Ray cluster at {self.address}" if self.address else "The Ray instance of this launch"

    def _lost(self) -> ModtrainError:
        self.close()
        if not self._results:
            return ModtrainError(
                f"Ray cannot be used on this machine: {self._last_output}. --backend local works without it."
            )
        return ClusterLost(
            f"{self._cluster_name()} is lost, and its workers with it. What they have published is kept: launch the "
            f"run again{', here or on another cluster (--address)' if self.address else ''} to continue it."
        )


class RayBackend:
    """Actors. An id is the actor's name, `<job's name>@<log>`, valid in every process that joins the same cluster."""

    unattended = False
    poll_s = 0.5

    def __init__(self, options: BackendOptions) -> None:
        check_supported(options.profile, ("cpus",), "ray")
        self._address = options.address or os.environ.get("RAY_ADDRESS")
        self._driver: Driver | None = None

    def check(self, device: str) -> None:
        if self._address:
            self._joined()
        else:
            check_device(device)

    def cores(self, jobs: int) -> int:
        """Equal share of the cluster's cores, whether they are in use or not."""
        return int(self._joined().call("cores", jobs, timeout_s=SUBMIT_S))

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        return list(self._joined().call("submit", list(jobs), PLACE_S, timeout_s=SUBMIT_S))

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """BackendSilent while the cluster does not answer, ClusterLost once it is lost together with its jobs."""
        if not ids or not self._has_cluster():
            return dict.fromkeys(ids, JobState(phase="unknown"))
        return dict(self._joined().call("status", list(ids), timeout_s=STATUS_S))

    def cancel(self, ids: Sequence[str]) -> None:
        if not ids or not self._has_cluster():
            return
        with contextlib.suppress(ClusterLost):  # the jobs end with their cluster
            try:
                self._joined().call("cancel", list(ids), timeout_s=CANCEL_S)
            except BackendSilent:
                self._joined().close()  # Ray ends the actors of a process that is gone

    def _has_cluster(self) -> bool:
        """Whether there is a cluster to ask: an instance of our own is not started only to ask it."""
        return bool(self._address) or self._driver is not None

    def _joined(self) -> Driver:
        """The driver of this process; one that is lost is kept, as another one would not find its actors."""
        if self._driver is None:
            if self._address not in _DRIVERS or not _DRIVERS[self._address].running:
                _DRIVERS[self._address] = Driver(self._address)  # the cluster may be back
            self._driver = _DRIVERS[self._address]
        return self._driver


backend = RayBackend
"""Loaded by `--backend ray`."""
