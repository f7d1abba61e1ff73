"""Best version: the versions of the evaluation with the best value of a metric."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence

from modtrain.errors import InputError, did_you_mean
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.run import Run


def best_versions(run: Run, metric: str | None) -> tuple[dict[str, int], str]:
    """The versions of the best evaluation by module, and that evaluation in words for an error.

    Without a `metric` those of the best epoch of early stopping, else by the metric by which the run is compared;
    less is better for those in the run's `lower_is_better`. InputError where there is no evaluation, or none with the
    metric.
    """
    if metric is None and (outcome := run.early_stop_outcome()) is not None and outcome.best is not None:
        return dict(outcome.best.versions), f" (of the best epoch, {outcome.best.epoch})"
    records = read_evaluations(run.evaluations_path)
    if not records:
        raise InputError(f"{run.name} has no evaluation yet; run `modtrain evaluate {run.path}`, or load the newest.")
    metrics = list(records[-1].metrics)
    names = {name for record in records for name in record.metrics}
    by = metric or run.spec.compared_by(metrics, names) or ""
    measured = [(value, record) for record in records if (value := record.metrics.get(by)) is not None]
    if not measured:
        command = f"modtrain launch {shlex.quote(str(run.path))} --metric NAME"
        raise _not_measured(run, by, metrics, "" if metric else f" `{command}` compares its versions by another one.")
    sign = -1 if by in run.spec.lower_is_better else 1
    value, best = max(measured, key=lambda pair: sign * pair[0])
    return dict(best.versions), f" (of the best evaluation, {by} = {value:g})"


def check_measured(run: Run, metric: str) -> None:
    """InputError where the run has evaluations and none of them measured the metric."""
    records = read_evaluations(run.evaluations_path)
    if records and not any(metric in record.metrics for record in records):
        raise _not_measured(run, metric, list(records[-1].metrics))


def _not_measured(run: Run, metric: str, metrics: Sequence[str], remedy: str = "") -> InputError:
    known, near = ", ".join(metrics), did_you_mean(metric, metrics)
    return InputError(f"No evaluation of {run.name} has a value of {metric!r}; metrics: {known}.{near}{remedy}")


def result_versions(run: Run) -> dict[str, int]:
    """The versions by which a finished run is judged: of the best epoch of early stopping, else its last ones."""
    if run.spec.early_stop is not None:
        with contextlib.suppress(InputError):
            versions = best_versions(run, None)[0]
            if all(version in run.store(module).versions() for module, version in versions.items()):
                return versions
    return {name: checkpoint.version for name in run.modules if (checkpoint := run.store(name).latest())}
