"""PageCache: the newest versions of the pages that are viewed, built once for all viewers.

A thread refreshes the viewed pages every two seconds. Of each page the last versions are kept, so that an update sends
only the delta from the version that a browser has.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path

from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import Payload, Version, build_version

REFRESH_S = 2.0
VIEWED_S = 12.0
"""A page counts as viewed for so long after a request for it."""
MOST_PAGES = 64
"""Pages in memory."""
MOST_VERSIONS = 4
"""Versions of each page in memory: browsers poll more often than that."""

Key = tuple[str, str]
"""The kind of a page (runs, run, sweep or checkpoint), and the path below the root."""


@dataclass
class _Page:
    """The versions of one page, newest last."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: deque[Version] = field(default_factory=lambda: deque(maxlen=MOST_VERSIONS))
    refreshed_at: float = float("-inf")
    requested_at: float = 0.0


class PageCache:
    """The pages of a folder of runs. Its methods may be called from any thread."""

    def __init__(self, root: Path, *, refresh_s: float = REFRESH_S) -> None:
        """Nothing is read before the first request, or `start`."""
        self.source = Source(root, refresh_s=refresh_s / 2)
        self._refresh_s = refresh_s
        self._pages: OrderedDict[Key, _Page] = OrderedDict()
        self._lock = threading.Lock()
        self._scanned, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)

    def start(self, *, wait_s: float = 0.0) -> None:
        """Start the thread; wait up to `wait_s` for the first reading of all runs, which takes longest."""
        if not self._thread.is_alive():
            self._thread.start()
        self._scanned.wait(wait_s)

    def stop(self) -> None:
        """Stop the thread."""
        self._over.set()
        self._thread.join(timeout=2)

    @property
    def viewed(self) -> list[Key]:
        """The pages that were requested a short time ago."""
        since = time.monotonic() - VIEWED_S - self._refresh_s
        with self._lock:
            return [key for key, page in self._pages.items() if page.requested_at > since]

    def version(self, kind: str, path: str = "") -> Version:
        """The newest version of a page, at most two refreshes old, built now if necessary; InputError if none."""
        page = self._page((kind, path))
        page.requested_at = time.monotonic()
        if (newest := self._fresh(page)) is not None:
            return newest
        with page.lock:
            return self._fresh(page) or self._refresh((kind, path), page)

    def update(self, kind: str, path: str, since: str) -> Payload | None:
        """What a browser with the version of tag `since` needs: None for nothing.

        It is the delta where that version is in memory, else all of the newest version.
        """
        newest = self.version(kind, path)
        if newest.tag == since:
            return None
        before = next((each for each in list(self._page((kind, path)).versions) if each.tag == since), None)
        return newest.payload if before is None else newest.since(before)

    def _page(self, key: Key) -> _Page:
        with self._lock:
            page = self._pages.setdefault(key, _Page())
            self._pages.move_to_end(key)
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return page

    def _fresh(self, page: _Page) -> Version | None:
        """The newest version, unless it is too old."""
        newest = page.versions[-1] if page.versions else None
        return newest if time.monotonic() - page.refreshed_at <= 2 * self._refresh_s else None

    def _refresh(self, key: Key, page: _Page) -> Version:
        """Build the page; one that can no longer be read is no longer shown, and the error is raised."""
        try:
            version = build_version(self.source.data(*key))
        except Exception:
            page.versions.clear()
            raise
        finally:
            page.refreshed_at = time.monotonic()
        if page.versions and page.versions[-1].tag == version.tag:
            page.versions[-1] = version  # its time is newer
        else:
            page.versions.append(version)
        return version

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # the first request reports it
            self.version("runs")
        self._scanned.set()
        while not self._over.wait(self._refresh_s):
            viewed = self.viewed
            for key in viewed:
                page = self._page(key)
                with page.lock, contextlib.suppress(Exception):  # the next request reports it
                    self._refresh(key, page)
            if not viewed:
                self.source.forget()
