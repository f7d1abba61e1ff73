"""The command line in tests: in this process where it is quick, as real processes where signals matter."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from modtrain.cli import main
from modtrain.storage import filesystem

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


class Terminal:
    """Types commands into this very process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        monkeypatch.setenv("COLUMNS", "80")

    def __call__(self, *words: object) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["modtrain", *map(str, words)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = self._capsys.readouterr()
        return Said(int(left.value.code or 0), out, err)


def typed(*words: object) -> Said:
    """A command, typed into this very process; also where a fixture of a whole file types it."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["modtrain", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
    for stream in (out, err):
        stream.seek(0)
    return Said(int(left.value.code or 0), out.read(), err.read())


def until(look: Callable[[], Seen | bool | None], timeout_s: float = 240) -> Seen:
    """What `look` sees, as soon as that is something."""
    found = filesystem.wait_until(lambda: look() or None, timeout_s=timeout_s, longest_pause_s=0.2)
    assert found, f"it did not come within {timeout_s} s"
    return found  # type: ignore[return-value]


def start(*words: object) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "modtrain", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Said:
    """How it ended, and what it had said."""
    out, err = process.communicate(timeout=300)
    return Said(process.returncode, out, err)
