"""The lanes of the run page: the versions, workers and waits of each module over time; its stages, and staleness."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modtrain.dashboard.downsampling import Stretches
from modtrain.dashboard.thinning import Published, thinned
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.json_lines import Line, number
from modtrain.storage.run import RunSpec
from modtrain.storage.run_state import LIVE

MOST_SPANS = 1_000
"""Of each module, the newest workers and the longest waits."""

MOST_STALENESS = 200
"""Points of the staleness of a module against a peer."""

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A part of the time axis (Unix times)."""

    begin: float
    end: float

    def has(self, span: Values) -> bool:
        """Whether any of a span lies in it."""
        return bool(span["from"] <= self.end and (span["to"] is None or span["to"] >= self.begin))


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What is drawn of one module along the time axis."""

    versions: Sequence[Checkpoint]
    present: Sequence[int]
    """The versions on disk."""
    events: Sequence[Line]
    stages: Sequence[Values]
    """Those that its worker has entered, each with its name and the time."""
    state: str
    report: WorkerReport


def build_lanes(lanes: Mapping[str, Lane], within: Range | None = None) -> list[Values]:
    """The lanes as plain values: of all time, or within a range.

    Where there are more than a page can hold, they are thinned; `count` has how many versions, workers and waits there
    are.
    """
    spans = {name: _spans(lane, within) for name, lane in lanes.items()}
    published = {
        name: Published(
            versions=[v for v in lane.versions if within is None or within.begin <= v.published_at <= within.end],
            deaths=[each["to"] for each in spans[name]["workers"] if each["end"] in ("lost", "failed")],
        )
        for name, lane in lanes.items()
    }
    return [
        {"module": name, "count": {"versions": len(published[name].versions), **_counts(spans[name])}}
        | _values(lanes[name], versions)
        | {"workers": spans[name]["workers"][-MOST_SPANS:], "waits": _longest(spans[name]["waits"])}
        for name, versions in thinned(published).items()
    ]


def _values(lane: Lane, versions: Sequence[Checkpoint]) -> Values:
    """The versions that are shown, and which of them are on disk."""
    return {
        "versions": [
            {name: getattr(checkpoint, name) for name in ("version", "epoch", "step", "full", "final")}
            | {"at": checkpoint.published_at, "loss": number(checkpoint.metrics.get("loss"))}
            | {"peers": {peer: used["versions"] for peer, used in checkpoint.peers.items()}}
            for checkpoint in versions
        ],
        "present": sorted({checkpoint.version for checkpoint in versions}.intersection(lane.present)),
        "stages": list(lane.stages),
    }


def _spans(lane: Lane, within: Range | None) -> dict[str, list[Values]]:
    published = sorted(checkpoint.published_at for checkpoint in lane.versions)
    spans = {
        "workers": workers(lane.events, lane.state, lane.report, published),
        "waits": waits(lane.events, lane.state, lane.report, published),
    }
    return {kind: [each for each in all_ if within is None or within.has(each)] for kind, all_ in spans.items()}


def _counts(spans: Mapping[str, Sequence[Values]]) -> dict[str, int]:
    return {kind: len(each) for kind, each in spans.items()}


def _longest(waits: Sequence[Values]) -> list[Values]:
    """The waits that can be seen, oldest first, with one that goes on; of equal ones the newest."""
    if len(waits) <= MOST_SPANS:
        return list(waits)
    length = {n: math.inf if each["to"] is None else each["to"] - each["from"] for n, each in enumerate(waits)}
    return [waits[n] for n in sorted(sorted(length, key=lambda n: (length[n], n))[-MOST_SPANS:])]


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
    return spans


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
    return spans


def _end_last(spans: list[Values], end: str, signs: Sequence[float], before: float) -> None:
    """End the last span, if it has no end, at the last of the sorted signs before a time."""
    if spans and spans[-1]["to"] is None:
        begin, place = spans[-1]["from"], bisect.bisect_left(signs, before)
        spans[-1] |= {"to": max(begin, signs[place - 1]) if place else begin, "end": end}


def staleness(versions: Mapping[str, Sequence[Checkpoint]], spec: RunSpec) -> list[Values]:
    """How many steps each module was ahead of the version of each peer that it used, at each publish.

    0 where the peer rests, and has no newer weights than those of that version.
    Of many versions the median of each stretch (`behind`), and what 10 % of them are below (`low`) and above (`high`).
    `bound` is the most that the run's `max_staleness` allows, in steps.
    """
    step_of = {module: {each.version: each.step for each in published} for module, published in versions.items()}
    points: dict[tuple[str, str], list[tuple[int, float, int]]] = {}
    for module, published in versions.items():
        for checkpoint in without_retrained(published):
            for peer, used in checkpoint.peers.items():
                step = step_of.get(peer, {}).get(next(iter(used["versions"]), -1))
                if step is not None:
                    is_newest = used["epoch"] >= spec.trained_epochs(peer, checkpoint.epoch) < checkpoint.epoch
                    point = checkpoint.step, checkpoint.published_at, 0 if is_newest else checkpoint.step - step
                    points.setdefault((module, peer), []).append(point)
    bounds = {module: _bound(published, spec) for module, published in versions.items()}
    return [
        {"module": module, "peer": peer, "bound": bounds[module], **_band(of_pair)}
        for (module, peer), of_pair in points.items()
    ]


def stages(versions: Mapping[str, Sequence[Checkpoint]], spec: RunSpec) -> list[Values]:
    """The stages of a run, each with the epoch, step and time at which it begins; the last two None before that.

    Steps and times are those of the versions with which the stage before it ended, times by the worker's clock.
    """
    rows = list[Values]()
    for epoch, stage in spec.stage_begins if spec.stages else ():
        # Inside an epoch a worker that exits publishes a full version as well, later than the first one.
        full = [each for published in versions.values() for each in published if each.full and each.epoch == epoch]
        step = min((each.step for each in full), default=None)
        at = max((each.published_at for each in full if each.step == step), default=None)
        rows.append({"name": stage.name, "epochs": stage.epochs, "epoch": epoch, "step": step, "at": at})
    return rows


def entered(module: str, versions: Mapping[str, Sequence[Checkpoint]], spec: RunSpec) -> list[Values]:
    """The stages that the worker of a module has entered: when it published the end of the one before.

    Of a stage in which the module rests nothing of it is published; the end is then that of the run's other modules.
    """
    own: dict[int, float] = {}
    for each in versions[module]:
        if each.full:
            own.setdefault(each.epoch, each.published_at)
    rows = list[Values]()
    for stage in stages(versions, spec):
        is_own = spec.trained_epochs(module, stage["epoch"]) == stage["epoch"]
        rows.append({"name": stage["name"], "at": own.get(stage["epoch"]) if is_own else stage["at"]})
    return [row for row in rows if row["at"] is not None]


def _band(points: Sequence[tuple[int, float, int]]) -> Values:
    step, at, behind = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    stretches = Stretches(len(points), MOST_STALENESS)
    position = {"step": np.round(stretches.means(step)).tolist(), "at": np.round(stretches.means(at), 1).tolist()}
    if stretches.width == 1:
        return {**position, "behind": behind.tolist()}
    low, median, high = stretches.percentiles(behind, (10, 50, 90))
    return {**position, "behind": median.tolist(), "low": low.tolist(), "high": high.tolist()}


def _bound(published: Sequence[Checkpoint], spec: RunSpec) -> int | None:
    """Steps of the epochs that a peer may be behind, and of the one that is trained meanwhile, or between exchanges."""
    if spec.epochs_behind is None:
        return None
    if spec.waits_at_exchanges and spec.exchange_every:
        return spec.exchange_every
    ends = [(each.epoch, each.step) for each in published if each.full]
    lengths = [(b[1] - a[1]) // (b[0] - a[0]) for a, b in itertools.pairwise(ends) if b[0] > a[0]]
    return max(lengths) * (spec.epochs_behind + 1) if lengths else None


def without_retrained(versions: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The versions without those whose steps were trained again after a restart."""
    kept: list[Checkpoint] = []
    for checkpoint in versions:
        while kept and kept[-1].step >= checkpoint.step:
            kept.pop()
        kept.append(checkpoint)
    return kept
