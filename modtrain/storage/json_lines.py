"""Lines of JSON in files that another process appends to: only what is new is read, and a torn last line waits."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from modtrain.storage.filesystem import fault_of, opened

T = TypeVar("T")
Line = dict[str, Any]

CHUNK_BYTES = LONGEST_BYTES = 1 << 20
"""A longer line is not one of modtrain's and is skipped."""
MOST_BYTES = 1 << 30
"""A larger file is not one of modtrain's either, and is not read as a whole."""
SEARCHED_BYTES = 1 << 26
"""How much of the end of a file is searched."""
_MARK_BYTES = 64


class GrowingFile:
    """The complete lines of a growing regular file, as bytes without line ends. Links and pipes are not read."""

    def __init__(self, path: Path, *, last: int | None = None) -> None:
        """Nothing is read yet. `last` starts with that many of the lines present; None starts with the first line."""
        self.path = path
        self._last = last
        self._seen: tuple[int, ...] | None = None
        self._offset = 0
        self._mark = self.torn = b""
        """The bytes read last, and the beginning of a last line that is not complete yet."""
        self._too_long = False
        self.error: OSError | None = None
        """Why the last read failed: what storage cannot give now is read at the next refresh."""

    def refresh(self) -> tuple[bool, bool]:
        """Whether the file changed, and whether it was replaced or cut, so that it is read from its beginning again.

        A file that does not exist is an empty one. Where storage does not answer, nothing changes until it does.
        """
        try:
            status = self.path.lstat()
            seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            is_too_large = status.st_size > MOST_BYTES and self._last is None
            if not stat.S_ISREG(status.st_mode) or is_too_large:
                return False, False
        except FileNotFoundError:
            seen = (0, 0, 0, 0)
        except OSError as error:
            self.error = error
            return False, False
        if seen == self._seen and self.error is None:
            return False, False
        before, self.error = self._seen, None
        replaced = before is not None and (before[:2] != seen[:2] or seen[2] < self._offset)
        if before is not None and not replaced:  # a file may be cut, and grow beyond its size in between
            replaced = self._read(self._offset - len(self._mark), len(self._mark)) != self._mark
            if self.error is not None:
                return False, False
        self._seen = seen
        if replaced:
            self._offset, self._mark, self.torn, self._too_long = 0, b"", b"", False
        elif before is None and self._last is not None:
            self._offset = _start_of_last(self.path, self._last)
        return True, replaced

    def read(self) -> list[bytes] | None:
        """The complete lines of the next piece, perhaps none; None at the end of the file."""
        content = self._read(self._offset, CHUNK_BYTES)
        if not content:
            return None
        self._offset += len(content)
        self._mark = (self._mark + content)[-_MARK_BYTES:]
        *lines, self.torn = (self.torn + content).split(b"\n")
        if lines and self._too_long:
            del lines[0]
            self._too_long = False
        if len(self.torn) > LONGEST_BYTES:
            self.torn, self._too_long = b"", True
        return lines

    def _read(self, offset: int, size: int) -> bytes:
        """The bytes at an offset; none where the file has ended or storage fails."""
        try:
            with opened(self.path) as file:
                return os.pread(file.fileno(), size, offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.error = error
            return b""


class JsonLines(Generic[T]):
    """What the lines of a growing file of JSON objects add up to."""

    def __init__(self, path: Path, empty: Callable[[], T], add: Callable[[T, Line], object]) -> None:
        """Nothing is read yet. `add` takes a line into the content, which begins as `empty()`."""
        self.content = empty()
        self._file, self._empty, self._add = GrowingFile(path), empty, add

    def refresh(self) -> bool:
        """Read what is new; whether there was anything."""
        changed, replaced = self._file.refresh()
        if replaced:
            self.content = self._empty()
        while changed and (lines := self._file.read()) is not None:
            for line in json_objects(lines):
                self._add(self.content, line)
        return changed

    @property
    def error(self) -> OSError | None:
        """Why the file could not be read; None where it could, or does not exist."""
        return self._file.error


def read_json_lines(path: Path) -> list[Line]:
    """Every JSON object in a file; none where it does not exist, OSError where storage does not give it."""
    lines = JsonLines(path, list[Line], list.append)
    lines.refresh()
    if lines.error is not None and fault_of(lines.error):
        raise lines.error
    return lines.content


def number(value: Any) -> float | None:
    """A finite number that fits a float; None for everything else that a foreign file may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def integer(value: Any) -> int | None:
    """A whole number; None for everything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: Any) -> str | None:
    """A string; None for everything else."""
    return value if isinstance(value, str) else None


def tails(path: Path, size: int = 1 << 12) -> Iterator[tuple[int, list[bytes]]]:
    """The last `size` bytes of a file, then more and more: their offset, and the lines that begin there, with ends.

    None where the file cannot be read. At most `SEARCHED_BYTES` are read at once.
    """
    with contextlib.suppress(OSError), opened(path) as file:
        end = begin = file.seek(0, os.SEEK_END)
        while begin > 0 and size <= SEARCHED_BYTES:
            begin = file.seek(max(0, end - size))
            lines = file.readlines()
            torn = lines.pop(0) if begin and lines else b""
            yield begin + len(torn), lines
            size *= 4


def _start_of_last(path: Path, count: int) -> int:
    """Offset of the last `count` lines of a file, also where the last has no end; 0 where it cannot be read."""
    start = 0
    for begin, lines in tails(path):
        start = begin + sum(map(len, lines[: max(0, len(lines) - count)]))
        if len(lines) >= count:
            break
    return start


def json_objects(lines: Iterable[bytes]) -> list[Line]:
    """The lines that are JSON objects, NaN in them as None.

    They are parsed together where all are valid: that is faster, and equal names share their memory.
    """
    lines, objects = list(lines), list[Line]()
    with contextlib.suppress(ValueError, RecursionError):
        together = _parse(b"[" + b",".join(lines) + b"]")
        if len(together) == len(lines) and all(isinstance(each, dict) for each in together):
            return list(together)
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(each := _parse(line), dict):
                objects.append(each)
    return objects


def _parse(content: bytes) -> Any:
    return json.loads(content, parse_constant=lambda name: None)  # NaN is not valid JSON
