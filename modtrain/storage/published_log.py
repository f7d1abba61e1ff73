"""`published.jsonl`: one line a published version, kept when the version is pruned: history and lineage."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modtrain.errors import CorruptCheckpoint
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.filesystem import read_lines
from modtrain.storage.json_lines import JsonLines, json_objects, number, tails

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


def follow_published(path: Path) -> JsonLines[list[Checkpoint]]:
    """The versions in a file that grows, ascending; of two lines of one version the later one."""
    return JsonLines(path, list[Checkpoint], _insert)


def last_published(path: Path, count: int) -> list[Checkpoint]:
    """The newest `count` versions, or more, as `follow_published` has them."""
    checkpoints: list[Checkpoint] = []
    for _, lines in tails(path):
        checkpoints = []
        for line in json_objects(lines):
            _insert(checkpoints, line)
        if len(checkpoints) >= count:
            break
    return checkpoints


def read_published(path: Path, module: str) -> list[Checkpoint]:
    """Every version ever published, ascending, from the lines whose seal is intact."""
    checkpoints: dict[int, Checkpoint] = {}
    for line in read_lines(path):
        if (checkpoint := _unsealed(line.encode(), path)) and checkpoint.module == module:
            checkpoints[checkpoint.version] = checkpoint
    return [checkpoints[version] for version in sorted(checkpoints)]


def newest_published(path: Path, module: str) -> Checkpoint | None:
    """The newest version with an intact line, read from the end of the file; None where there is none."""
    for _, lines in tails(path):
        for line in reversed(lines):
            if (checkpoint := _unsealed(line.rstrip(b"\n"), path)) and checkpoint.module == module:
                return checkpoint
    return None


def _unsealed(line: bytes, path: Path) -> Checkpoint | None:
    try:
        return Checkpoint.unseal(line, path)
    except CorruptCheckpoint:
        return None


def _is_peer(peer: Any) -> bool:
    if not isinstance(peer, dict) or number(peer.get("epoch")) is None or not isinstance(peer.get("versions"), list):
        return False
    return all(number(version) is not None for version in peer["versions"])


def _insert(checkpoints: list[Checkpoint], line: Mapping[str, Any]) -> None:
    """A restarted worker writes the lines that the one before could not: they may come late, and twice."""
    if checkpoint := parse_published(line):
        place = bisect.bisect_left(checkpoints, checkpoint.version, key=lambda other: other.version)
        same = place < len(checkpoints) and checkpoints[place].version == checkpoint.version
        checkpoints[place : place + same] = [checkpoint]
