"""published.jsonl: one line a published version."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from modtrain.errors import CorruptCheckpoint
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.json_lines import PLAIN

TAIL_BYTES = 1 << 12
"""How much of the end of `published.jsonl` is read for its newest line, at first."""


def newest_line(path: Path, module: str) -> Checkpoint | None:
    """The newest version that a `published.jsonl` tells of, read from its end; None where it tells of none."""
    size = TAIL_BYTES
    try:
        descriptor = os.open(path, PLAIN)
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
