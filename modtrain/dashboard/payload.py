"""Payload: JSON as it is sent, serialised once for all viewers, with a tag that changes when it says something else.

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
from dataclasses import dataclass, replace
from typing import Any

from modtrain.dashboard.delta import delta

_AGES = re.compile(rb'"(?:age_s|beat_age_s)":[^,}]*')
"""Ages: the browser lets them grow by itself."""
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Payload:
    """Content with its tag, as of one moment."""

    content: bytes
    tag: str
    """Equal for two payloads that differ only in their time and ages."""

    @functools.cached_property
    def packed(self) -> bytes:
        """The content compressed by gzip."""
        return gzip.compress(self.content, 5, mtime=0)

    @functools.cached_property
    def embedded(self) -> str:
        """JSON content for a script element of HTML: nothing in it can end that element."""
        return re.sub("[<>&\u2028\u2029]", lambda match: _ESCAPES[match[0]], self.content.decode())


@dataclass(frozen=True)
class Version:
    """One version of a page's data."""

    data: dict[str, Any]
    tag: str
    beat_age_s: float | None = None
    """Age of the newest heartbeat in it."""

    def with_tag(self, tag: str) -> Version:
        """The same under another tag."""
        return replace(self, tag=tag)

    @functools.cached_property
    def payload(self) -> Payload:
        """All of it."""
        return Payload(as_json(self.data), self.tag)


def build_version(values: dict[str, Any]) -> Version:
    """The version of these values, with the time of now as `at`."""
    tag = hashlib.sha256(_AGES.sub(b"", as_json(values))).hexdigest()[:20]
    ages = [age for worker in values.get("workers", ()) if (age := worker.get("beat_age_s")) is not None]
    return Version({"at": round(time.time(), 3), **values}, tag, min(ages, default=None))


def build_delta(before: Version, after: Version) -> Payload:
    """What changed between two versions, as `{"delta": ...}`."""
    return Payload(as_json({"delta": delta(before.data, after.data) or {"keys": {}, "drop": []}}), after.tag)


def as_json(values: Any) -> bytes:
    """JSON that every browser reads."""
    try:
        content = json.dumps(values, allow_nan=False, separators=(",", ":"))
    except ValueError:
        content = json.dumps(without_nan(values), allow_nan=False, separators=(",", ":"))
    return content.encode()


def without_nan(value: Any) -> Any:
    """The same values without NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value
