"""Handshake: two processes or nodes that publish to each other in one folder, each with its own monotonic clock."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modtrain.storage import filesystem

RACES, TURNS = 40, 10
CONTENT = "content"
"""The file in each published folder."""
PREFIX = ".modtrain-doctor-"
MEETING = f"{PREFIX}peer-"
"""Prefix of the folder by which a node looks for another one."""


@dataclass(frozen=True)
class Handshake:
    """One of two sides, 0 and 1, that publish to each other in a folder. The folder is listed; no name is polled."""

    folder: Path
    side: int
    timeout_s: float

    def publish(self, name: str, content: object = None) -> None:
        """Publish a JSON value under a name that is used once."""
        filesystem.publish_folder(self.folder, f"{name}.{self.side}", {CONTENT: json.dumps(content).encode()})

    def wait(self, name: str) -> Any:
        """Wait for the value that the other side publishes under this name; TimeoutError."""
        folder = f"{name}.{1 - self.side}"

        def is_published() -> bool | None:
            return folder in filesystem.names(self.folder) or None

        if not filesystem.wait_until(is_published, timeout_s=self.timeout_s, longest_pause_s=0.02):
            raise TimeoutError(f"the other side was not seen to publish for {self.timeout_s:.0f} s")
        return json.loads(filesystem.read_file(self.folder / folder / CONTENT))


def probe(handshake: Handshake) -> tuple[float, int]:
    """Ping and answer in turns, then race for names. Both sides call this; TimeoutError.

    Returns the median of half a round trip in seconds, publishing included, and how many names both sides got in the
    race: none where renaming is exclusive.
    """
    delays = [delay for turn in range(TURNS) if (delay := _turn(handshake, turn)) is not None]
    won = _race(handshake)
    handshake.publish("won", won)
    others = handshake.wait("won")
    for number in won:  # the other side may have the name cached as missing, and could not remove it
        filesystem.remove_folder(_race_folder(handshake, number))
    return statistics.median(delays), len(set(won) & set(others))


@contextlib.contextmanager
def other_process(handshake: Handshake) -> Iterator[None]:
    """Another process of this machine as the other side."""
    other = Handshake(handshake.folder, 1 - handshake.side, handshake.timeout_s)
    process = multiprocessing.get_context("spawn").Process(target=_answer, args=(other,), daemon=True)
    process.start()
    try:
        yield
        process.join(handshake.timeout_s)
    finally:
        process.kill()
        process.join()


def find_peer(own: Path, timeout_s: float) -> Handshake | None:
    """Find another node with a folder beside `own` that also looks for one; None where there is none in time.

    Each node leaves a greeting in every other folder; a folder that greeted `own` has a live node. The handshake takes
    place in the folder whose name comes first: side 0 owns it.
    """
    other = filesystem.wait_until(lambda: _greet(own), timeout_s=timeout_s)
    if other is None:
        return None
    folder = min(own, other) / "peers"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    return Handshake(folder, int(other < own), timeout_s)


def _greet(own: Path) -> Path | None:
    others = [name for name in filesystem.names(own.parent) if name.startswith(MEETING) and name != own.name]
    for name in others:
        with contextlib.suppress(OSError):
            (own.parent / name / f"hello{own.name}").mkdir()
    greeted = filesystem.names(own)
    return next((own.parent / name for name in others if f"hello{name}" in greeted), None)


def _answer(handshake: Handshake) -> None:
    """An error on this side is seen and reported by the first."""
    with contextlib.suppress(OSError):
        probe(handshake)


def _turn(handshake: Handshake, turn: int) -> float | None:
    if turn % 2 != handshake.side:
        handshake.wait(f"ping{turn}")
        handshake.publish(f"pong{turn}")
        return None
    started = time.monotonic()
    handshake.publish(f"ping{turn}")
    handshake.wait(f"pong{turn}")
    return (time.monotonic() - started) / 2


def _race(handshake: Handshake) -> list[int]:
    """Take the next free number, as publishers do, while the other side does the same; the numbers won."""
    won, number = [], 0
    while number < RACES:
        try:
            filesystem.publish_folder(handshake.folder, _race_folder(handshake, number).name, {CONTENT: b""})
            won.append(number)
        except FileExistsError:
            pass
        taken = [int(name[4:]) for name in filesystem.names(handshake.folder) if name.startswith("race")]
        number = max(number, *taken) + 1
    return won


def _race_folder(handshake: Handshake, number: int) -> Path:
    return handshake.folder / f"race{number:03d}"
