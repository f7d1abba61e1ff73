"""Checkpoint: the content of `meta.json` of one published version, sealed by a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.errors import CorruptCheckpoint

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
    """Batches completed since the beginning of the run."""
    full: bool
    """Whether training can resume from it: it holds `state.pt`."""
    final: bool
    """Whether it is the last version of a finished module."""
    files: dict[str, dict[str, Any]]
    metrics: dict[str, float]
    peers: dict[str, dict[str, Any]]
    """Lineage: by peer the `versions` that this one was trained against, newest first, and the newest one's `epoch`."""
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
            if hashlib.sha256(sealed).hexdigest() != seal or _canonical(values | {"seal": seal}) != content:
                raise CorruptCheckpoint(f"{where} is damaged: its checksum is wrong.")
            if values["format"] != FORMAT:
                raise CorruptCheckpoint(f"{where} has format {values['format']}; this modtrain reads {FORMAT}.")
            return Checkpoint(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptCheckpoint(f"{where} is damaged: {error}.") from error


def fingerprint(content: bytes) -> dict[str, Any]:
    """Size and sha256 of a file, as `meta.json` records them."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
