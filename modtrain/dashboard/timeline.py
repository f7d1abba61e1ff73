"""The lanes of the run page: what each module published when, which worker lived when, who waited, and how old was
what was used.

Deliberately not here: alarms (`alarms.py`), and drawing.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from modtrain.dashboard import downsampling
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.history import History
from modtrain.storage.json_lines import number
from modtrain.storage.run import Run
from modtrain.storage.run_state import LIVE
from modtrain.storage.worker_report import WorkerReport

MOST_VERSIONS = 2_000
"""Of each module, the newest ones."""
MOST_DOINGS = 1_000
"""The same, of its workers' lives, and of their waits."""

Values = dict[str, Any]


def lane(run: Run, module: str, history: History, state: str, report: WorkerReport) -> Values:
    """One module along the time axis; `heard_at` is when a worker that is over spoke last, by its own clock."""
    there = set(run.store(module).versions())
    published = history.versions(module)
    signs = sorted(checkpoint.published_at for checkpoint in published)
    return {
        "module": module,
        "versions": [_version(line, there) for line in published[-MOST_VERSIONS:]],
        "lives": lives(history.events(module), state, report, signs),
        "waits": waits(history.events(module), state, report, signs),
        "heard_at": None if state in LIVE else report.at,
    }


def _version(checkpoint: Checkpoint, present: set[int]) -> Values:
    values = {name: getattr(checkpoint, name) for name in ("version", "epoch", "step", "full", "final")}
    peers = {peer: used["versions"] for peer, used in checkpoint.peers.items()}
    loss, kept = number(checkpoint.metrics.get("loss")), checkpoint.version in present
    return {**values, "at": checkpoint.published_at, "kept": kept, "loss": loss, "peers": peers}


def waits(doings: Sequence[Values], state: str, report: WorkerReport, published: list[float]) -> list[Values]:
    """For whom the workers waited, and when; one that waits still has no end yet."""
    found = [_wait(line) for line in doings if line["what"] == "waited"]
    at = report.at
    if report.state == "waiting" and at is not None:
        # A wait begins after a publish, or after the one for another peer; a worker that died in it wrote no line.
        begun = max((sign for sign in [*published, *(line["at"] for line in doings)] if sign <= at), default=at)
        found.append({"from": begun, "to": None if state == "waiting" else at, "for": report.waiting_for})
    return found[-MOST_DOINGS:]


def _wait(line: Values) -> Values:
    begun = line["at"] - (number(line.get("seconds")) or 0.0)
    return {"from": begun, "to": line["at"], "for": line.get("for")}


def lives(doings: Sequence[Values], state: str, report: WorkerReport, published: list[float]) -> list[Values]:
    """The workers of a module one after the other; one that died without a word ends with its last sign of life."""
    found: list[Values] = []
    signs = sorted([*published, *(line["at"] for line in doings)])
    for line in doings:
        if line["what"] == "began":
            _end_open(found, "lost", signs, line["at"])
            told = {name: line.get(name) for name in ("host", "job", "pid", "device")}
            found.append({"from": line["at"], "to": None, **told, "how": None})
        elif line["what"] == "left" and found and found[-1]["to"] is None:
            found[-1] |= {"to": line["at"], "how": line.get("state")}
    if state not in (*LIVE, "queued", "created"):
        beaten = report.at
        _end_open(found, state, published if beaten is None else sorted([*published, beaten]), float("inf"))
    return found[-MOST_DOINGS:]


def _end_open(found: list[Values], how: str, signs: list[float], before: float) -> None:
    """`signs` are sorted."""
    if found and found[-1]["to"] is None:
        begun, place = found[-1]["from"], bisect.bisect_left(signs, before)
        found[-1] |= {"to": max(begun, signs[place - 1]) if place else begun, "how": how}


def staleness(modules: list[str], history: History) -> list[Values]:
    """How many steps each module was ahead of the version of each peer that it used, at each publish."""
    step_of = {m: {version.version: version.step for version in history.versions(m)} for m in modules}
    points: dict[tuple[str, str], list[tuple[Checkpoint, int]]] = {}
    for module in modules:
        for line in without_retrained(history.versions(module)):
            for peer, used in line.peers.items():
                step = step_of.get(peer, {}).get(next(iter(used["versions"]), -1))
                if step is not None:
                    points.setdefault((module, peer), []).append((line, line.step - step))
    return [_curve(module, peer, of) for (module, peer), of in points.items()]


def without_retrained(versions: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Without those that a restart went back behind: a later version has reached their step again."""
    found: list[Checkpoint] = []
    for line in versions:
        while found and found[-1].step >= line.step:
            found.pop()
        found.append(line)
    return found


def _curve(module: str, peer: str, points: list[tuple[Checkpoint, int]]) -> Values:
    kept = [points[index] for index in downsampling.kept([behind for _, behind in points])]
    steps, times = [line.step for line, _ in kept], [line.published_at for line, _ in kept]
    return {"module": module, "peer": peer, "step": steps, "at": times, "behind": [behind for _, behind in kept]}
