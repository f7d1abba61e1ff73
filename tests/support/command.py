"""The command line in tests: called in this process, or started as a process where signals matter."""

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

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Terminal:
    """Calls commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch
        monkeypatch.setenv("COLUMNS", "80")

    def __call__(self, *words: object) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["modtrain", *map(str, words)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        out, err = self._capsys.readouterr()
        return Result(int(exited.value.code or 0), out, err)


def typed(*words: object) -> Result:
    """Call a command in this process, also from a fixture of a module."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["modtrain", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            main()
    for stream in (out, err):
        stream.seek(0)
    return Result(int(exited.value.code or 0), out.read(), err.read())


def until(condition: Callable[[], T | bool | None], timeout_s: float = 240) -> T:
    """Wait until `condition` returns something true; what it returned."""
    result = filesystem.wait_until(lambda: condition() or None, timeout_s=timeout_s, longest_pause_s=0.2)
    assert result, f"nothing came within {timeout_s} s"
    return result  # type: ignore[return-value]


def start(*words: object) -> subprocess.Popen[str]:
    """Start a command as a process."""
    command = [sys.executable, "-m", "modtrain", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Result:
    """Wait for a process; its exit code and output."""
    out, err = process.communicate(timeout=300)
    return Result(process.returncode, out, err)
