"""Two and more writers of one module, held, stopped and set against each other; and a reader that follows them.

Each scenario yields what was done and what held afterwards. Not here: storage that fails (`publishing.py`).
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import ItemsView, Iterator
from pathlib import Path
from typing import Any

from modtrain.errors import FencedOut
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher
from tests.support.store_faults import tracer
from tests.support.store_faults.checks import PUBLISHED, files, problems, publish

TURN = 5
"""Versions that a writer publishes in a race before it takes over again."""


def pause(path: Path, stride: int) -> Iterator[dict[str, Any]]:
    """An old writer is held before every `stride`-th call while its successor publishes five versions and prunes."""
    place, hit = 1, True
    while hit:
        shutil.rmtree(path, ignore_errors=True)
        store = CheckpointStore(path)
        old = Publisher(store, "old", keep=1, grace_s=0)
        publish(old)
        successors: list[Publisher] = []

        def fault(n: int, call: str) -> None:
            if n == place:  # noqa: B023
                successors.append(Publisher(store, "successor", keep=1, grace_s=0))  # noqa: B023
                publish(successors[0], 5)  # noqa: B023

        outcome = tracer.run(lambda: publish(old, 2), fault)  # noqa: B023
        hit = bool(successors)
        if hit:
            newest = store.read_newest(WEIGHTS)[0][0]
            yield {
                "call": outcome.calls[place - 1],
                "ended": outcome.exit_code,
                "newest_is_successors": (newest.version, newest.writer) == (successors[0].last, "successor"),
                "went_on": publish(successors[0]) == PUBLISHED,
                "by_old": [checkpoint.version for checkpoint in store.history() if checkpoint.writer == "old"],
                "seen": [store.verify(version).writer for version in store.versions()],
                "problems": problems(store),
            }
        place += stride


def cleaning(path: Path, stride: int) -> Iterator[dict[str, Any]]:
    """A publish is half way and goes on while a cleaner of temporaries is held before every `stride`-th call."""
    place, hit = 1, True
    while hit:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        cleaner = _Cleaner(path, place)
        try:
            filesystem.publish_folder(path, "published", _Halfway(files(0), cleaner))
            published = True
        except OSError:
            published = False
        hit = cleaner.finish() is not None
        filesystem.remove_temporaries(path)
        there = {entry: len(os.listdir(path / entry)) for entry in filesystem.names(path)}
        yield {"call": cleaner.finish(), "published": published, "there": there}
        place += stride


class _Cleaner:
    """Removes the temporaries of a folder in another process, which is held before one of its calls."""

    def __init__(self, path: Path, place: int) -> None:
        self._path, self._place, self._held = path, place, None
        self._reached, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def hold(self) -> None:
        """Start, and return when it is held, or has finished."""
        self._thread.start()
        self._reached.wait()

    def finish(self) -> str | None:
        """Let it go on; the call before which it was held."""
        self._go_on.set()
        self._thread.join()
        return self._held

    def _run(self) -> None:
        tracer.run(lambda: filesystem.remove_temporaries(self._path) or 0, self._fault)
        self._reached.set()

    def _fault(self, n: int, call: str) -> None:
        if n == self._place:
            self._held = call
            self._reached.set()
            self._go_on.wait()


class _Halfway(dict[str, bytes]):
    """Files of which all but the last are written when the cleaner comes."""

    def __init__(self, content: dict[str, bytes], cleaner: _Cleaner) -> None:
        super().__init__(content)
        self._cleaner = cleaner

    def items(self) -> ItemsView[str, bytes]:
        *most, last = super().items()
        yield from most
        self._cleaner.hold()
        yield last


def race(path: Path, writer: str, seconds: float, rivals: int = 1) -> Iterator[dict[str, Any]]:
    """Publish as fast as possible once all rivals are ready; whenever fenced out, take over again.

    After some versions a writer takes over from itself, as slow as the others, of which one might never win otherwise.
    """
    (path.parent / f"ready-{writer}").touch()
    filesystem.wait_until(lambda: len(list(path.parent.glob("ready-*"))) >= rivals or None, timeout_s=60)
    store, deadline = CheckpointStore(path), time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            publisher = Publisher(store, writer, keep=3, grace_s=0)
            end = publisher.last + TURN
            while publisher.last < end and time.monotonic() < deadline:
                checkpoint = publisher.publish(files(publisher.last + 1), epoch=0, step=publisher.last + 1)
                yield {"published": checkpoint.version, "writer": writer, "seal": checkpoint.seal().decode()}
        except FencedOut as error:
            yield {"fenced": str(error)}
        except OSError as error:
            yield {"refused": str(error)}


def obey(path: Path, writer: str) -> Iterator[dict[str, Any]]:
    """Publish once for every line on the standard input, until fenced out."""
    publisher = Publisher(CheckpointStore(path), writer, keep=1, grace_s=0)
    yield {"ready": os.getpid()}
    while os.read(0, 1):
        try:
            version = publisher.last + 1
            yield {"published": publisher.publish(files(version), epoch=0, step=version).version}
        except FencedOut as error:
            yield {"fenced": str(error)}
            return


def follow(path: Path) -> Iterator[dict[str, Any]]:
    """Read what is newer, as a peer does, until the final version has been seen; any exception ends it."""
    store, above, final = CheckpointStore(path), -1, False
    while not final:
        for checkpoint, content in reversed(store.read_newest(WEIGHTS, count=2, above=above)):
            above, final = checkpoint.version, checkpoint.final
            yield {"version": above, "right": content == files(checkpoint.step)[WEIGHTS]}
        latest = store.latest()
        if above >= 0 and (latest is None or latest.version < above):
            yield {"went back to": str(latest), "above": above}
