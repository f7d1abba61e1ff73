"""Payload: content as it is sent, with a tag; Version: the data of a page at one time, serialised once for all viewers.

NaN and infinity become null.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

from modtrain.dashboard.delta import delta

_UNTAGGED = re.compile(r'"newest_at":[^,}]*')
"""A time that is estimated at each reading; the version next to it says whether it is another one."""


@dataclass(frozen=True)
class Payload:
    """Content with its tag."""

    content: bytes
    tag: str
    """Equal for two payloads that differ only in estimated times."""

    @functools.cached_property
    def packed(self) -> bytes:
        """The content compressed by gzip."""
        return gzip.compress(self.content, 5, mtime=0)


@dataclass(frozen=True)
class Version:
    """One version of a page's data."""

    data: dict[str, Any]
    tag: str
    _deltas: dict[str, Payload] = field(default_factory=dict)

    @functools.cached_property
    def payload(self) -> Payload:
        """All of it."""
        return Payload(as_json(self.data).encode(), self.tag)

    def since(self, before: Version) -> Payload:
        """What changed since an earlier version, as `{"delta": ...}`; built once for all viewers."""
        if before.tag not in self._deltas:
            change = delta(before.data, self.data) or {"keys": {}, "drop": []}
            self._deltas[before.tag] = Payload(as_json({"delta": change}).encode(), self.tag)
        return self._deltas[before.tag]


def build_version(values: dict[str, Any]) -> Version:
    """The version of these values, with the time of now as `at`."""
    tag = tag_of(_UNTAGGED.sub("", as_json(values)).encode())
    return Version({"at": round(time.time(), 1), **values}, tag)


def tag_of(content: bytes) -> str:
    """The tag of content: another one for other content."""
    return hashlib.sha256(content).hexdigest()[:20]


def as_json(values: Any) -> str:
    """JSON that every browser reads."""
    try:
        return json.dumps(values, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(without_nan(values), allow_nan=False, separators=(",", ":"))


def without_nan(value: Any) -> Any:
    """The same values without NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value
