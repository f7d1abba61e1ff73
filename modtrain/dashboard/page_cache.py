"""What somebody looks at, kept current while they do: each page's data is made once for all, and told when it changes.

A thread looks every two seconds, at nothing while nobody does; what nobody has asked for in a while is forgotten.
Deliberately not here: HTTP (`app.py`), and what the pages say (`run_page.py`, `sweep_page.py`, `checkpoint_page.py`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from modtrain.dashboard.page_data import Source
from modtrain.dashboard.payload import Page, made

log = logging.getLogger(__name__)

LOOK_S = 2.0
BEATS_S = 4.0
"""Who looks lets ages grow, and so is told this often that a worker lives which says nothing else that is new."""
POLLED_S = 12.0
"""Whoever asks again within this time is still looking, without events."""
MOST = 64
"""Pages that are kept current, or at hand, at the same time."""

Key = tuple[str, str]
"""What kind of page (runs, run or sweep), and the path below ROOT."""


@dataclass
class _Kept:
    """One page as of the last look."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    page: Page | None = None
    revision: int = 0
    beats: int = 0
    """How often all that was told is that a worker lives."""
    looked_at: float = float("-inf")
    told_at: float = 0.0
    asked_at: float = 0.0


class Watch:
    """The pages of a folder of runs. Everything may be called from any thread."""

    def __init__(self, root: Path, *, look_s: float = LOOK_S) -> None:
        """Nothing is read before somebody asks."""
        self.source = Source(root, look_s=look_s / 2)
        self._look_s = look_s
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._viewers: Counter[Key] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._somebody = threading.Event()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None
        self.tell: Callable[[], None] = lambda: None
        """Called when a page has changed."""

    def start(self, *, wait_s: float = 0.0) -> None:
        """Begin to keep current what is looked at; wait as long as this for the first look, which takes longest."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
            self._thread.start()
        self._looked.wait(wait_s)

    def end(self) -> None:
        """Look no more, and wake who waits."""
        self._over.set()
        self._somebody.set()
        self.tell()

    def stop(self) -> None:
        """The same, and return when it is so."""
        self.end()
        if self._thread is not None:
            self._thread.join(timeout=2)

    @property
    def over(self) -> bool:
        """Whether it was stopped."""
        return self._over.is_set()

    @property
    def viewers(self) -> int:
        """Pages that are open and want to be told."""
        return self._viewers.total()

    @property
    def at_hand(self) -> int:
        """Pages in memory."""
        return len(self._kept)

    def page(self, kind: str, path: str = "") -> Page:
        """A page as it was at most two looks ago; made now where nobody has kept it. InputError where there is none."""
        if (ready := self.ready(kind, path)) is not None:
            return ready
        key = kind, path
        kept = self._at_hand(key)
        with kept.lock:
            if kept.page is None or not self._is_fresh(kept):
                self._look(key, kept)
            assert kept.page is not None
            return kept.page

    def ready(self, kind: str, path: str = "") -> Page | None:
        """The same, if nobody has to wait for it."""
        kept = self._at_hand((kind, path))
        kept.asked_at = time.monotonic()
        self._somebody.set()
        return kept.page if self._is_fresh(kept) else None

    def revision(self, kind: str, path: str = "") -> int:
        """How often the page has changed since it is kept; it grows."""
        return self._at_hand((kind, path)).revision

    def come(self, kind: str, path: str = "") -> None:
        """Somebody opens a page and wants to be told."""
        with self._lock:
            self._viewers[kind, path] += 1
        self._somebody.set()

    def leave(self, kind: str, path: str = "") -> None:
        """And closes it."""
        with self._lock:
            self._viewers[kind, path] -= 1
            self._viewers += Counter()  # drops those that nobody looks at

    def _at_hand(self, key: Key) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            for old in [old for old in self._kept if not self._viewers[old]][: max(0, len(self._kept) - MOST)]:
                if old != key:
                    del self._kept[old]
            return kept

    def _is_fresh(self, kept: _Kept) -> bool:
        return time.monotonic() - kept.looked_at <= 2 * self._look_s

    def _look(self, key: Key, kept: _Kept) -> bool:
        """Make the page anew; whether it says something else than before.

        What cannot be read any more is not shown any more: whoever asks hears why.
        """
        begun = time.monotonic()
        try:
            page = made(self.source.data(*key))
        except Exception:
            if kept.page is not None:
                kept.page = None
                kept.revision += 1
            raise
        finally:
            kept.looked_at = time.monotonic()
        kept.beats += _lives_on(page, begun - kept.told_at)
        page = replace(page, tag=f"{page.tag}-{kept.beats}")
        changed = kept.page is None or kept.page.tag != page.tag
        kept.page = page  # also where it says the same: its ages are those of now
        if changed:
            kept.revision += 1
            kept.told_at = time.monotonic()
        return changed

    def _watched(self) -> list[tuple[Key, _Kept]]:
        now = time.monotonic()
        with self._lock:
            return [
                (key, kept)
                for key, kept in self._kept.items()
                if self._viewers[key] or now - kept.asked_at < POLLED_S + self._look_s
            ]

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # whoever asks hears of it
            self.page("runs")
        self._looked.set()
        while not self._over.wait(self._look_s):
            watched = self._watched()
            if not watched:
                self._somebody.clear()
                self.source.forget()
                if not self._watched():
                    self._somebody.wait()
                continue
            changed = [self._look_again(key, kept) for key, kept in watched]
            if any(changed):
                self.tell()

    def _look_again(self, key: Key, kept: _Kept) -> bool:
        if self._over.is_set():
            return False
        with kept.lock:
            was_there = kept.page is not None
            try:
                return self._look(key, kept)
            except Exception as error:
                log.debug("Cannot look at %s: %s", key, error)
                return was_there


def _lives_on(page: Page, told_s: float) -> bool:
    """Whether a heartbeat came since anything was told, and that was long ago when we began to look."""
    return page.beat_age_s is not None and page.beat_age_s < told_s and told_s >= BEATS_S
