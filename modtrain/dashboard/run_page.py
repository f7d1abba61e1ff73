"""The run page's data: rows, lanes, curves, staleness, time, grids and logs of one run, as plain values.

A pure function of what has been read. Deliberately not here: reading again and again (`watch.py`), and drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modtrain import fs
from modtrain.dashboard import inside, lanes, thinning
from modtrain.dashboard.addresses import quoted, shown
from modtrain.history import History, scalars
from modtrain.run import Run
from modtrain.tail import number

LOG_LINES = 40
MOST_EVALUATIONS = 1_000
_SETTINGS = (
    "recipe", "dataroot", "epochs", "exchange_every", "max_staleness", "seed", "device", "peer_timeout_s", "placement",
)  # fmt: skip

Values = dict[str, Any]


def run_page(
    run: Run,
    found: Mapping[str, Any],
    history: History,
    beats: Mapping[str, Mapping[str, Any]],
    silent_s: Mapping[str, float | None],
    drawn: Drawn,
) -> Values:
    """All but the run's row and its alarms; `found` is what `status.summary` said."""
    modules = [name for name in run.modules if name in found["modules"]]
    return {
        "modules": [{"name": name, **found["modules"][name]} for name in modules],
        "workers": [{**worker, "beat_age_s": silent_s.get(worker["modules"][0])} for worker in found["workers"]],
        "lanes": [lanes.lane(run, name, history, found["modules"][name]["state"], beats[name]) for name in modules],
        "curves": [curve for name in modules for curve in drawn.curves(name, history)],
        "staleness": lanes.staleness(modules, history),
        "time": [drawn.time(worker, history) for worker in found["workers"]],
        "grids": grids(run, history),
        "evaluations": [_judged(line) for line in history.evaluations()[-MOST_EVALUATIONS:]],
        "config": config(run),
        "logs": [log_of(run, name) for name in modules],
    }


class Drawn:
    """The curves and seconds of one run, kept: they are made anew only where a module has new lines."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[object, Any]] = {}

    def curves(self, module: str, history: History) -> list[Values]:
        """A curve for each scalar of a module, and its learning rate."""
        found: list[Values] = self._made("curves", module, history, lambda lines: curves(module, lines))
        return found

    def time(self, worker: Mapping[str, Any], history: History) -> Values:
        """The seconds that a worker spent on each; its modules say the same, so the first is asked."""
        spent = self._made("time", worker["modules"][0], history, seconds)
        return {"worker": worker["worker"], "modules": worker["modules"], **spent}

    def _made(self, what: str, module: str, history: History, make: Callable[[list[Values]], Any]) -> Any:
        lines = history.curve(module)
        stamp = len(lines), lines[-1] if lines else None
        if (kept := self._kept.get((what, module))) is None or kept[0] != stamp:
            kept = self._kept[what, module] = stamp, make(lines)
        return kept[1]


def facts(run: Run, found: Mapping[str, Any], sweep: str | None) -> Values:
    """What the run page says of the run beyond its row; `sweep` is the path of the sweep that it is a trial of."""
    spec = run.spec
    told = {"seed": spec.seed, "device": spec.device, "placement": spec.placement, "versions": spec.versions}
    return {**told, "stop": found["stop"], "sweep": None if sweep is None else quoted(sweep)}


def curves(module: str, lines: list[Values]) -> list[Values]:
    """A curve for each scalar of a module, and its learning rate."""
    points: dict[str, list[tuple[Values, float]]] = {}
    for line in lines:
        found = scalars(line)
        if (rate := number(line.get("lr"))) is not None:
            found["lr"] = rate
        for name, value in found.items():
            points.setdefault(name, []).append((line, value))
    return [_curve(module, name, of) for name, of in points.items()]


def _curve(module: str, name: str, points: list[tuple[Values, float]]) -> Values:
    values = [value for _, value in points]
    kept = thinning.kept(values)
    told = {what: [points[index][0].get(what) for index in kept] for what in ("step", "epoch", "at")}
    return {"module": module, "name": name, **told, "value": [values[index] for index in kept]}


def seconds(lines: list[Values]) -> Values:
    """What all lines together tell of a worker's time."""
    spent = dict.fromkeys(("compute", "data", "waiting", "exchange"), 0.0)
    for line in lines:
        told: Any = line.get("seconds")
        for what in spent if isinstance(told, dict) else ():
            spent[what] += number(told.get(what)) or 0.0
    return spent


def grids(run: Run, history: History) -> list[Values]:
    """The sample grids that are there, oldest first: pictures and nothing else, since an export copies them."""
    there = {name for name in fs.names(run.path / "evaluation") if name.endswith(".png")}
    by_file = {Path(str(line["grid"])).name: line for line in history.evaluations() if line.get("grid")}
    return [{"file": shown(file), **_judged(line)} for file, line in by_file.items() if file in there]


def _judged(line: Values) -> Values:
    return {name: line.get(name) for name in ("at", "versions", "epochs", "metrics")}


def config(run: Run) -> list[Values]:
    """Every setting, with the recipe's default where run.json holds it."""
    settings = [{"name": n, "value": getattr(run.spec, n), "default": None, "differs": False} for n in _SETTINGS]
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
        lines, size = inside.last_lines(run.path, "modules", module, "worker.log", lines=LOG_LINES)
    except inside.NotThere:
        lines, size = [], 0
    return {"module": module, "lines": lines, "size": size}
