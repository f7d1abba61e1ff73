"""The Ray actor of a job: it supervises one command.

It runs the command as a process, restarts it when it is killed, and keeps its exit code. When the actor or its node
dies, Ray restarts the actor, possibly on another node, and its constructor starts the command again. The actor never
imports torch.
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

from modtrain.scheduling.restarts import RestartBackoff, wants_restart

NAMESPACE = "modtrain"
KEEP_ENDED_S = 600.0
"""How long actors that outlive their launcher report their exit codes before they remove their placement group."""

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

    def __init__(self, command: Sequence[str], log: str, siblings: Sequence[str]) -> None:
        """Start the command.

        `siblings` are the names of the actors in the placement group, where the group must outlive the launcher.
        """
        self._command, self._log, self._siblings = command, log, siblings
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._cancelled = threading.Event()
        threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()

    def state(self) -> tuple[str, int | None, str]:
        """Phase, exit code, and the log, which identifies the job."""
        if self._exit_code is not None:
            return "ended", self._exit_code, self._log
        return "running" if self._child is not None else "pending", None, self._log

    def end(self) -> None:
        """Kill the command and its session, and wait until the command is gone."""
        self._cancelled.set()
        while (child := self._child) is not None and self._exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.01)

    def _supervise(self) -> None:
        """Run by one thread as long as the actor exists: the command dies with the thread that started it."""
        backoff, pause_s = RestartBackoff(), 0.0
        while not self._cancelled.wait(pause_s):
            begun = time.monotonic()
            exit_code = self._run()
            pause = backoff.pause_s(time.monotonic() - begun)
            if self._cancelled.is_set() or not wants_restart(exit_code) or pause is None:
                self._exit_code = exit_code
                break
            self._child, pause_s = None, pause
        self._remove_group_when_all_ended()

    def _run(self) -> int:
        """Run the command to its end; its exit code, or 1 where it cannot be started."""
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

    def _remove_group_when_all_ended(self) -> None:
        """Free the reserved resources of jobs without a launcher."""
        import ray

        while self._siblings:
            time.sleep(KEEP_ENDED_S)
            if not any(_is_live(name) for name in self._siblings):
                ray.util.remove_placement_group(ray.util.get_current_placement_group())


def find_actor(name: str) -> Any:
    """The actor of this name in the cluster that this process has joined; None where there is none."""
    import ray

    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _is_live(name: str) -> bool:
    import ray

    if (actor := find_actor(name)) is None:
        return False
    try:
        state: Any = ray.get(actor.state.remote(), timeout=KEEP_ENDED_S)
    except ray.exceptions.ActorDiedError:
        return False
    except ray.exceptions.RayError:
        return True
    return bool(state[0] != "ended")
