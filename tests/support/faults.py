"""Storage that fails in this process: one call on files below a folder raises an error, and it is seen that it did."""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "listdir", "scandir", "mkdir", "stat", "lstat", "rename", "replace")


class Faults:
    """Calls with a path below a folder, of which `fails(number, name)` are refused, at most `most`."""

    def __init__(
        self, folder: Path, fails: Callable[[int, str], bool], number: int = errno.EIO, *, most: int = sys.maxsize
    ) -> None:
        self.folder, self.fails, self.number, self.most = str(folder), fails, number, most
        self.calls: list[str] = []
        self.hits: list[str] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        opening = self._wrapped("open", builtins.open)
        patch.setattr(builtins, "open", opening)
        patch.setattr(io, "open", opening)

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *arguments: Any, **options: Any) -> Any:
            text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
            if text.startswith(self.folder):
                self.calls.append(f"{name} {text.removeprefix(self.folder)}")
                if len(self.hits) < self.most and self.fails(len(self.calls), self.calls[-1]):
                    self.hits.append(self.calls[-1])
                    raise OSError(self.number, os.strerror(self.number), text)
            return call(path, *arguments, **options)

        return wrapped
