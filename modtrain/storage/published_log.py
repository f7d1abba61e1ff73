"""`published.jsonl`: one line a published version, kept when the version is pruned: history and lineage."""

from __future__ import annotations

import bisect
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modtrain.errors import CorruptCheckpoint
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.filesystem import opened, read_lines
from modtrain.storage.json_lines import JsonLines, number

TAIL_BYTES = 1 << 12
"""How much of the end of the file is read first for its newest line."""
_FIELDS = {field.name for field in dataclasses.fields(Checkpoint)}


def parse_published(line: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint that a JSON line describes, types checked but not its seal; None for a foreign line."""
    numbers = all(number(line.get(name)) is not None for name in ("version", "epoch", "step", "published_at"))
    texts = all(isinstance(line.get(name), str) for name in ("module", "writer"))
    flags = all(isinstance(line.get(name), bool) for name in ("full", "final"))
    tables = all(isinstance(line.get(name), dict) for name in ("peers", "metrics", "files"))
    if not (numbers and texts and flags and tables and all(map(_is_peer, line["peers"].values()))):
        return None
    return Checkpoint(**{name: line[name] for name in _FIELDS & line.keys()})


def follow_published(path: Path, *, last: int | None = None) -> JsonLines[Checkpoint]:
    """The versions in a file that grows, ascending; of two lines of one version the later one."""
    return JsonLines(path, parse_published, _insert if last is None else _append, last=last)


def read_published(path: Path, module: str) -> list[Checkpoint]:
    """Every version ever published, ascending, from the lines whose seal is intact."""
    checkpoints: dict[int, Checkpoint] = {}
    for line in read_lines(path):
        if (checkpoint := _unsealed(line.encode(), path)) and checkpoint.module == module:
            checkpoints[checkpoint.version] = checkpoint
    return [checkpoints[version] for version in sorted(checkpoints)]


def newest_published(path: Path, module: str) -> Checkpoint | None:
    """The newest version with an intact line, read from the end of the file; None where there is none."""
    size = TAIL_BYTES
    try:
        with opened(path) as descriptor:
            end = os.fstat(descriptor).st_size
            while True:
                begin = max(0, end - size)
                lines = os.pread(descriptor, end - begin, begin).split(b"\n")
                newest = _newest_of(lines if begin == 0 else lines[1:], module, path)
                if newest or begin == 0 or size >= TAIL_BYTES << 6:
                    return newest
                size *= 8
    except OSError:
        return None


def _newest_of(lines: list[bytes], module: str, path: Path) -> Checkpoint | None:
    checkpoints = (_unsealed(line, path) for line in reversed(lines) if line)
    return next((checkpoint for checkpoint in checkpoints if checkpoint and checkpoint.module == module), None)


def _unsealed(line: bytes, path: Path) -> Checkpoint | None:
    try:
        return Checkpoint.unseal(line, path)
    except (CorruptCheckpoint, RecursionError):
        return None


def _is_peer(peer: Any) -> bool:
    if not isinstance(peer, dict) or number(peer.get("epoch")) is None or not isinstance(peer.get("versions"), list):
        return False
    return all(number(version) is not None for version in peer["versions"])


def _insert(checkpoints: list[Checkpoint], checkpoint: Checkpoint) -> None:
    """A restarted worker writes the lines that the one before could not: they may come late, and twice."""
    place = bisect.bisect_left(checkpoints, checkpoint.version, key=lambda other: other.version)
    same = place < len(checkpoints) and checkpoints[place].version == checkpoint.version
    checkpoints[place : place + same] = [checkpoint]


def _append(checkpoints: list[Checkpoint], checkpoint: Checkpoint) -> None:
    while checkpoints and checkpoints[-1].version >= checkpoint.version:
        checkpoints.pop()
    checkpoints.append(checkpoint)
