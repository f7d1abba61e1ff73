"""Dialogue: two processes, or two nodes, that talk by publishing in one folder: what they see of each other, and when.

Each side measures with its own monotonic clock. Deliberately not here: what that means for training (`doctor.py`).
"""

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
PREFIX = ".modtrain-doctor-"
MEETING = f"{PREFIX}peer-"
"""Begins the name of the folder by which a node looks for another one."""


@dataclass(frozen=True)
class Dialogue:
    """One of two sides, 0 and 1, that publish to each other in a folder; it is listed, no name is polled."""

    folder: Path
    side: int
    timeout_s: float

    def say(self, word: str, content: object = None) -> None:
        """Publish something under a name that is used once."""
        filesystem.publish_folder(self.folder, f"{word}.{self.side}", {"said": json.dumps(content).encode()})

    def hear(self, word: str) -> Any:
        """Wait for what the other side says; TimeoutError."""
        name = f"{word}.{1 - self.side}"

        def said() -> bool | None:
            return name in filesystem.names(self.folder) or None

        if not filesystem.wait_until(said, timeout_s=self.timeout_s, longest_pause_s=0.02):
            raise TimeoutError(f"the other side was not seen to publish for {self.timeout_s:.0f} s")
        return json.loads(filesystem.read_file(self.folder / name / "said"))


@dataclass(frozen=True, kw_only=True)
class Encounter:
    """What one side found out about itself and the other."""

    delay_s: float
    """Half a round trip, publishing included; the median."""
    doubled: int
    """How many of the names that both raced for went to both: none, where renaming is exclusive."""


def converse(talk: Dialogue) -> Encounter:
    """Ask and answer in turn, then race for names. Both sides call this."""
    delays = [delay for turn in range(TURNS) if (delay := _turn(talk, turn)) is not None]
    won = _race(talk)
    talk.say("won", won)
    theirs = talk.hear("won")
    for number in won:  # whoever lost a name may have it cached as missing, and could not remove it
        filesystem.remove_folder(_raced_for(talk, number))
    return Encounter(delay_s=statistics.median(delays), doubled=len(set(won) & set(theirs)))


@contextlib.contextmanager
def other_process(talk: Dialogue) -> Iterator[None]:
    """Another process of this machine as the other side."""
    other = Dialogue(talk.folder, 1 - talk.side, talk.timeout_s)
    process = multiprocessing.get_context("spawn").Process(target=_answer, args=(other,), daemon=True)
    process.start()
    try:
        yield
        process.join(talk.timeout_s)
    finally:
        process.kill()
        process.join()


def meet(own: Path, timeout_s: float) -> Dialogue | None:
    """Find another node that has a folder beside `own` and looks for one too; None where nobody comes in time.

    Everybody leaves a greeting in every other's folder; whoever has left one in ours is alive. The two then talk in
    the folder whose name comes first: side 0 owns it.
    """
    other = filesystem.wait_until(lambda: _greet(own), timeout_s=timeout_s)
    if other is None:
        return None
    folder = min(own, other) / "peers"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    return Dialogue(folder, int(other < own), timeout_s)


def _greet(own: Path) -> Path | None:
    others = [name for name in filesystem.names(own.parent) if name.startswith(MEETING) and name != own.name]
    for name in others:
        with contextlib.suppress(OSError):
            (own.parent / name / f"hello{own.name}").mkdir()
    greeted = filesystem.names(own)
    return next((own.parent / name for name in others if f"hello{name}" in greeted), None)


def _answer(talk: Dialogue) -> None:
    """What goes wrong on this side is seen, and said, by the first."""
    with contextlib.suppress(OSError):
        converse(talk)


def _turn(talk: Dialogue, turn: int) -> float | None:
    if turn % 2 != talk.side:
        talk.hear(f"ping{turn}")
        talk.say(f"pong{turn}")
        return None
    started = time.monotonic()
    talk.say(f"ping{turn}")
    talk.hear(f"pong{turn}")
    return (time.monotonic() - started) / 2


def _race(talk: Dialogue) -> list[int]:
    """Take the next free number, as publishers do, while the other side does the same; the numbers that were won."""
    won, number = [], 0
    while number < RACES:
        try:
            filesystem.publish_folder(talk.folder, _raced_for(talk, number).name, {"said": str(talk.side).encode()})
            won.append(number)
        except FileExistsError:
            pass
        taken = [int(name[4:]) for name in filesystem.names(talk.folder) if name.startswith("race")]
        number = max(number, *taken) + 1
    return won


def _raced_for(talk: Dialogue, number: int) -> Path:
    return talk.folder / f"race{number:03d}"
