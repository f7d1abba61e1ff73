"""The run page's data: rows, lanes, curves, staleness, time, grids and logs of one run, as plain values.

A pure function of what has been read. Deliberately not here: reading again and again (`watch.py`), and drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modtrain.dashboard import safe_files, timeline
from modtrain.dashboard.downsampling import Numbers, Stretches
from modtrain.dashboard.urls import quoted, shown
from modtrain.storage import filesystem
from modtrain.storage.curves import Columns
from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.history import History
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.worker_report import WorkerReport

LOG_LINES = 40
MOST_EVALUATIONS = 1_000
DIGITS = {"step": 0, "epoch": 4, "at": 1}
"""After the point, of where a value stands."""
_SETTINGS = (
    "recipe", "dataroot", "epochs", "exchange_every", "max_staleness", "seed", "device", "peer_timeout_s", "placement",
)  # fmt: skip
_OURS = ("seed", "device", "peer_timeout_s")
"""Those with a default that is the same for every recipe."""

Values = dict[str, Any]


def run_page(
    run: Run,
    found: Mapping[str, Any],
    history: History,
    reports: Mapping[str, WorkerReport],
    silent_s: Mapping[str, float | None],
    drawn: Drawn,
) -> Values:
    """All but the run's row and its alarms; `found` is what `status.summary` said."""
    modules = [name for name in run.modules if name in found["modules"]]
    return {
        "modules": [{"name": name, **found["modules"][name]} for name in modules],
        "workers": [{**worker, "beat_age_s": silent_s.get(worker["modules"][0])} for worker in found["workers"]],
        "lanes": [
            timeline.lane(run, name, history, found["modules"][name]["state"], reports[name]) for name in modules
        ],
        "curves": [*(curve for name in modules for curve in drawn.curves(name, history)), *judged(history)],
        "staleness": timeline.staleness(modules, history),
        "time": [seconds(worker, history) for worker in found["workers"]],
        "grids": grids(run, history),
        "evaluations": [_judged(line) for line in history.evaluations()[-MOST_EVALUATIONS:]],
        "config": config(run),
        "logs": [log_of(run, name) for name in modules],
    }


class Drawn:
    """The curves of one run, kept: they are made anew only where a module has new lines."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, list[Values]]] = {}

    def curves(self, module: str, history: History) -> list[Values]:
        """A curve for each scalar of a module, and its learning rate."""
        found = history.curve(module)
        stamp = len(found), *(list(found.position[name][-1:]) for name in ("step", "at"))
        if (kept := self._kept.get(module)) is None or kept[0] != stamp:
            kept = self._kept[module] = stamp, curves(module, found)
        return kept[1]


def facts(run: Run, found: Mapping[str, Any], sweep: str | None) -> Values:
    """What the run page says of the run beyond its row; `sweep` is the path of the sweep that it is a trial of."""
    spec = run.spec
    told = {"seed": spec.seed, "device": spec.device, "placement": spec.placement, "versions": spec.versions}
    return {**told, "stop": found["stop"], "sweep": None if sweep is None else quoted(sweep)}


def curves(module: str, columns: Columns) -> list[Values]:
    """A curve for each scalar of a module, and its learning rate."""
    place = {name: np.array(columns.position[name]) for name in DIGITS}
    named = {**columns.scalars, "lr": columns.position["lr"]}
    values = {name: np.array(column) for name, column in named.items()}
    return [_curve(module, name, place, column) for name, column in values.items() if np.isfinite(column).any()]


def _curve(module: str, name: str, place: Mapping[str, Numbers], values: Numbers) -> Values:
    """At most so many points; of a longer curve the means of stretches, with the extremes of each."""
    there = np.isfinite(values)
    stretches, values = Stretches(there.sum()), values[there]
    means = {what: np.round(stretches.means(column[there]), DIGITS[what]) for what, column in place.items()}
    told = {"module": module, "name": name, **{what: column.tolist() for what, column in means.items()}}
    if stretches.width == 1:
        return {**told, "value": _short(values)}
    low, high = stretches.extremes(values)
    return {**told, "value": _short(stretches.means(values)), "low": _short(low), "high": _short(high)}


def _short(values: Numbers) -> list[float]:
    """More digits than anybody sees would be most of the page."""
    return [float(f"{value:.6g}") for value in values]


def judged(history: History) -> list[Values]:
    """A curve for each metric of the evaluations, over the step of the oldest checkpoint that was judged."""
    columns = Columns()
    for line in history.evaluation_rows():
        columns.add(line)
    return [curve for curve in curves("evaluation", columns) if curve["name"] != "lr"]


def seconds(worker: Mapping[str, Any], history: History) -> Values:
    """What a worker's time went into. Its modules say the same, but one that rests says less."""
    spent = dict.fromkeys(("compute", "data", "waiting", "exchange"), 0.0)
    told = [history.curve(module).seconds for module in worker["modules"]]
    sums = [spent | {kind: float(np.nansum(column)) for kind, column in its.items() if kind in spent} for its in told]
    most = max(sums, key=lambda each: sum(each.values()))
    return {"worker": worker["worker"], "modules": worker["modules"], **most}


def grids(run: Run, history: History) -> list[Values]:
    """The newest sample grids that are there, oldest first: pictures and nothing else, since an export copies them."""
    there = {name for name in filesystem.names(run.evaluation_path) if name.endswith(".png")}
    by_file = {Path(line.grid).name: line for line in history.evaluations() if line.grid}
    found = [{"file": shown(file), **_judged(line)} for file, line in by_file.items() if file in there]
    return found[-MOST_EVALUATIONS:]


def _judged(record: EvaluationRecord) -> Values:
    return {name: getattr(record, name) for name in ("at", "versions", "epochs", "metrics")}


def config(run: Run) -> list[Values]:
    """Every setting, with its default where it has one: the recipe's where run.json holds it."""
    usual = {**(run.spec.usual or {}), **{name: RunSpec.model_fields[name].default for name in _OURS}}
    settings = [_setting(n, getattr(run.spec, n), usual if n in usual else None) for n in _SETTINGS]
    defaults = getattr(run.spec, "defaults", None)
    known = None if defaults is None else dict(_flat(defaults))
    return settings + [_setting(name, value, known) for name, value in _flat(run.spec.params)]


def _setting(name: str, value: Any, known: Mapping[str, Any] | None) -> Values:
    default = (known or {}).get(name)
    return {"name": name, "value": value, "default": default, "differs": known is not None and default != value}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [(prefix + name, value)]
    return found


def log_of(run: Run, module: str) -> Values:
    """The end of a module's log."""
    try:
        lines, size = safe_files.last_lines(run.path, "modules", module, "worker.log", lines=LOG_LINES)
    except safe_files.NotThere:
        lines, size = [], 0
    return {"module": module, "lines": lines, "size": size}
