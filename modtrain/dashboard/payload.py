"""Payload: JSON as it is sent, serialised once for all viewers, with a tag that changes with its content.

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

_UNTAGGED = re.compile(rb'"newest_at":[^,}]*')
"""A time that is estimated at each reading; the version next to it says whether it is another one."""
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


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

    @functools.cached_property
    def embedded(self) -> str:
        """JSON content for a script element of HTML: nothing in it can end that element."""
        return escaped(self.content.decode())


@dataclass(frozen=True)
class Version:
    """One version of a page's data."""

    data: dict[str, Any]
    tag: str
    _deltas: dict[str, Payload] = field(default_factory=dict)

    @functools.cached_property
    def payload(self) -> Payload:
        """All of it."""
        return Payload(as_json(self.data), self.tag)

    def since(self, before: Version) -> Payload:
        """What changed since an earlier version, as `{"delta": ...}`; built once for all viewers."""
        if before.tag not in self._deltas:
            change = delta(before.data, self.data) or {"keys": {}, "drop": []}
            self._deltas[before.tag] = Payload(as_json({"delta": change}), self.tag)
        return self._deltas[before.tag]


def build_version(values: dict[str, Any]) -> Version:
    """The version of these values, with the time of now as `at`."""
    tag = hashlib.sha256(_UNTAGGED.sub(b"", as_json(values))).hexdigest()[:20]
    return Version({"at": round(time.time(), 1), **values}, tag)


def as_json(values: Any) -> bytes:
    """JSON that every browser reads."""
    try:
        content = json.dumps(values, allow_nan=False, separators=(",", ":"))
    except ValueError:
        content = json.dumps(without_nan(values), allow_nan=False, separators=(",", ":"))
    return content.encode()


def escaped(content: str) -> str:
    """JSON that contains no character with a meaning in HTML."""
    return re.sub("[<>&\u2028\u2029]", lambda match: _ESCAPES[match[0]], content)


def without_nan(value: Any) -> Any:
    """The same values without NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value
