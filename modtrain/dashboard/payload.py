"""A page's data as it is sent: JSON made once and shared by all who look, with a tag that changes when it does.

NaN and infinity become null. Deliberately not here: what a page says.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import math
import re
import time
from dataclasses import dataclass
from typing import Any

_AGES = re.compile(rb'"(?:age_s|beat_age_s)":[^,}]*')
"""Numbers that only say how long ago something was: the page lets them grow by itself."""
_IN_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Page:
    """The data of a page as of one moment."""

    content: bytes
    """JSON, UTF-8."""
    tag: str
    """Equal for two pages that say the same, whatever time it is."""
    beat_age_s: float | None = None
    """Of the newest heartbeat that it tells of."""

    @functools.cached_property
    def packed(self) -> bytes:
        """The same, by gzip."""
        return gzip.compress(self.content, 5, mtime=0)

    @functools.cached_property
    def embedded(self) -> str:
        """The same for a script element of HTML: nothing in it can end that element."""
        return re.sub("[<>&\u2028\u2029]", lambda found: _IN_HTML[found[0]], self.content.decode())


def made(data: dict[str, Any]) -> Page:
    """The page of these values, as of now."""
    body = dumped(data)
    tag = hashlib.sha256(_AGES.sub(b"", body)).hexdigest()[:20]
    ages = [age for worker in data.get("workers", ()) if (age := worker.get("beat_age_s")) is not None]
    return Page(b'{"at":%.3f%s' % (time.time(), b"," + body[1:] if data else b"}"), tag, min(ages, default=None))


def dumped(data: Any) -> bytes:
    """JSON that every browser reads."""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(plain(data), allow_nan=False, separators=(",", ":"))
    return text.encode()


def plain(value: Any) -> Any:
    """The same values without NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
