"""Recent: the end of what a run's modules have told, for whoever looks at many runs at once.

It is as much as an alarm needs. Deliberately not here: all of it (`history.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modtrain.checkpoint import Checkpoint
from modtrain.errors import CorruptCheckpoint
from modtrain.run import Run
from modtrain.tail import Growing

LINES = 300
"""Of a curve: ten windows of an alarm."""
VERSIONS = 50
TAIL_BYTES = 1 << 12
"""How much of the end of `published.jsonl` is read for its newest line, at first."""

Line = dict[str, Any]


class Recent:
    """The newest lines of the curves and the versions of a run, as of the last `look`."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet."""
        paths = {module: run.module_path(module) for module in run.modules}
        self._curves = {module: _Newest(path / "metrics.jsonl", "step", LINES) for module, path in paths.items()}
        self._versions = {m: _Newest(path / "published.jsonl", "version", VERSIONS) for m, path in paths.items()}

    def look(self) -> None:
        """Read what is new."""
        for newest in (*self._curves.values(), *self._versions.values()):
            newest.look()

    def curve(self, module: str) -> list[Line]:
        """Lines of `metrics.jsonl`, steps ascending."""
        return self._curves[module].lines

    def versions(self, module: str) -> list[Line]:
        """Lines of `published.jsonl`, versions ascending."""
        return [line for line in self._versions[module].lines if isinstance(line.get("published_at"), int | float)]


class _Newest:
    """The last so many lines of a file, in an order that only grows."""

    def __init__(self, path: Path, order: str, count: int) -> None:
        self._growing, self._order, self._count = Growing(path, last=count), order, count
        self.lines: list[Line] = []

    def look(self) -> None:
        changed, anew = self._growing.look()
        if anew:
            self.lines = []
        while changed and (lines := self._growing.more()) is not None:
            for line in lines:
                self._take(line)
            self.lines = self.lines[-self._count :]

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return
        place = said.get(self._order) if isinstance(said, dict) else None
        if isinstance(place, int):
            while self.lines and self.lines[-1][self._order] >= place:
                self.lines.pop()
            self.lines.append(said)


def newest_line(path: Path, module: str) -> Checkpoint | None:
    """The newest version that a `published.jsonl` tells of, read from its end; None where it tells of none."""
    size = TAIL_BYTES
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        end = os.fstat(descriptor).st_size
        while True:
            begin = max(0, end - size)
            lines = os.pread(descriptor, end - begin, begin).split(b"\n")
            found = _newest_of(lines if begin == 0 else lines[1:], module, path)
            if found or begin == 0 or size >= TAIL_BYTES << 6:
                return found
            size *= 8
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _newest_of(lines: Iterable[bytes], module: str, path: Path) -> Checkpoint | None:
    for line in reversed(list(lines)):
        try:
            checkpoint = Checkpoint.unseal(line, path) if line else None
        except (CorruptCheckpoint, RecursionError):
            continue
        if checkpoint and checkpoint.module == module:
            return checkpoint
    return None
