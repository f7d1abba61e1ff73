"""History: what a run's folder has told over time: curves, versions, what the workers did, and evaluations.

A reader that looks again and again: only what is new is read. Lines that are torn, foreign or lack what every reader
needs are left out. Deliberately not here: what it means (`alarms.py`), and how it is now (`status.py`).
"""

from __future__ import annotations

import abc
import bisect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modtrain.storage.curves import Columns, Line, scalars
from modtrain.storage.json_lines import Growing, number, objects
from modtrain.storage.run import Run

FIRST, LAST = 30, 300
"""Lines at both ends of a curve that are judged: where it began, and ten windows of an alarm."""


class History:
    """What a run has told so far, as of the last `look`. The lists belong to it: they are to be read, not changed."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet: `look` does."""
        paths = {module: run.module_path(module) for module in run.modules}
        self._curves = {module: _Curve(path / "metrics.jsonl") for module, path in paths.items()}
        self._versions = {m: _Kept(path / "published.jsonl", _is_version, _by_version) for m, path in paths.items()}
        self._doings = {module: _Kept(path / "workers.jsonl", _is_doing) for module, path in paths.items()}
        self._evaluations = _Kept(run.path / "evaluation" / "metrics.jsonl", _is_evaluation, _by_what_was_judged)

    def look(self) -> bool:
        """Read what is new; True where a file is another one than at the look before."""
        files = (self._curves, self._versions, self._doings)
        changed = [file.look() for by_module in files for file in by_module.values()]
        return self._evaluations.look() or any(changed)

    def curve(self, module: str) -> Columns:
        """What `metrics.jsonl` says, steps ascending, without what was trained again after a restart."""
        return self._curves[module].columns

    def losses(self, module: str) -> list[float]:
        """The first losses of a curve and the newest, which is what an alarm judges."""
        curve = self.curve(module)
        return curve.losses(0, min(FIRST, len(curve) - LAST)) + curve.losses(len(curve) - LAST, len(curve))

    def versions(self, module: str) -> list[Line]:
        """The lines of `published.jsonl`, versions ascending; of two of one version the later."""
        return self._versions[module].lines

    def doings(self, module: str) -> list[Line]:
        """The lines of `workers.jsonl`: who began, waited and left."""
        return self._doings[module].lines

    def evaluations(self) -> list[Line]:
        """Every evaluation, oldest first; one of the very same versions takes the place of the one before."""
        return self._evaluations.lines


def rows(run: Run, history: History) -> Iterator[Line]:
    """Everything that was measured, as the rows of one wide table: curves module by module, then the evaluations.

    Each has `module`, `step`, `epoch`, `at` (Unix time), `lr`, its scalars, and `seconds_compute` and so on. The module
    of an evaluation is `evaluation`; its step is that of the oldest checkpoint that was judged.
    """
    for module in run.modules:
        yield from ({"module": module, **row} for row in history.curve(module).rows())
    yield from ({"module": "evaluation", "lr": None, **row} for row in evaluated(run, history))


def evaluated(run: Run, history: History) -> Iterator[Line]:
    """Every evaluation as a row: step and epoch of the oldest checkpoint that was judged, the time, the metrics."""
    steps = {module: {v["version"]: v["step"] for v in history.versions(module)} for module in run.modules}
    for line in history.evaluations():
        judged = [
            step for m, version in line["versions"].items() if (step := steps.get(m, {}).get(version)) is not None
        ]
        epochs = [epoch for epoch in line["epochs"].values() if _is_number(epoch)]
        position = {"step": min(judged, default=None), "epoch": min(epochs, default=None), "at": line["at"]}
        yield {**position, **scalars(line["metrics"])}


class _Read:
    """A file of lines that are JSON objects, each taken once."""

    def __init__(self, path: Path) -> None:
        self._growing = Growing(path)
        self._begin()

    def look(self) -> bool:
        changed, anew = self._growing.look()
        if anew:
            self._begin()
        while changed and (lines := self._growing.more()) is not None:
            for line in objects(lines):
                self._take(line)
        return changed

    @abc.abstractmethod
    def _begin(self) -> None: ...

    @abc.abstractmethod
    def _take(self, line: Line) -> None: ...


class _Curve(_Read):
    """A training curve, of which only the numbers stay in memory."""

    def _begin(self) -> None:
        self.columns = Columns()

    def _take(self, line: Line) -> None:
        self.columns.add(line)


class _Kept(_Read):
    """The lines of a file that are sound, each put in its place."""

    def __init__(
        self, path: Path, is_sound: Callable[[Line], bool], put: Callable[[list[Line], Line], None] = list.append
    ) -> None:
        super().__init__(path)
        self._is_sound, self._put = is_sound, put

    def _begin(self) -> None:
        self.lines: list[Line] = []

    def _take(self, line: Line) -> None:
        if self._is_sound(line):
            self._put(self.lines, line)


def _by_version(lines: list[Line], line: Line) -> None:
    """A successor writes the lines that its predecessor could not: they may come late, and twice."""
    place = bisect.bisect_left(lines, line["version"], key=lambda other: other["version"])
    lines[place : place + (place < len(lines) and lines[place]["version"] == line["version"])] = [line]


def _by_what_was_judged(lines: list[Line], line: Line) -> None:
    if lines and all(lines[-1].get(name) == line.get(name) for name in ("versions", "grid")):
        lines.pop()
    lines.append(line)


def _is_version(line: Line) -> bool:
    numbers = all(_is_number(line.get(name)) for name in ("version", "epoch", "step", "published_at"))
    texts = all(isinstance(line.get(name), str) for name in ("module", "writer"))
    flags = all(isinstance(line.get(name), bool) for name in ("full", "final"))
    peers, metrics, files = line.get("peers"), line.get("metrics"), line.get("files")
    if not (numbers and texts and flags and all(isinstance(each, dict) for each in (peers, metrics, files))):
        return False
    assert isinstance(peers, dict)
    return all(_is_peer(peer) for peer in peers.values())


def _is_peer(peer: Any) -> bool:
    if not isinstance(peer, dict) or not _is_number(peer.get("epoch")) or not isinstance(peer.get("versions"), list):
        return False
    return all(_is_number(version) for version in peer["versions"])


def _is_doing(line: Line) -> bool:
    return isinstance(line.get("what"), str) and _is_number(line.get("at"))


def _is_evaluation(line: Line) -> bool:
    if not _is_number(line.get("at")) or not all(
        isinstance(line.get(n), dict) for n in ("versions", "epochs", "metrics")
    ):
        return False
    return all(_is_number(version) for version in line["versions"].values())


def _is_number(value: Any) -> bool:
    return number(value) is not None
