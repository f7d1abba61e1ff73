"""The run page's data: modules, workers, lanes, curves, staleness, time, grids and logs of one run, as plain values."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modtrain.dashboard import safe_files, timeline
from modtrain.dashboard.downsampling import Numbers, Stretches
from modtrain.dashboard.urls import quoted, shown
from modtrain.recipes.params import flatten
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.history import Columns, History
from modtrain.storage.layout import MODULES, WORKER_LOG
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.run_snapshot import ModuleSnapshot, RunSnapshot
from modtrain.storage.run_state import LIVE

LOG_LINES = 40
MOST_EVALUATIONS = 1_000
DIGITS = {"step": 0, "epoch": 4, "at": 1}
"""Decimal places of the positions of points."""
_SETTINGS = (
    "recipe", "dataroot", "epochs", "exchange_every", "max_staleness", "seed", "device", "peer_timeout_s", "placement",
)  # fmt: skip
_COMMON_DEFAULTS = ("seed", "device", "peer_timeout_s")
"""Settings whose default is the same for every recipe."""
_HEAD = ("recipe", "state", "progress", "epoch", "epochs", "left_s", "stop")
_MODULE = (
    "version", "epoch", "epochs", "step", "steps", "state", "worker", "peers", "metrics", "losses", "damaged",
)  # fmt: skip
_WORKER = (
    "worker", "modules", "state", "host", "pid", "job", "device", "steps_per_s", "left_s", "waiting_for", "trouble",
)  # fmt: skip

Values = dict[str, Any]


def head(row: Values, status: Mapping[str, Any], run: Run, sweep: str | None) -> Values:
    """The header: the catalog's row with the numbers of `status`; `sweep` is the path of the sweep of a trial."""
    spec = run.spec
    settings = {"seed": spec.seed, "device": spec.device, "placement": spec.placement, "versions": spec.versions}
    names = ("kind", "path", "name", "metric", "created_at", "problem")
    return {
        **{name: row[name] for name in names},
        **{name: status[name] for name in _HEAD},
        **settings,
        "sweep": None if sweep is None else quoted(sweep),
    }


def run_page(
    snapshot: RunSnapshot,
    status: Mapping[str, Any],
    history: History,
    rows: Sequence[Mapping[str, Any]],
    heartbeat_at: Mapping[str, float | None],
) -> Values:
    """All but the header, the curves and the alarms.

    `status` is that of the snapshot, `rows` are the modules of the catalog's row, `heartbeat_at` is when the heartbeat
    of each module changed, by this machine's clock.
    """
    run = snapshot.run
    versions = {name: _versions(history, name, module) for name, module in snapshot.modules.items()}
    newest_at = {row["name"]: row["newest_at"] for row in rows}
    modules = {name: {key: status["modules"][name][key] for key in _MODULE} for name in run.modules}
    return {
        "modules": [{"name": name, **values, "newest_at": newest_at.get(name)} for name, values in modules.items()],
        "workers": [_worker(worker, snapshot, heartbeat_at) for worker in status["workers"]],
        "lanes": [
            timeline.lane(
                name,
                versions[name],
                run.store(name).versions(),
                history.events(name),
                modules[name]["state"],
                snapshot.modules[name].report,
            )
            for name in run.modules
        ],
        "staleness": timeline.staleness(versions),
        "time": [seconds(worker, history) for worker in status["workers"]],
        "grids": grids(run, history),
        "evaluations": [_evaluation(record) for record in history.evaluations()[-MOST_EVALUATIONS:]],
        "config": config(run),
        "logs": [log_of(run, name) for name in run.modules],
    }


def _versions(history: History, name: str, module: ModuleSnapshot) -> Sequence[Checkpoint]:
    """The published versions up to those of the snapshot: the history is read later and may have newer ones."""
    last = max((module.newest.version if module.newest else -1, *module.damaged))
    versions = history.versions(name)
    return versions[: bisect.bisect_right(versions, last, key=lambda checkpoint: checkpoint.version)]


def _worker(worker: Mapping[str, Any], snapshot: RunSnapshot, heartbeat_at: Mapping[str, float | None]) -> Values:
    """A worker with the time of its last heartbeat: by this machine's clock while it lives, else by its own."""
    first, is_live = worker["modules"][0], worker["state"] in LIVE
    return {
        **{key: worker[key] for key in _WORKER},
        "heartbeat_at": heartbeat_at[first] if is_live else None,
        "last_report_at": None if is_live else snapshot.modules[first].report.at,
    }


def all_curves(run: Run, history: History) -> list[Values]:
    """The training curves of each module, and those of the evaluations."""
    evaluations = Columns()
    for row in history.evaluation_rows():
        evaluations.add(row)
    of_evaluations = [curve for curve in curves("evaluation", evaluations) if curve["name"] != "lr"]
    return [*(curve for name in run.modules for curve in curves(name, history.curve(name))), *of_evaluations]


def curves(module: str, columns: Columns) -> list[Values]:
    """A curve for each scalar of a module, and its learning rate."""
    position = {name: np.array(columns.position[name]) for name in DIGITS}
    scalars = {name: np.array(column) for name, column in {**columns.scalars, "lr": columns.position["lr"]}.items()}
    return [_curve(module, name, position, values) for name, values in scalars.items() if np.isfinite(values).any()]


def _curve(module: str, name: str, position: Mapping[str, Numbers], values: Numbers) -> Values:
    """At most so many points; of a longer curve the means of stretches, with the extremes of each."""
    finite = np.isfinite(values)
    stretches, values = Stretches(finite.sum()), values[finite]
    means = {key: np.round(stretches.means(column[finite]), DIGITS[key]).tolist() for key, column in position.items()}
    curve = {"module": module, "name": name, **means, "value": _short(stretches.means(values))}
    if stretches.width == 1:
        return curve
    low, high = stretches.extremes(values)
    return {**curve, "low": _short(low), "high": _short(high)}


def _short(values: Numbers) -> list[float]:
    """Six digits: more cannot be seen in a chart and would be most of the page."""
    return [float(f"{value:.6g}") for value in values]


def seconds(worker: Mapping[str, Any], history: History) -> Values:
    """The seconds that a worker spent, by activity: of its module that reports most, since one that rests has less."""
    none = dict.fromkeys(("compute", "data", "waiting", "exchange"), 0.0)
    columns = [history.curve(module).seconds for module in worker["modules"]]
    sums = [none | {kind: round(float(np.nansum(each[kind])), 1) for kind in none.keys() & each} for each in columns]
    most = max(sums, key=lambda each: sum(each.values()))
    return {"worker": worker["worker"], "modules": worker["modules"], **most}


def grids(run: Run, history: History) -> list[Values]:
    """The newest sample grids present, oldest first: only pictures, since an export copies them."""
    present = {name for name in filesystem.names(run.evaluation_path) if name.endswith(".png")}
    by_file = {Path(record.grid).name: record for record in history.evaluations() if record.grid}
    of_present = [{"file": shown(file), **_evaluation(record)} for file, record in by_file.items() if file in present]
    return of_present[-MOST_EVALUATIONS:]


def _evaluation(record: EvaluationRecord) -> Values:
    return {name: getattr(record, name) for name in ("at", "versions", "epochs", "metrics")}


def config(run: Run) -> list[Values]:
    """Every setting, with its default where it has one: the recipe's where run.json holds it."""
    usual = {**(run.spec.usual or {}), **{name: RunSpec.model_fields[name].default for name in _COMMON_DEFAULTS}}
    settings = [_setting(n, getattr(run.spec, n), usual if n in usual else None) for n in _SETTINGS]
    defaults = getattr(run.spec, "defaults", None)
    known = None if defaults is None else flatten(defaults)
    return settings + [_setting(name, value, known) for name, value in flatten(run.spec.params).items()]


def _setting(name: str, value: Any, known: Mapping[str, Any] | None) -> Values:
    default = (known or {}).get(name)
    return {"name": name, "value": value, "default": default, "differs": known is not None and default != value}


def log_of(run: Run, module: str) -> Values:
    """The end of a module's log."""
    try:
        lines, size = safe_files.last_lines(run.path, MODULES, module, WORKER_LOG, lines=LOG_LINES)
    except safe_files.NotThere:
        lines, size = [], 0
    return {"module": module, "lines": lines, "size": size}
