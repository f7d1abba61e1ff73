"""The driver: a process that talks to Ray, and the calls to it.

Ray ends any process that uses it when its cluster is lost, and installs its own signal handlers. So only this process
of a launch joins a cluster, and a lost cluster is a call without an answer. The driver ends when the process that
started it is gone, and its workers with it. `__main__.py` is its program, `actors.py` executes the calls.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from typing import IO, Any

from modtrain.errors import BackendSilent, ClusterLost, InputError, ModtrainError
from modtrain.scheduling.python_path import python_path

JOIN_S = 90.0
"""Longer than Ray takes to start, or to give up an address, on a slow machine."""
CLOSE_S = 10.0
_DRIVERS: dict[str | None, Driver] = {}


class Driver:
    """A process that has joined the cluster at `address`, or started an instance of its own."""

    def __init__(self, address: str | None) -> None:
        """InputError where there is no cluster at the address, or it refuses this process."""
        self.address = address
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - for the lifetime of the process
        self._pipe, far_end = Pipe()
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modtrain.scheduling.backends.ray", str(far_end.fileno())],
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
        self._join()

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
        """Whether the process can be called."""
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
            self._last_output = _last_line(self._output)
            self._output.close()

    def _join(self) -> None:
        try:
            self.call("join", timeout_s=JOIN_S)
        except BackendSilent:
            self.close()
            raise InputError(
                f"{self._cluster_name()} did not accept this process within {JOIN_S:.0f} s. Is it a Ray cluster?"
            ) from None
        except ModtrainError:
            self.close()
            raise

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


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


def driver(address: str | None) -> Driver:
    """This process's driver for a cluster; a new one where the last one has ended, as the cluster may be back."""
    if address not in _DRIVERS or not _DRIVERS[address].running:
        _DRIVERS[address] = Driver(address)
    return _DRIVERS[address]
