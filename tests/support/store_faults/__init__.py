"""Real faults for the tests of the store: kills, errors and pauses at chosen system calls, and odd mounts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

_ROOT = Path(__file__).parents[3]


def start(name: str, folder: Path, *options: Any) -> subprocess.Popen[str]:
    """Start a scenario as a process; it prints a JSON line for each event."""
    command = [sys.executable, "-m", "tests.support.store_faults", name, str(folder), *map(json.dumps, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=_ROOT)


def finish(process: subprocess.Popen[str], timeout_s: float = 800) -> list[dict[str, Any]]:
    """The remaining events of a scenario, which must exit with code 0."""
    output, errors = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines()]


def scenario(name: str, folder: Path, *options: Any) -> list[dict[str, Any]]:
    """All events of a scenario."""
    return finish(start(name, folder, *options))


def hear(stream: IO[str] | None) -> dict[str, Any]:
    """The next event of a running scenario."""
    assert stream is not None
    return dict(json.loads(stream.readline()))
