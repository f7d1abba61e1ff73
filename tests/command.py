"""The command line in tests: in this process where it is quick, as real processes where signals matter."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from modtrain.cli import main


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


def start(*words: object) -> subprocess.Popen[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "modtrain", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Said:
    """How it ended, and what it had said."""
    out, err = process.communicate(timeout=300)
    return Said(process.returncode, out, err)
