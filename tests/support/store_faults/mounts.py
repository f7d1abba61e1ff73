"""Mounts that imitate faults of shared storage: full, read-only, or with the stale caches of two clients.

Where mounting is impossible, the tests that need it fail.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

STALE_S = 20
"""How long a client caches names and attributes."""


@contextlib.contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """A small file system in memory, such as `size=1m` or `nr_inodes=20`."""
    with _mounted(path, ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]):
        yield path


@contextlib.contextmanager
def client(path: Path, of: Path, stale_s: int = STALE_S) -> Iterator[Path]:
    """A folder as another client sees it: names, missing names, attributes and contents are cached."""
    caches = f"attr_timeout={stale_s},entry_timeout={stale_s},negative_timeout={stale_s},kernel_cache"
    with _mounted(path, ["bindfs", "-o", caches, str(of), str(path)]):
        yield path


@contextlib.contextmanager
def _mounted(path: Path, command: list[str]) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        message = getattr(error, "stderr", "") or error
        raise AssertionError(
            f"`{' '.join(command)}` failed, so shared storage cannot be imitated here: {message}\n"
            "These tests need root, /dev/fuse and the package bindfs (`make test` installs it)."
        ) from error
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)
