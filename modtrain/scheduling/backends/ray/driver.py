"""The process that talks to Ray, and how it is asked.

Ray ends any process that uses it when its cluster is lost, and takes signals for itself. So nothing of a launch but
this process joins a cluster, and a lost cluster is an answer that does not come. When whoever started it is gone, it
leaves, and its workers end. Deliberately not here: what it runs (`__main__.py`), and what is done on the cluster
(`actors.py`).
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
from modtrain.scheduling.backends.base import python_path

JOIN_S = 90.0
"""Longer than Ray takes to start, or to give up an address, on a slow machine."""
LEAVE_S = 10.0
_HERE: dict[str | None, Driver] = {}


class Driver:
    """A process of its own that has joined the cluster at `address`, or started an instance for us alone."""

    def __init__(self, address: str | None) -> None:
        """InputError where no cluster at the address lets us in."""
        self.address = address
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process lives
        self._pipe, its = Pipe()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modtrain.scheduling.backends.ray", str(its.fileno())],
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                start_new_session=True,  # a terminal's Ctrl-C is the launcher's
                env=os.environ | python_path(),
            )
        self._pipe.send(address)
        self._asked = self._answered = 0
        atexit.register(self.leave)
        self._join()

    def ask(self, verb: str, *arguments: object, within_s: float) -> Any:
        """What `Actors` returns, or raises. BackendSilent where it has not within so long, ClusterLost for good."""
        try:
            if self._waited(within_s):
                self._pipe.send((verb, arguments))
                self._asked += 1
            if not self._waited(within_s):
                raise BackendSilent(f"{self._where()} does not answer; waiting for it.")
        except (EOFError, OSError):
            raise self._lost() from None
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    @property
    def lives(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def leave(self) -> None:
        """End the process, and what of its instance or its workers ends with it."""
        atexit.unregister(self.leave)
        self._pipe.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._words.closed:
            self._last_word = _last_line(self._words)
            self._words.close()

    def _join(self) -> None:
        try:
            self.ask("join", within_s=JOIN_S)
        except BackendSilent:
            self.leave()
            raise InputError(f"{self._where()} did not let us in within {JOIN_S:.0f} s. Is that Ray?") from None
        except ModtrainError:
            self.leave()
            raise

    def _waited(self, within_s: float) -> bool:
        """Whether every question is answered. One is asked at a time, so that none can fill the pipe."""
        deadline = time.monotonic() + within_s
        while self._answered < self._asked and self._pipe.poll(max(0.0, deadline - time.monotonic())):
            self._answer: object = self._pipe.recv()
            self._answered += 1
        return self._answered == self._asked

    def _where(self) -> str:
        return f"The Ray cluster at {self.address}" if self.address else "The Ray instance of this launch"

    def _lost(self) -> ModtrainError:
        self.leave()
        if not self._answered:
            return ModtrainError(
                f"Ray cannot be used on this machine: {self._last_word}. --backend local does without."
            )
        return ClusterLost(
            f"{self._where()} is lost, and its workers end with it. What they have published is not: launch the run "
            f"again{', here or on another cluster (--address)' if self.address else ''}, and it goes on."
        )


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


def driver(address: str | None) -> Driver:
    """The one of this process for this cluster. One that was lost is replaced: the cluster may have come back."""
    if address not in _HERE or not _HERE[address].lives:
        _HERE[address] = Driver(address)
    return _HERE[address]
