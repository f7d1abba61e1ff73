"""Publishes of one worker and reads of one reader, with a fault at each system call.

Each scenario yields the fault and the state afterwards. Two writers at once are in `rivals.py`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher
from tests.support.store_faults import tracer
from tests.support.store_faults.checks import files, problems, publish

BROKEN = frozenset({"mkdir", "mkdirat", "openat", "write", "fsync", "close", *("rename", "renameat", "renameat2")})
"""Calls of a publish that can fail with an error of storage."""
RENAMING = frozenset({"rename", "renameat", "renameat2"})
READING = frozenset({"openat", "read", "close", "fstat", "newfstatat", "getdents64"})


def first(path: Path) -> Callable[[], int]:
    """A worker's first publish into nothing."""
    shutil.rmtree(path, ignore_errors=True)
    return lambda: publish(Publisher(CheckpointStore(path), "first"), 1)


def steady(path: Path) -> Callable[[], int]:
    """A worker takes over, publishes twice and prunes."""
    if not path.exists():
        publish(Publisher(CheckpointStore(path), "before", keep=1, grace_s=0), 2)
    return lambda: publish(Publisher(CheckpointStore(path), "steady", keep=1, grace_s=0), 2)


def mending(path: Path) -> Callable[[], int]:
    """A worker takes over from one that was killed while it published."""
    shutil.rmtree(path, ignore_errors=True)
    store = CheckpointStore(path)
    for version in range(3):
        Publisher(store, "old").publish(files(version), epoch=version, step=version)
    log = path / "published.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    for leftover in ("one", "two"):
        folder = store.checkpoints / f"{filesystem.TEMPORARY}{leftover}"
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(b"half")
    (path / f"{filesystem.TEMPORARY}beat").write_bytes(b"{")
    return lambda: publish(Publisher(store, "mending", keep=1, grace_s=0), 1)


def large(path: Path) -> Callable[[], int]:
    """A worker publishes megabytes, and many small files."""
    many = {f"shard{number:02d}": bytes(100) for number in range(12)} | files(3, 3_000_000)
    shutil.rmtree(path, ignore_errors=True)
    return lambda: publish(Publisher(CheckpointStore(path), "large"), 1, many)


SHAPES = {"first": first, "steady": steady, "mending": mending, "large": large}


def kill(path: Path, shape: str, stride: int = 1, only: str = "") -> Iterator[dict[str, Any]]:
    """SIGKILL before and after every `stride`-th system call (or of some kinds) until the work has fewer calls."""
    kinds, place = only.split(), 1
    while True:
        if place % 50 == 0:
            shutil.rmtree(path, ignore_errors=True)
        for when in tracer.Kill:
            outcome = tracer.run(SHAPES[shape](path), _at(place, kinds, when))
            if outcome.hit in {None, tracer.EXIT}:
                return
            killed = outcome.signal == signal.SIGKILL
            state = {"killed": killed, "problems": problems(CheckpointStore(path))}
            yield {"place": place, "when": when.value, "call": outcome.hit, **state}
        place += stride


def _at(place: int, kinds: list[str], fault: tracer.Kill) -> Callable[[int, str], tracer.Kill | None]:
    seen = 0

    def decide(n: int, name: str) -> tracer.Kill | None:
        nonlocal seen
        seen += not kinds or name in kinds
        return fault if seen == place and (not kinds or name in kinds) else None

    return decide


def errors(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """One failing call in a publish, each in turn, with each of the errors."""
    for name in names:
        number, place, hit = getattr(errno, name), 0, True
        while hit:
            place += 1
            outcome, state = _publish_with(path, number, place)
            hit = outcome.hit is not None
            if hit:
                yield {"error": name, "call": outcome.hit, **state}


def _publish_with(path: Path, number: int, place: int) -> tuple[tracer.Outcome, dict[str, Any]]:
    shutil.rmtree(path, ignore_errors=True)
    store = CheckpointStore(path)
    publisher = Publisher(store, "worker", keep=1, grace_s=0)
    publish(publisher)
    report = path.parent / "state.json"

    def child() -> int:
        returned = publish(publisher)
        os.getppid()  # no faults from here on
        state = {
            "returned": returned,
            "versions": store.versions(),
            "left": [entry for entry in filesystem.names(store.checkpoints) if entry.startswith(filesystem.TEMPORARY)],
            "read": [checkpoint.version for checkpoint, _ in store.read_newest(WEIGHTS)],
            "next": publish(publisher),
        }
        report.write_text(json.dumps(state))
        return 0

    outcome = tracer.run(child, _fail(BROKEN, number, place))
    if outcome.exit_code != 0:
        raise AssertionError(f"{errno.errorcode[number]} in {outcome.hit} killed the worker.")
    return outcome, {**json.loads(report.read_text()), "problems": problems(store)}


def lost(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """The rename of a publish succeeds but returns an error, as on NFS."""
    for name in names:
        shutil.rmtree(path, ignore_errors=True)
        store = CheckpointStore(path)
        publisher = Publisher(store, "worker", keep=1, grace_s=0)
        fault = tracer.Lost(getattr(errno, name))
        outcome = tracer.run(lambda: publish(publisher, 2), lambda n, call: fault if call in RENAMING else None)  # noqa: B023
        yield {"error": name, "call": outcome.hit, "ended": outcome.exit_code, "problems": problems(store)}


def reading(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """One failing call in a read, each in turn, with each of the errors."""
    store = CheckpointStore(path)
    publish(Publisher(store, "worker"), 3)
    report = path.parent / "read.json"

    def child() -> int:
        read = [checkpoint.version for checkpoint, _ in store.read_newest(WEIGHTS, count=2)]
        os.getppid()
        report.write_text(json.dumps(read))
        return 0

    for name in names:
        place, hit = 0, True
        while hit:
            place += 1
            outcome = tracer.run(child, _fail(READING, getattr(errno, name), place))
            hit = outcome.hit is not None
            if hit:
                read = json.loads(report.read_text()) if outcome.exit_code == 0 else None
                yield {"error": name, "call": outcome.hit, "read": read}


def _fail(calls: frozenset[str], number: int, place: int) -> Callable[[int, str], int | None]:
    """Let the call number `place` of some kinds fail, up to the child's call of `getppid`."""
    seen, over = 0, False

    def fault(n: int, name: str) -> int | None:
        nonlocal seen, over
        over = over or name == "getppid"
        seen += name in calls
        return number if name in calls and seen == place and not over else None

    return fault
