"""The lanes of the run page: what each module published when, which worker lived when, who waited, and how old was
what was used.

Deliberately not here: alarms (`alarms.py`), and drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modtrain.dashboard import thinning
from modtrain.history import History
from modtrain.run import Run
from modtrain.tail import number

MOST_VERSIONS = 2_000
"""Of each module, the newest ones."""

Values = dict[str, Any]


def lane(run: Run, module: str, history: History, state: str, beat: Mapping[str, Any]) -> Values:
    """One module along the time axis."""
    there = set(run.store(module).versions())
    published = history.versions(module)
    return {
        "module": module,
        "versions": [_version(line, there) for line in published[-MOST_VERSIONS:]],
        "lives": lives(history.doings(module), state, beat, [float(line["published_at"]) for line in published]),
        "waits": [_wait(line) for line in history.doings(module) if line["what"] == "waited"],
    }


def _version(line: Values, there: set[int]) -> Values:
    told = {name: line.get(name) for name in ("version", "epoch", "step", "full", "final")}
    peers = {peer: used["versions"] for peer, used in line["peers"].items()}
    loss = number(line["metrics"].get("loss"))
    return {**told, "at": line["published_at"], "kept": line["version"] in there, "loss": loss, "peers": peers}


def _wait(line: Values) -> Values:
    begun = line["at"] - (number(line.get("seconds")) or 0.0)
    return {"from": begun, "to": line["at"], "for": line.get("for")}


def lives(doings: list[Values], state: str, beat: Mapping[str, Any], signs: list[float]) -> list[Values]:
    """The workers of a module one after the other; one that died without a word ends with its last sign of life."""
    found: list[Values] = []
    for line in doings:
        if line["what"] == "began":
            _end_open(found, "lost", [*signs, *(d["at"] for d in doings)], line["at"])
            told = {name: line.get(name) for name in ("host", "job", "pid", "device")}
            found.append({"from": line["at"], "to": None, **told, "how": None})
        elif line["what"] == "left" and found and found[-1]["to"] is None:
            found[-1] |= {"to": line["at"], "how": line.get("state")}
    if state in ("lost", "finished", "failed", "stopped", "preempted"):
        beaten = number(beat.get("at"))
        _end_open(found, state, signs if beaten is None else [*signs, beaten], None)
    return found


def _end_open(found: list[Values], how: str, signs: list[float], before: float | None) -> None:
    if found and found[-1]["to"] is None:
        begun = found[-1]["from"]
        last = max((at for at in signs if at >= begun and (before is None or at < before)), default=begun)
        found[-1] |= {"to": last, "how": how}


def staleness(modules: list[str], history: History) -> list[Values]:
    """How many steps each module was ahead of the version of each peer that it used, at each publish."""
    step_of = {m: {line["version"]: line["step"] for line in history.versions(m)} for m in modules}
    points: dict[tuple[str, str], list[tuple[Values, int]]] = {}
    for module in modules:
        for line in history.versions(module):
            for peer, used in line["peers"].items():
                step = step_of.get(peer, {}).get(next(iter(used["versions"]), None))
                if step is not None:
                    points.setdefault((module, peer), []).append((line, line["step"] - step))
    return [_curve(module, peer, of) for (module, peer), of in points.items()]


def _curve(module: str, peer: str, points: list[tuple[Values, int]]) -> Values:
    kept = [points[index] for index in thinning.kept([behind for _, behind in points])]
    steps, times = [line["step"] for line, _ in kept], [line["published_at"] for line, _ in kept]
    return {"module": module, "peer": peer, "step": steps, "at": times, "behind": [behind for _, behind in kept]}
