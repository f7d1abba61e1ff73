"""PageCache: the newest versions of the pages that are viewed, built once for all viewers.

A thread refreshes the viewed pages every two seconds and rests while none is viewed. Of each page the last versions are
kept, so that an update sends only the delta from the version that a browser has.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path

from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import Payload, Version, build_delta, build_version

log = logging.getLogger(__name__)

REFRESH_S = 2.0
HEARTBEAT_S = 4.0
"""Minimum seconds between versions whose only news is a heartbeat."""
VIEWED_S = 12.0
"""A page counts as viewed for so long after a request for it."""
MOST_PAGES = 64
"""Pages in memory."""
MOST_VERSIONS = 4
"""Versions of each page in memory: browsers poll more often than that."""

Key = tuple[str, str]
"""The kind of a page (runs, run or sweep), and the path below the root."""


@dataclass
class _Page:
    """The versions of one page, newest last."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: deque[Version] = field(default_factory=lambda: deque(maxlen=MOST_VERSIONS))
    heartbeats: int = 0
    """Versions whose only news was a heartbeat."""
    refreshed_at: float = float("-inf")
    changed_at: float = 0.0
    requested_at: float = 0.0


class PageCache:
    """The pages of a folder of runs. Its methods may be called from any thread."""

    def __init__(self, root: Path, *, refresh_s: float = REFRESH_S) -> None:
        """Nothing is read before the first request, or `start`."""
        self.source = Source(root, refresh_s=refresh_s / 2)
        self._refresh_s = refresh_s
        self._pages: OrderedDict[Key, _Page] = OrderedDict()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._requested = threading.Event()
        self._started = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, *, wait_s: float = 0.0) -> None:
        """Start the thread; wait up to `wait_s` for the first reading of all runs, which takes longest."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
            self._thread.start()
        self._started.wait(wait_s)

    def stop(self) -> None:
        """Stop the thread."""
        self._over.set()
        self._requested.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def __len__(self) -> int:
        """Pages in memory."""
        return len(self._pages)

    def version(self, kind: str, path: str = "") -> Version:
        """The newest version of a page, at most two refreshes old, built now if necessary; InputError if none."""
        if (fresh := self.fresh_version(kind, path)) is not None:
            return fresh
        key = kind, path
        page = self._page(key)
        with page.lock:
            if not page.versions or not self._is_fresh(page):
                self._refresh(key, page)
            return page.versions[-1]

    def fresh_version(self, kind: str, path: str = "") -> Version | None:
        """The same where it is at hand."""
        page = self._page((kind, path))
        page.requested_at = time.monotonic()
        self._requested.set()
        return page.versions[-1] if page.versions and self._is_fresh(page) else None

    def update(self, kind: str, path: str, since: str) -> Payload:
        """What a browser with the version of tag `since` needs: a delta where that version is in memory, else all."""
        newest = self.version(kind, path)
        before = next((each for each in list(self._page((kind, path)).versions) if each.tag == since), None)
        return newest.payload if before is None else build_delta(before, newest)

    def _page(self, key: Key) -> _Page:
        with self._lock:
            page = self._pages.setdefault(key, _Page())
            self._pages.move_to_end(key)
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return page

    def _is_fresh(self, page: _Page) -> bool:
        return time.monotonic() - page.refreshed_at <= 2 * self._refresh_s

    def _refresh(self, key: Key, page: _Page) -> None:
        """Build the page; one that can no longer be read is no longer shown, and the error is raised."""
        begun = time.monotonic()
        try:
            version = build_version(self.source.data(*key))
        except Exception:
            page.versions.clear()
            raise
        finally:
            page.refreshed_at = time.monotonic()
        page.heartbeats += _has_heartbeat(version, begun - page.changed_at)
        version = version.with_tag(f"{version.tag}-{page.heartbeats}")
        if page.versions and page.versions[-1].tag == version.tag:
            page.versions.pop()  # equal but for its ages
        else:
            page.changed_at = time.monotonic()
        page.versions.append(version)

    def _viewed(self) -> list[tuple[Key, _Page]]:
        now = time.monotonic()
        with self._lock:
            pages = list(self._pages.items())
        return [(key, page) for key, page in pages if now - page.requested_at < VIEWED_S + self._refresh_s]

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # the first request reports it
            self.version("runs")
        self._started.set()
        while not self._over.wait(self._refresh_s):
            viewed = self._viewed()
            for key, page in viewed:
                self._refresh_viewed(key, page)
            if not viewed:
                self._requested.clear()
                self.source.forget()
                if not self._viewed():
                    self._requested.wait()

    def _refresh_viewed(self, key: Key, page: _Page) -> None:
        if self._over.is_set():
            return
        with page.lock:
            try:
                self._refresh(key, page)
            except Exception as error:  # reported to the next request
                log.debug("Cannot read %s: %s", key, error)


def _has_heartbeat(version: Version, unchanged_s: float) -> bool:
    """Whether a heartbeat came since the last change, and that change was long ago."""
    return version.beat_age_s is not None and version.beat_age_s < unchanged_s and unchanged_s >= HEARTBEAT_S
