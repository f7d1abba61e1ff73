"""The run page's data: modules, workers, lanes, curves, staleness, time, grids and logs of one run, as plain values."""

from __future__ import annotations

import bisect
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modtrain.dashboard import safe_files, timeline
from modtrain.dashboard.downsampling import Numbers, Stretches
from modtrain.dashboard.thinning import evenly
from modtrain.dashboard.urls import quoted, shown
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.status import build_status, count_restarts
from modtrain.monitoring.summary import RunView
from modtrain.recipes.params import flatten
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.history import Columns, History
from modtrain.storage.layout import MODULES, WORKER_LOG
from modtrain.storage.liveness import Liveness
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.run_snapshot import ModuleSnapshot, RunSnapshot
from modtrain.storage.run_state import LIVE, worker_states

LOG_LINES = 40
MOST_EVALUATIONS = 1_000
"""Evaluations, and sample grids, on a page; of more, evenly some."""
DIGITS = {"step": 0, "epoch": 4, "at": 1}
"""Decimal places of the positions of points."""
_SETTINGS = (
    "recipe", "dataroot", "epochs", "exchange_every", "max_staleness", "keep", "evaluate_every", "seed", "device",
    "precision", "peer_timeout_s", "placement",
)  # fmt: skip
_COMMON_DEFAULTS = ("seed", "device", "precision", "peer_timeout_s", "storage_timeout_s")
"""Settings whose default is the same for every recipe."""
_MODULE = (
    "version", "epoch", "epochs", "step", "steps", "state", "worker", "peers", "metrics", "losses", "damaged",
)  # fmt: skip
_WORKER = (
    "worker", "modules", "state", "host", "pid", "job", "device", "steps_per_s", "left_s", "waiting_for", "trouble",
)  # fmt: skip

Values = dict[str, Any]


def run_page(view: RunView, liveness: Liveness, history: History, row: Values, sweep: str | None) -> Values:
    """All but the curves, from one snapshot, so that the page agrees with the list and with itself.

    `row` is that of the view as the list shows it, `sweep` the path of the sweep of a trial.
    """
    snapshot, run = view.snapshot, view.snapshot.run
    status, evaluations = build_status(snapshot), evaluations_until(view, history)
    reports = {name: module.report for name, module in snapshot.modules.items()}
    of_lanes, of_grids = read_lanes(snapshot, history), grids(run, evaluations)
    newest_at = {module["name"]: module["newest_at"] for module in row["modules"]}
    logs = {name: safe_files.last_lines(run.path, MODULES, name, WORKER_LOG, lines=LOG_LINES) for name in run.modules}
    modules = {name: {key: status["modules"][name][key] for key in _MODULE} for name in run.modules}
    return {
        "run": {
            **{name: row[name] for name in ("kind", "path", "name", "metric", "created_at", "problem")},
            **{
                name: status[name]
                for name in (
                    "recipe",
                    "state",
                    "progress",
                    "epoch",
                    "epochs",
                    "stage",
                    "left_s",
                    "stop",
                    "interruption",
                    "continuation",
                    "early_stop",
                    "fixed",
                )
            },
            **{name: getattr(run.spec, name) for name in ("seed", "device", "placement", "versions")},
            "sweep": None if sweep is None else quoted(sweep),
        },
        "modules": [
            {"name": name, **values, "newest_at": newest_at.get(name)}
            | {"rests": values["state"] in LIVE and history.is_resting(name)}
            for name, values in modules.items()
        ],
        "workers": [
            _worker(worker, reports, liveness) | {"restarts": count_restarts(history.events(worker["modules"][0]))}
            for worker in status["workers"]
        ],
        "lanes": timeline.build_lanes(of_lanes),
        "staleness": timeline.staleness({name: lane.versions for name, lane in of_lanes.items()}, run.spec),
        "stages": timeline.stages({name: lane.versions for name, lane in of_lanes.items()}, run.spec),
        "time": [seconds(worker, history) for worker in status["workers"]],
        "grids": evenly(of_grids, MOST_EVALUATIONS),
        "drawn": len(of_grids),
        "draws": not evaluations or any(record.grid for record in evaluations),
        "evaluations": [_evaluation(record) for record in evenly(evaluations, MOST_EVALUATIONS)],
        "config": config(run),
        "logs": [{"module": name, "lines": lines, "size": size} for name, (lines, size) in logs.items()],
        "alarms": [vars(alarm) for alarm in find_alarms(status, history)],
    }


def server_time(age_s: float | None) -> int | None:
    """The time of something so old, by this machine's clock."""
    return None if age_s is None else round(time.time() - age_s)


def read_lanes(snapshot: RunSnapshot, history: History) -> dict[str, timeline.Lane]:
    """What is drawn of each module along time."""
    states = {m: state for w, state in enumerate(worker_states(snapshot)) for m in snapshot.run.spec.placement[w]}
    versions = {name: _versions(history, name, module) for name, module in snapshot.modules.items()}
    return {
        name: timeline.Lane(
            versions=versions[name],
            present=snapshot.run.store(name).versions(),
            stages=timeline.entered(name, versions, snapshot.run.spec),
            events=history.events(name),
            state=states[name],
            report=module.report,
        )
        for name, module in snapshot.modules.items()
    }


def evaluations_until(view: RunView, history: History) -> Sequence[EvaluationRecord]:
    """The evaluations up to the newest one of a view: the history is read later and may have newer ones."""
    records, newest = history.evaluations(), view.evaluation
    if newest is None:
        return []
    of_newest = (newest.versions, newest.grid)
    last = next((n for n in reversed(range(len(records))) if (records[n].versions, records[n].grid) == of_newest), -1)
    return records[: last + 1] if last >= 0 else records


def _versions(history: History, name: str, module: ModuleSnapshot) -> Sequence[Checkpoint]:
    """The published versions up to those of the snapshot: the history is read later and may have newer ones."""
    last = max((module.newest.version if module.newest else -1, *module.damaged))
    versions = history.versions(name)
    return versions[: bisect.bisect_right(versions, last, key=lambda checkpoint: checkpoint.version)]


def _worker(worker: Mapping[str, Any], reports: Mapping[str, WorkerReport], liveness: Liveness) -> Values:
    """A worker with the time of its last heartbeat: by this machine's clock while it lives, else by its own."""
    first, is_live = worker["modules"][0], worker["state"] in LIVE
    return {key: worker[key] for key in _WORKER} | {
        "heartbeat_at": server_time(liveness.silent_s(first)) if is_live else None,
        "last_report_at": None if is_live else reports[first].at,
    }


def all_curves(run: Run, history: History) -> list[Values]:
    """The training curves of each module, and those of the evaluations."""
    of_evaluations = []
    for rows in (history.evaluation_rows(), history.validation_rows()):
        columns = Columns()
        for row in rows:
            columns.add(row)
        of_evaluations += [curve for curve in curves("evaluation", columns) if curve["name"] != "lr"]
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
    none = dict.fromkeys(("compute", "data", "waiting", "exchange", "evaluation"), 0.0)
    columns = [history.curve(module).seconds for module in worker["modules"]]
    sums = [none | {kind: round(float(np.nansum(each[kind])), 1) for kind in none.keys() & each} for each in columns]
    most = max(sums, key=lambda each: sum(each.values()))
    return {"worker": worker["worker"], "modules": worker["modules"], **most}


def grids(run: Run, evaluations: Sequence[EvaluationRecord]) -> list[Values]:
    """The sample grids present, oldest first: only pictures, since an export copies them."""
    present = {name for name in filesystem.names(run.evaluation_path) if name.endswith(".png")}
    by_file = {Path(record.grid).name: record for record in evaluations if record.grid}
    return [{"file": shown(file), **_evaluation(record)} for file, record in by_file.items() if file in present]


def _evaluation(record: EvaluationRecord) -> Values:
    return {name: getattr(record, name) for name in ("at", "versions", "epochs", "metrics")}


def config(run: Run) -> list[Values]:
    """Every setting, with its default where it has one: the recipe's where run.json holds it."""
    usual = {**(run.spec.usual or {}), **{name: RunSpec.model_fields[name].default for name in _COMMON_DEFAULTS}}
    known = None if run.spec.defaults is None else flatten(run.spec.defaults)
    settings = [(name, getattr(run.spec, name), usual if name in usual else None) for name in _SETTINGS]
    settings += [("stages", {stage.name: stage.epochs for stage in run.spec.stages}, None)] if run.spec.stages else []
    settings += [(name, value, known) for name, value in flatten(run.spec.params).items()]
    return [
        {"name": n, "value": value, "default": (d or {}).get(n), "differs": d is not None and d.get(n) != value}
        for n, value, d in settings
    ]
