"""The sweep page's data: its trials, best first, with what varies and the metric of each over its epochs."""

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
_TRIAL = ("number", "state", "values", "result", "metrics", "epoch", "why")

Values = dict[str, Any]


def sweep_page(sweep: Sweep, path: str, trials: Iterable[Trial], curves: Mapping[int, Mapping[str, Any]]) -> Values:
    """All but the sweep's row; `curves` holds by trial and metric the values by epoch.

    `more_pending` is how many trials have not begun beside those in the list.
    """
    by_rank = rank(sweep, trials)
    return {
        "more_pending": max(0, sweep.spec.trials - len(by_rank)),
        "varies": list(dict.fromkeys(name for trial in by_rank for name in trial.values)),
        "trials": [
            {name: getattr(trial, name) for name in _TRIAL}
            | {"path": quoted(f"{path}/{sweep.run_path(trial.number).name}".lstrip("/"))}
            for trial in by_rank
        ],
        "curves": [
            _curve(trial.number, name, values)
            for trial in by_rank
            for name, values in curves.get(trial.number, {}).items()
        ],
    }


def facts(sweep: Sweep) -> Values:
    """The settings of the sweep."""
    return {name: getattr(sweep.spec, name) for name in ("maximize", "sampler", "prune", "seed")} | {
        "metric_name": sweep.spec.metric
    }


def _curve(number: int, name: str, values: Mapping[int, float]) -> Values:
    epochs = sorted(values)
    kept = [epochs[index] for index in downsampling.kept([values[epoch] for epoch in epochs], MOST_POINTS)]
    return {"trial": number, "name": name, "epoch": kept, "value": [values[epoch] for epoch in kept]}
