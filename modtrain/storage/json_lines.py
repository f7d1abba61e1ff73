"""Tail: what is new in a file that another process appends to, line by line, without reading the rest again.

A torn last line waits until it is whole; a file that shrank or was replaced is begun anew. Deliberately not here: what
the lines mean (`history.py`), and writing them (`fs.append_line`).
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
LONGEST_BYTES = 1 << 20
"""A longer line is none of ours: it is left out."""
SEARCHED_BYTES = 1 << 26
"""How far back the beginning of the last lines is looked for."""
PLAIN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file is opened that may be a pipe or a link: nobody waits for it, and none is followed."""
_MARK_BYTES = 64


class Growing:
    """The complete lines of a growing file, as bytes without their ends, in pieces of bounded size."""

    def __init__(self, path: Path, *, last: int | None = None) -> None:
        """`last` begins with so many of the lines that are there at the first look; None with the first one."""
        self.path = path
        self._last = last
        self._looked: tuple[int, ...] | None = None
        self._offset = 0
        self._mark = self._rest = b""
        self._too_long = False
        self._unread = False

    def look(self) -> tuple[bool, bool]:
        """Whether the file changed since the look before, and whether it is another one now: then it is begun anew.

        Storage that does not answer is no change; a file that does not exist (any more) is an empty one.
        """
        try:
            found = self.path.lstat()
            looked = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            if not stat.S_ISREG(found.st_mode):
                return False, False  # a reader of a pipe would wait for ever, and a link may lead anywhere
        except FileNotFoundError:
            looked = (0, 0, 0, 0)
        except OSError:
            return False, False
        if looked == self._looked and not self._unread:
            return False, False
        before, self._unread = self._looked, False
        anew = before is not None and (before[:2] != looked[:2] or looked[2] < self._offset)
        if before is not None and not anew:
            anew = not self._mark_is_there()
            if self._unread:
                return False, False
        self._looked = looked
        if anew:
            self._offset, self._mark, self._rest, self._too_long = 0, b"", b"", False
        elif before is None and self._last is not None:
            self._offset = start_of_last(self.path, self._last)
        return True, anew

    def more(self) -> list[bytes] | None:
        """The next complete lines, perhaps none of them in this piece; None at the end."""
        content = self._read(self._offset, CHUNK_BYTES)
        if not content:
            return None
        self._offset += len(content)
        self._mark = (self._mark + content)[-_MARK_BYTES:]
        *lines, self._rest = (self._rest + content).split(b"\n")
        if lines and self._too_long:
            del lines[0]
            self._too_long = False
        if len(self._rest) > LONGEST_BYTES:
            self._rest, self._too_long = b"", True
        return lines

    @property
    def torn(self) -> bytes:
        """The beginning of a last line that is not complete yet."""
        return self._rest

    def _mark_is_there(self) -> bool:
        """Whether what was read last still stands where it stood: a file may be cut and grow beyond it in between."""
        return self._read(self._offset - len(self._mark), len(self._mark)) == self._mark

    def _read(self, offset: int, size: int) -> bytes:
        """What storage does not give now is read at the next look, whether or not the file has changed."""
        try:
            descriptor = os.open(self.path, PLAIN)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return b""
        except OSError:
            self._unread = True
            return b""


def number(value: Any) -> float | None:
    """A finite number that fits a float; None for everything else that a foreign file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def start_of_last(path: Path, count: int) -> int:
    """Where the last `count` lines of a file begin, looked for from its end; 0 where it cannot be read."""
    try:
        with open(os.open(path, PLAIN), "rb") as file:
            end = at = file.seek(0, os.SEEK_END)
            lowest, missing = max(0, end - SEARCHED_BYTES), count + 1
            while at > lowest and count > 0:
                begin = max(lowest, at - (1 << 16))
                file.seek(begin)
                block = file.read(at - begin)
                if at == end and not block.endswith(b"\n"):
                    missing -= 1  # the last line has no end yet
                found = block.count(b"\n")
                if found >= missing:
                    return begin + _nth_from_end(block, missing) + 1
                missing, at = missing - found, begin
            return lowest if count > 0 else end
    except OSError:
        return 0


def _nth_from_end(block: bytes, count: int) -> int:
    place = len(block)
    for _ in range(count):
        place = block.rindex(b"\n", 0, place)
    return place


def objects(lines: list[bytes]) -> list[dict[str, Any]]:
    """The lines that are JSON objects, NaN in them as None.

    They are parsed together where they all are: that is quicker, and equal names share their memory.
    """
    try:
        together = _parse(b"[" + b",".join(lines) + b"]")
        if len(together) == len(lines) and all(isinstance(each, dict) for each in together):
            return list(together)
    except (ValueError, RecursionError):
        pass
    return [each for line in lines if isinstance(each := _object(line), dict)]


def _object(line: bytes) -> Any:
    try:
        return _parse(line)
    except (ValueError, RecursionError):
        return None


def _parse(text: bytes) -> Any:
    return json.loads(text, parse_constant=lambda name: None)  # NaN is no JSON, and who reads this writes JSON
