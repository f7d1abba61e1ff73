"""Checks before a launch submits anything: one launcher per run, and one worker per module.

They prevent mistakes. The fence of the checkpoint store keeps a run correct without them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from modtrain.errors import InputError
from modtrain.storage import filesystem
from modtrain.storage.liveness import launcher_path, launcher_pid, live_modules
from modtrain.storage.process_identity import ProcessIdentity
from modtrain.storage.run import Run

LOCK_S = 5.0
"""Longest wait for a launch that has begun a moment earlier."""
EXIT_S = 10.0
"""Longest wait for the workers of a launcher that was just killed: they end with it, but not at once."""


class Launchable(Protocol):
    """A run or a sweep."""

    @property
    def path(self) -> Path: ...


def claim(folder: Launchable) -> None:
    """Record this process as the launcher.

    InputError where another process of this machine is the launcher, StorageError where that cannot be read.
    """
    with _one_at_a_time(launcher_path(folder.path).parent):
        if (other := launcher_pid(folder.path, strict=True)) not in (None, os.getpid()):
            raise InputError(
                f"{folder.path.name} is already launched by process {other}. Watch it with `modtrain status "
                f"{folder.path}`, or stop it with `modtrain stop {folder.path}`."
            )
        identity = json.dumps(vars(ProcessIdentity.current())).encode()
        filesystem.replace_file(launcher_path(folder.path), identity)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps other processes of this machine out of the block, for a while and where the file system has locks."""
    # Not `filelock`: it creates a file in the folder, which a full disk refuses and a killed launch may leave behind.
    # On a file system without locks its existence would be the lock, and keep every later launch out.
    descriptor = os.open(folder, os.O_RDONLY)

    def lock() -> bool | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return None if error.errno == errno.EWOULDBLOCK else False
        return True

    try:
        filesystem.wait_until(lock, timeout_s=LOCK_S)
        yield
    finally:
        os.close(descriptor)


def release(folder: Launchable) -> None:
    """Withdraw the claim of this process."""
    if launcher_pid(folder.path) == os.getpid():
        launcher_path(folder.path).unlink(missing_ok=True)


def check_unmanaged_workers(run: Run, modules: Sequence[str]) -> None:
    """InputError where one of the modules has a live worker whose job this launch does not know.

    Of two workers of one module, one would be fenced out.
    """

    def are_free() -> bool | None:
        return None if live_modules(run, modules) else True

    if filesystem.wait_until(are_free, timeout_s=EXIT_S) is None and (alive := live_modules(run, modules)):
        process = run.read_report(alive[0]).process
        raise InputError(
            f"{run.name} is already being trained ({alive[0]} by process {process.pid} on {process.host}) by a job "
            "that this launch does not know, such as one submitted by hand. Wait for it, stop it with `modtrain stop "
            f"{run.path}`, or give the address of its cluster (--address)."
        )
