"""Addresses of pages: a run's path below ROOT as part of a URL and back, by its bytes, so that every name works.

Every link is relative, since a proxy in front may add a prefix.
"""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes


def quoted(path: str) -> str:
    """A path below ROOT for a URL: each segment percent-encoded by its bytes; ROOT itself is `.`."""
    return "/".join(quote(os.fsencode(segment), safe="") for segment in path.split("/")) or "."


def unquoted(address: str) -> str | None:
    """The path of an address; None where it is not a path of names (`..`, an encoded slash)."""
    segments = [] if address in ("", ".") else [unquote_to_bytes(segment) for segment in address.split("/")]
    return "/".join(map(os.fsdecode, segments)) if all(map(is_name, segments)) else None


def is_name(segment: bytes) -> bool:
    """Whether this can be the name of a file in its folder."""
    return segment not in (b"", b".", b"..") and not {0, ord("/")} & set(segment)


def shown(name: str) -> str:
    """A name, or a sentence with names in it, as text; bytes that are not UTF-8 as `\\xff`."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, as foreign JSON may hold
        return name.encode("utf-8", "backslashreplace").decode()


def base_of(address: str) -> str:
    """The relative path from a page (`run/a/`) to the top: `../../`; empty for the top itself."""
    return "../" * address.count("/")
