"""Recent: the end of what a run's modules have told, for whoever looks at many runs at once.

It is as much as an alarm needs. Deliberately not here: all of it (`history.py`).
"""

from __future__ import annotations

import bisect
import contextlib
import os
from pathlib import Path

from modtrain.storage.curves import Columns, Line
from modtrain.storage.history import FIRST, LAST
from modtrain.storage.json_lines import PLAIN, Growing, number, objects, start_of_last
from modtrain.storage.run import Run

VERSIONS = 50
HEAD_BYTES = 1 << 16
"""Of a curve, in which its first lines are looked for."""


class Recent:
    """The ends of the curves and the newest versions of a run, as of the last `look`."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet."""
        paths = {module: run.module_path(module) for module in run.modules}
        self._curves = {module: _Ends(path / "metrics.jsonl") for module, path in paths.items()}
        self._versions = {module: _Newest(path / "published.jsonl") for module, path in paths.items()}

    def look(self) -> None:
        """Read what is new."""
        for ends in self._curves.values():
            ends.look()
        for newest in self._versions.values():
            newest.look()

    def losses(self, module: str) -> list[float]:
        """The first losses of a curve and the newest, as `History` tells them."""
        return self._curves[module].losses()

    def versions(self, module: str) -> list[Line]:
        """Lines of `published.jsonl`, versions ascending."""
        return [line for line in self._versions[module].lines if number(line.get("published_at")) is not None]


class _Ends:
    """The first rows of a curve, and the last ones."""

    def __init__(self, path: Path) -> None:
        self._path, self._growing = path, Growing(path, last=LAST)
        self._head, self._tail = Columns(), Columns()

    def look(self) -> None:
        changed, anew = self._growing.look()
        if anew:
            self._head, self._tail = Columns(), Columns()
        if changed and len(self._head) < FIRST:
            self._head = _head(self._path)
        if changed and self._read():
            self._read_further()
        self._tail.keep_last(LAST)

    def _read(self) -> bool:
        """What is new; whether some of it took back what was there."""
        rows, shorter = len(self._tail), False
        while (lines := self._growing.more()) is not None:
            for line in objects(lines):
                self._tail.add(line)
                shorter |= len(self._tail) <= rows
                rows = len(self._tail)
        return shorter

    def _read_further(self) -> None:
        """As far back as it takes to have as many rows as are judged, with those between that do not count any more."""
        last = LAST
        while len(self._tail) < LAST and start_of_last(self._path, last):
            last *= 4
            self._growing, self._tail = Growing(self._path, last=last), Columns()
            self._growing.look()
            self._read()

    def losses(self) -> list[float]:
        steps = self._tail.position["step"]
        before = bisect.bisect_left(self._head.position["step"], steps[0]) if steps else len(self._head)
        return self._head.losses(0, min(FIRST, before)) + self._tail.losses(0, len(self._tail))


class _Newest:
    """The last so many versions that a file tells of, ascending."""

    def __init__(self, path: Path) -> None:
        self._growing = Growing(path, last=VERSIONS)
        self.lines: list[Line] = []

    def look(self) -> None:
        changed, anew = self._growing.look()
        if anew:
            self.lines = []
        while changed and (lines := self._growing.more()) is not None:
            for line in objects(lines):
                self._take(line)
            self.lines = self.lines[-VERSIONS:]

    def _take(self, line: Line) -> None:
        if (version := number(line.get("version"))) is not None:
            while self.lines and self.lines[-1]["version"] >= version:
                self.lines.pop()
            self.lines.append(line)


def _head(path: Path) -> Columns:
    found = Columns()
    with contextlib.suppress(OSError):
        descriptor = os.open(path, PLAIN)
        try:
            lines = os.pread(descriptor, HEAD_BYTES, 0).split(b"\n")[:-1]
        finally:
            os.close(descriptor)
        for line in objects(lines):
            found.add(line)
    return found
