"""What runs inside a Ray actor: the keeper of one command.

It starts the command as a process of its own, starts it again when it is killed, and keeps its exit code. When the
actor or its node dies, Ray starts the actor again, maybe elsewhere, and its constructor starts the command again.
Deliberately not here: placing actors, and torch: the command brings what it needs.
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
from typing import Any

from modtrain.scheduling.backends.base import Deaths, wants_restart

NAMESPACE = "modtrain"
LINGER_S = 600.0
"""How long a kept run that is over tells its exit codes before it frees its place by itself."""

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
"""Run by the process that becomes the command: it dies with the actor's thread that started it (PR_SET_PDEATHSIG), also
when the actor is killed; and signals reach it, which Ray blocks in its processes and a child would inherit."""


class Keeper:
    """What the actor is: it keeps one command running. Its names are the actor's methods."""

    def __init__(self, command: Sequence[str], log: str, siblings: Sequence[str]) -> None:
        """Start the command. `siblings` are the actors of the same placement group, where the group must end itself."""
        self._command, self._log, self._siblings = command, log, siblings
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._cancelled = threading.Event()
        threading.Thread(target=self._keep, name="keeper", daemon=True).start()

    def state(self) -> tuple[str, int | None, str]:
        """Phase, exit code, and the log that tells whose job this is."""
        if self._exit_code is not None:
            return "ended", self._exit_code, self._log
        return "running" if self._child is not None else "pending", None, self._log

    def end(self) -> None:
        """Kill the command and everything in its session, and see it gone."""
        self._cancelled.set()
        while (child := self._child) is not None and self._exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.01)

    def _keep(self) -> None:
        """One thread for as long as the actor lives: the command dies with the thread that started it."""
        deaths, pause_s = Deaths(), 0.0
        while not self._cancelled.wait(pause_s):
            begun = time.monotonic()
            exit_code = self._run()
            pause = deaths.pause_s(time.monotonic() - begun)
            if self._cancelled.is_set() or not wants_restart(exit_code) or pause is None:
                self._exit_code = exit_code
                break
            self._child, pause_s = None, pause
        self._free_when_all_are_over()

    def _run(self) -> int:
        starter = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *self._command]
        try:
            Path(self._log).parent.mkdir(parents=True, exist_ok=True)
            with open(self._log, "ab") as log:
                self._child = subprocess.Popen(
                    starter, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
        except OSError:
            return 1
        return self._child.wait()

    def _free_when_all_are_over(self) -> None:
        """A kept run holds its place in the cluster; nobody else may be there to free it."""
        import ray

        while self._siblings:
            time.sleep(LINGER_S)
            if not any(_is_live(name) for name in self._siblings):
                ray.util.remove_placement_group(ray.util.get_current_placement_group())


def _is_live(name: str) -> bool:
    import ray

    try:
        state: Any = ray.get(ray.get_actor(name, namespace=NAMESPACE).state.remote(), timeout=LINGER_S)
    except (ValueError, ray.exceptions.ActorDiedError):
        return False
    except ray.exceptions.RayError:
        return True
    return bool(state[0] != "ended")
