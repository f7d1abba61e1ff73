"""Why a job ended, by the end of its output and by its exit code, where its worker did not report it."""

from __future__ import annotations

import re
from pathlib import Path

from modtrain.storage import filesystem

_ERROR = re.compile(r"^modtrain: |error|exception|not found|no such|cannot|denied|fault|killed|fatal", re.IGNORECASE)
"""A line that says why; any other last line only says what was done last."""


def last_error(log: Path) -> str:
    """The last line of a job's output, where it is an error; else empty."""
    lines = [line for line in filesystem.read_lines(log) if line.strip()]
    return lines[-1].removeprefix("modtrain: ") if lines and _ERROR.search(lines[-1]) else ""


def describe_exit(exit_code: int | None) -> str:
    """An exit code as a sentence would name it."""
    if exit_code is None:
        return "exit code unknown"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
