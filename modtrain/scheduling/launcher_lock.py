"""One launcher a run, and one worker a module: what a launch asks before it submits anything.

Courtesy, not correctness: the store's fence holds without it. Deliberately not here: jobs (`jobs.py`).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence

from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.liveness import LIVE, launcher, states_of
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run

LEAVING_S = 10.0
"""How long a start waits for workers of a launcher that was just killed: they die with it, but not at once."""


def claim(run: Run) -> None:
    """Say that this process launches the run; InputError where a live process of this machine does so already."""
    pid = os.getpid()
    us = {"host": socket.gethostname(), "pid": pid, "started": process_started(pid)}
    if (other := launcher(run)) not in (None, pid):
        raise InputError(
            f"{run.name} is launched already, by process {other}. Watch it with `modtrain status {run.path}`, "
            f"or stop it with `modtrain stop {run.path}`."
        )
    filesystem.replace_file(run.path / "jobs" / "launcher.json", json.dumps(us).encode())


def refuse_strangers(run: Run, modules: Sequence[str]) -> None:
    """A worker that lives without a job that we know would be fenced out by a second one, or fence it out."""

    def alive() -> list[str]:
        states = states_of(run, {name: run.heartbeat(name) for name in modules})
        return [name for name, state in states.items() if state in LIVE]

    if filesystem.wait_until(lambda: None if alive() else True, timeout_s=LEAVING_S) is None and (names := alive()):
        beat = run.heartbeat(names[0])
        who = f"{names[0]} by process {beat.get('pid')} on {beat.get('host')}"
        raise InputError(
            f"{run.name} is being trained already ({who}), by no job that can be seen from here, such as one that was "
            f"submitted by hand. Wait for it, end it with `modtrain stop {run.path}`, or name its cluster (--address)."
        )
