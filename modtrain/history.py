"""History: what a run's folder has told over time: curves, versions, what the workers did, and evaluations.

A reader that looks again and again: only what is new is read. Lines that are torn, foreign or lack what every reader
needs are left out. Deliberately not here: what it means (`alarms.py`), and how it is now (`status.py`).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modtrain.run import Run
from modtrain.tail import Tail, number

POSITION = ("step", "epoch", "at", "lr")
"""What stands in a line of `metrics.jsonl` beside its scalars."""

Line = dict[str, Any]


class History:
    """What a run has told so far, as of the last `look`. The lists belong to it: they are to be read, not changed."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet: `look` does."""
        paths = {module: run.module_path(module) for module in run.modules}
        self._curves = {m: _Kept(path / "metrics.jsonl", _is_point, _replace_from_step) for m, path in paths.items()}
        self._versions = {m: _Kept(path / "published.jsonl", _is_version, _by_version) for m, path in paths.items()}
        self._doings = {module: _Kept(path / "workers.jsonl", _is_doing) for module, path in paths.items()}
        self._evaluations = _Kept(run.path / "evaluation" / "metrics.jsonl", _is_evaluation)

    def look(self) -> bool:
        """Read what is new; True where anything changed."""
        files = [self._curves, self._versions, self._doings]
        changed = [kept.look() for by_module in files for kept in by_module.values()]
        for module, curve in self._curves.items():
            for doing in self.doings(module):
                if doing["what"] == "began" and _is_number(doing.get("step")):
                    _forget_retrained(curve.lines, doing["step"], doing["at"])
        return self._evaluations.look() or any(changed)

    def curve(self, module: str) -> list[Line]:
        """The lines of `metrics.jsonl`, steps ascending, without what was trained again after a restart."""
        return self._curves[module].lines

    def versions(self, module: str) -> list[Line]:
        """The lines of `published.jsonl`, versions ascending; of two of one version the later."""
        return self._versions[module].lines

    def doings(self, module: str) -> list[Line]:
        """The lines of `workers.jsonl`: who began, waited and left."""
        return self._doings[module].lines

    def evaluations(self) -> list[Line]:
        """Every evaluation, oldest first."""
        return self._evaluations.lines


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite scalars of a line of `metrics.jsonl`."""
    return {name: float(value) for name, value in line.items() if name not in POSITION and _is_number(value)}


def seconds(line: Mapping[str, Any]) -> dict[str, float]:
    """What the worker's seconds went into since the line of `metrics.jsonl` before; empty in lines of old runs."""
    spent = line.get("seconds")
    return {kind: float(s) for kind, s in spent.items() if _is_number(s)} if isinstance(spent, dict) else {}


def rows(run: Run, history: History) -> Iterator[Line]:
    """Everything that was measured, as the rows of one wide table: curves module by module, then the evaluations.

    Each has `module`, `step`, `epoch`, `at` (Unix time), `lr`, its scalars, and `seconds_compute` and so on. The module
    of an evaluation is `evaluation`; its step is that of the oldest checkpoint that was judged.
    """
    for module in run.modules:
        for line in history.curve(module):
            position = {name: line[name] if _is_number(line.get(name)) else None for name in POSITION}
            spent = {f"seconds_{kind}": value for kind, value in seconds(line).items()}
            yield {"module": module, **position, **scalars(line), **spent}
    steps = {module: {v["version"]: v["step"] for v in history.versions(module)} for module in run.modules}
    for line in history.evaluations():
        judged = [
            step for m, version in line["versions"].items() if (step := steps.get(m, {}).get(version)) is not None
        ]
        epochs = [epoch for epoch in line["epochs"].values() if _is_number(epoch)]
        position = {"step": min(judged, default=None), "epoch": min(epochs, default=None), "at": line["at"], "lr": None}
        yield {"module": "evaluation", **position, **scalars(line["metrics"])}


class _Kept:
    """The lines of a file that are sound, each put in its place once."""

    def __init__(
        self, path: Path, is_sound: Callable[[Line], bool], put: Callable[[list[Line], Line], None] = list.append
    ) -> None:
        self._tail, self._is_sound, self._put = Tail(path), is_sound, put
        self._source: list[Line] = self._tail.lines
        self._seen = 0
        self.lines: list[Line] = []

    def look(self) -> bool:
        if not self._tail.look():
            return False
        if self._source is not self._tail.lines:
            self._source, self._seen, self.lines = self._tail.lines, 0, []
        for line in self._source[self._seen :]:
            if self._is_sound(line):
                self._put(self.lines, line)
        self._seen = len(self._source)
        return True


def _replace_from_step(lines: list[Line], line: Line) -> None:
    while lines and lines[-1]["step"] >= line["step"]:
        lines.pop()
    lines.append(line)


def _forget_retrained(lines: list[Line], step: int, at: float) -> None:
    """Who goes on from a step trains anew what an earlier life had done behind it."""
    first = last = bisect.bisect_right(lines, step, key=lambda line: line["step"])
    while last < len(lines) and lines[last]["at"] < at:
        last += 1
    del lines[first:last]


def _by_version(lines: list[Line], line: Line) -> None:
    """A successor writes the lines that its predecessor could not: they may come late, and twice."""
    place = bisect.bisect_left(lines, line["version"], key=lambda other: other["version"])
    lines[place : place + (place < len(lines) and lines[place]["version"] == line["version"])] = [line]


def _is_point(line: Line) -> bool:
    return _is_number(line.get("step")) and _is_number(line.get("epoch")) and _is_number(line.get("at"))


def _is_version(line: Line) -> bool:
    numbers = all(_is_number(line.get(name)) for name in ("version", "epoch", "step", "published_at"))
    peers, metrics, files = line.get("peers"), line.get("metrics"), line.get("files")
    if not (numbers and isinstance(peers, dict) and isinstance(metrics, dict) and isinstance(files, dict)):
        return False
    return all(_is_peer(peer) for peer in peers.values())


def _is_peer(peer: Any) -> bool:
    if not isinstance(peer, dict) or not _is_number(peer.get("epoch")) or not isinstance(peer.get("versions"), list):
        return False
    return all(_is_number(version) for version in peer["versions"])


def _is_doing(line: Line) -> bool:
    return isinstance(line.get("what"), str) and _is_number(line.get("at"))


def _is_evaluation(line: Line) -> bool:
    return _is_number(line.get("at")) and all(isinstance(line.get(n), dict) for n in ("versions", "epochs", "metrics"))


def _is_number(value: Any) -> bool:
    return number(value) is not None
