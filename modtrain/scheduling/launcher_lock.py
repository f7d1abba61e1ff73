"""One launcher a run, and one worker a module: what a launch checks before it submits anything.

These checks prevent mistakes; the store's fence keeps a run correct without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS, LAUNCHER_FILE
from modtrain.storage.liveness import launcher_pid, live_modules
from modtrain.storage.process_identity import ProcessIdentity
from modtrain.storage.run import Run

EXIT_S = 10.0
"""How long a start waits for workers of a launcher that was just killed: they end with it, but not at once."""


class Launchable(Protocol):
    """A run or a sweep."""

    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str: ...


def claim(folder: Launchable) -> None:
    """Record this process as the launcher; InputError where another process of this machine is."""
    if (other := launcher_pid(folder.path)) not in (None, os.getpid()):
        raise InputError(
            f"{folder.name} is launched already, by process {other}. Watch it with `modtrain status {folder.path}`, "
            f"or stop it with `modtrain stop {folder.path}`."
        )
    identity = json.dumps(ProcessIdentity.current().as_json()).encode()
    filesystem.replace_file(folder.path / JOBS / LAUNCHER_FILE, identity)


def release(folder: Launchable) -> None:
    """Withdraw the claim of this process."""
    if launcher_pid(folder.path) == os.getpid():
        (folder.path / JOBS / LAUNCHER_FILE).unlink(missing_ok=True)


def check_unmanaged_workers(run: Run, modules: Sequence[str]) -> None:
    """InputError where one of the modules has a live worker without a job that this launch knows.

    A second worker of the module would be fenced out by it, or fence it out.
    """

    def are_free() -> bool | None:
        return None if live_modules(run, modules) else True

    if filesystem.wait_until(are_free, timeout_s=EXIT_S) is None and (alive := live_modules(run, modules)):
        process = run.read_report(alive[0]).process
        raise InputError(
            f"{run.name} is being trained already ({alive[0]} by process {process.pid} on {process.host}), by no job "
            "that can be seen from here, such as one that was submitted by hand. Wait for it, end it with "
            f"`modtrain stop {run.path}`, or name its cluster (--address)."
        )
