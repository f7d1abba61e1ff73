"""Checkpoint: the content of `meta.json`, sealed by a checksum, and a line of `published.jsonl`, kept when pruned."""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modtrain.errors import CorruptCheckpoint
from modtrain.storage.json_lines import JsonLines, json_objects, number, tails

FORMAT = 1
WEIGHTS, EMA, STATE, META = "weights.safetensors", "ema.safetensors", "state.pt", "meta.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The metadata of one published version."""

    module: str
    version: int
    epoch: int
    """Epochs completed."""
    step: int
    """Steps completed since the beginning of the run."""
    full: bool
    """Whether training can resume from it: it holds `state.pt`."""
    final: bool
    """Whether it is the last version of a finished module."""
    files: dict[str, dict[str, Any]]
    metrics: dict[str, float]
    peers: dict[str, dict[str, Any]]
    """Lineage: by peer the `versions` that this one was trained against, newest first, and the newest one's `epoch` and
    `step`."""
    writer: str
    published_at: float
    """Unix time by the writer's clock: for display, never compared with another machine's clock."""
    format: int = FORMAT

    def seal(self) -> bytes:
        """The content of `meta.json`: canonical JSON, with a checksum over all of it."""
        values = dict(vars(self))
        return _canonical(values | {"seal": hashlib.sha256(_canonical(values)).hexdigest()})

    @staticmethod
    def unseal(content: bytes, where: Path) -> Checkpoint:
        """Parse `meta.json`; CorruptCheckpoint where any byte differs from what was written."""
        try:
            values = json.loads(content)
            seal, sealed = values.pop("seal"), _canonical(values)
            if hashlib.sha256(sealed).hexdigest() != seal or content.replace(_seal_field(seal), b"", 1) != sealed:
                raise CorruptCheckpoint(f"{where} is damaged: its checksum is wrong.")
            if values["format"] != FORMAT:
                raise CorruptCheckpoint(f"{where} has format {values['format']!r}; this modtrain reads {FORMAT}.")
            if parse_published(values) is None:
                raise CorruptCheckpoint(f"{where} is damaged: a value in it has a wrong type.")
            return Checkpoint(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptCheckpoint(f"{where} is damaged: {error}.") from error


def fingerprint(content: bytes) -> dict[str, Any]:
    """Size and sha256 of a file, as `meta.json` records them."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def parse_published(line: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint that a JSON line describes, types checked but not its seal; None for a foreign line."""
    numbers = all(number(line.get(name)) is not None for name in ("version", "epoch", "step", "published_at"))
    wholes = all(isinstance(line.get(name), int) for name in ("version", "epoch", "step"))
    texts = all(isinstance(line.get(name), str) for name in ("module", "writer"))
    flags = all(isinstance(line.get(name), bool) for name in ("full", "final"))
    tables = all(isinstance(line.get(name), dict) for name in ("peers", "metrics", "files"))
    if not (numbers and wholes and texts and flags and tables and all(map(_is_peer, line["peers"].values()))):
        return None
    if abs(line["published_at"]) > 1e11 or min(line["version"], line["epoch"], line["step"]) < 0:
        return None
    if not all(map(_is_file, line["files"].values())) or None in map(number, line["metrics"].values()):
        return None
    return Checkpoint(**{each.name: line[each.name] for each in fields(Checkpoint) if each.name in line})


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


def newest_published(path: Path, module: str) -> Checkpoint | None:
    """The newest version with an intact line, read from the end of the file; None where there is none."""
    for _, lines in tails(path):
        for line in reversed(lines):
            if (checkpoint := unsealed(line.rstrip(b"\n"), path)) and checkpoint.module == module:
                return checkpoint
    return None


def unsealed(line: bytes, path: Path) -> Checkpoint | None:
    """The checkpoint in a line, if its seal is intact."""
    try:
        return Checkpoint.unseal(line, path)
    except CorruptCheckpoint:
        return None


def _is_peer(peer: Any) -> bool:
    if not isinstance(peer, dict) or number(peer.get("epoch")) is None or not isinstance(peer.get("versions"), list):
        return False
    numbers = [*peer["versions"], *([peer["step"]] if peer.get("step") is not None else [])]
    return all(number(each) is not None for each in numbers)


def _is_file(values: Any) -> bool:
    if not isinstance(values, dict) or not isinstance(values.get("sha256"), str):
        return False
    size = values.get("size")
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 63


def _insert(checkpoints: list[Checkpoint], line: Mapping[str, Any]) -> None:
    """A restarted worker writes the lines that the one before could not: they may come late, and twice."""
    if checkpoint := parse_published(line):
        place = bisect.bisect_left(checkpoints, checkpoint.version, key=lambda other: other.version)
        same = place < len(checkpoints) and checkpoints[place].version == checkpoint.version
        checkpoints[place : place + same] = [checkpoint]


def _seal_field(seal: str) -> bytes:
    """The seal as it stands in canonical JSON, which other fields follow."""
    return f'"seal":"{seal}",'.encode()


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
