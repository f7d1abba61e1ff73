"""The Ray actor of a job: it runs one command as a process and keeps its exit code.

When the actor or its node dies, Ray restarts the actor, possibly on another node, and its constructor starts the
command again. A command that is killed is restarted by the launcher. The actor never imports torch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(parent):
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execvp(command[0], command)
"""
"""Program that becomes the command: it dies with the actor's thread that started it (PR_SET_PDEATHSIG), also when the
actor is killed, and unblocks the signals that Ray blocks in its processes and a child would inherit."""


class Supervisor:
    """The actor class: its public methods are the actor's remote methods."""

    def __init__(self, command: Sequence[str], log: str) -> None:
        self._command, self._log = command, log
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        threading.Thread(target=self._run, name="supervisor", daemon=True).start()

    def state(self) -> tuple[str, int | None]:
        if self._exit_code is not None:
            return "ended", self._exit_code
        return "running" if self._child is not None else "pending", None

    def end(self) -> None:
        """Kill the command and its session, and wait until the command is gone."""
        while self._exit_code is None:
            if self._child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            time.sleep(0.01)

    def _run(self) -> None:
        """Run the command to its end in one thread, with which it dies; the exit code is 1 where it cannot start."""
        starter = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *self._command]
        try:
            Path(self._log).parent.mkdir(exist_ok=True)
            with open(self._log, "ab") as log:
                self._child = subprocess.Popen(
                    starter, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
        except OSError:
            self._exit_code = 1
            return
        self._exit_code = self._child.wait()
