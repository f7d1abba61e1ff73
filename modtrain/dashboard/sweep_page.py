"""The sweep page's data: its trials, best first, with what varies and the metric of each over its epochs.

A pure function of what has been read. Deliberately not here: what came of a trial (`outcome.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modtrain.dashboard import downsampling
from modtrain.dashboard.urls import quoted
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trials import rank

MOST_POINTS = 200
"""Of each trial's curve."""

Values = dict[str, Any]


def sweep_page(sweep: Sweep, path: str, trials: Iterable[Trial], curves: Mapping[int, Mapping[str, Any]]) -> Values:
    """All but the sweep's row; `curves` holds by trial and metric the values by epoch.

    `more_waiting` is how many trials wait beside those that are listed.
    """
    found = rank(sweep, trials)
    return {
        "more_waiting": max(0, sweep.spec.trials - len(found)),
        "varies": list(dict.fromkeys(name for trial in found for name in trial.values)),
        "trials": [_trial(sweep, path, trial) for trial in found],
        "curves": [
            _curve(trial.number, name, values)
            for trial in found
            for name, values in curves.get(trial.number, {}).items()
        ],
    }


def facts(sweep: Sweep) -> Values:
    """What the page says of the sweep beyond its row."""
    spec = sweep.spec
    told = {"metric_name": spec.metric, "maximize": spec.maximize}
    return {**told, "sampler": spec.sampler, "prune": spec.prune, "seed": spec.seed}


def _trial(sweep: Sweep, path: str, trial: Trial) -> Values:
    place = f"{path}/{sweep.run_path(trial.number).name}".lstrip("/")
    told = {"number": trial.number, "path": quoted(place), "state": trial.state, "values": dict(trial.values)}
    judged = {"result": trial.result, "metrics": dict(trial.metrics), "epoch": trial.epoch, "why": trial.why}
    return {**told, **judged}


def _curve(number: int, name: str, values: Mapping[int, float]) -> Values:
    epochs = sorted(values)
    kept = [epochs[index] for index in downsampling.kept([values[epoch] for epoch in epochs], MOST_POINTS)]
    return {"trial": number, "name": name, "epoch": kept, "value": [values[epoch] for epoch in kept]}
