"""The lanes of the run page: the versions, workers and waits of each module over time, and the staleness of peers."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from modtrain.dashboard import downsampling
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.json_lines import Line, number
from modtrain.storage.run_state import LIVE

MOST_VERSIONS = 2_000
"""Of each module, the newest ones."""
MOST_SPANS = 1_000
"""Of each module, the newest workers, and the newest waits."""

Values = dict[str, Any]


def lane(
    versions: Sequence[Checkpoint], present: Sequence[int], events: Sequence[Line], state: str, report: WorkerReport
) -> Values:
    """One module along the time axis; `present` are the versions on disk."""
    published = sorted(checkpoint.published_at for checkpoint in versions)
    return {
        "versions": [
            {name: getattr(checkpoint, name) for name in ("version", "epoch", "step", "full", "final")}
            | {"at": checkpoint.published_at, "loss": number(checkpoint.metrics.get("loss"))}
            | {"peers": {peer: used["versions"] for peer, used in checkpoint.peers.items()}}
            for checkpoint in versions[-MOST_VERSIONS:]
        ],
        "present": list(present[-MOST_VERSIONS:]),
        "workers": workers(events, state, report, published),
        "waits": waits(events, state, report, published),
    }


def waits(events: Sequence[Line], state: str, report: WorkerReport, published: Sequence[float]) -> list[Values]:
    """When the workers waited and for which peer; a wait that goes on has no end."""
    spans: list[Values] = [
        {"from": event["at"] - (number(event.get("seconds")) or 0.0), "to": event["at"], "for": event.get("for")}
        for event in events
        if event["what"] == "waited"
    ]
    at = report.at
    if report.state == "waiting" and at is not None:
        # A wait begins after a publish, or after the one for another peer; a worker that died in it wrote no line.
        times = [*published, *(event["at"] for event in events)]
        begin = max((time for time in times if time <= at), default=at)
        spans.append({"from": begin, "to": None if state == "waiting" else at, "for": report.waiting_for})
    return spans[-MOST_SPANS:]


def workers(events: Sequence[Line], state: str, report: WorkerReport, published: Sequence[float]) -> list[Values]:
    """The workers of a module, oldest first; one that died without a report ends with its last sign of life."""
    spans: list[Values] = []
    signs = sorted([*published, *(event["at"] for event in events)])
    for event in events:
        if event["what"] == "began":
            _end_last(spans, "lost", signs, event["at"])
            process = {name: event.get(name) for name in ("host", "job", "pid", "device")}
            spans.append({"from": event["at"], "to": None, **process, "end": None})
        elif event["what"] == "left" and spans and spans[-1]["to"] is None:
            spans[-1] |= {"to": event["at"], "end": event.get("state")}
    if state not in (*LIVE, "queued", "created"):
        signs = sorted(published if report.at is None else [*published, report.at])
        _end_last(spans, state, signs, float("inf"))
    return spans[-MOST_SPANS:]


def _end_last(spans: list[Values], end: str, signs: Sequence[float], before: float) -> None:
    """End the last span, if it has no end, at the last of the sorted signs before a time."""
    if spans and spans[-1]["to"] is None:
        begin, place = spans[-1]["from"], bisect.bisect_left(signs, before)
        spans[-1] |= {"to": max(begin, signs[place - 1]) if place else begin, "end": end}


def staleness(versions: Mapping[str, Sequence[Checkpoint]]) -> list[Values]:
    """How many steps each module was ahead of the version of each peer that it used, at each publish."""
    step_of = {module: {each.version: each.step for each in published} for module, published in versions.items()}
    points: dict[tuple[str, str], list[tuple[Checkpoint, int]]] = {}
    for module, published in versions.items():
        for checkpoint in without_retrained(published):
            for peer, used in checkpoint.peers.items():
                step = step_of.get(peer, {}).get(next(iter(used["versions"]), -1))
                if step is not None:
                    points.setdefault((module, peer), []).append((checkpoint, checkpoint.step - step))
    curves = []
    for (module, peer), of_pair in points.items():
        kept = [of_pair[index] for index in downsampling.kept([behind for _, behind in of_pair])]
        steps, times = [each.step for each, _ in kept], [each.published_at for each, _ in kept]
        behind = [behind for _, behind in kept]
        curves.append({"module": module, "peer": peer, "step": steps, "at": times, "behind": behind})
    return curves


def without_retrained(versions: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The versions without those whose steps were trained again after a restart."""
    kept: list[Checkpoint] = []
    for checkpoint in versions:
        while kept and kept[-1].step >= checkpoint.step:
            kept.pop()
        kept.append(checkpoint)
    return kept
