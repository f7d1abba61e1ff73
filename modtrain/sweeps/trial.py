"""Trial: the state of one trial of a sweep, and its value of the sweep's metric, from its run's folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modtrain.errors import CONSEQUENCES, did_you_mean
from modtrain.storage.best_version import result_versions
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import EvaluationRecord, metric_by_epoch, read_evaluations
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import RunSnapshot
from modtrain.storage.run_state import PENDING, RunState, failed_worker, run_state

NewestOf = Callable[[str], Checkpoint | None]
"""The newest version of a module."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial."""

    number: int
    values: Mapping[str, Any]
    state: RunState
    result: float | None = None
    """The sweep's metric; None where there is none yet."""
    epoch: int | None = None
    """Epochs that all its modules have completed; None where it has not begun."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""
    """Why it failed, was pruned or stopped, or has no result: one sentence."""
    exit_code: int | None = None
    """Of the worker that made it fail, where it is known."""
    is_damaged: bool = False
    """Whether its run cannot be read, so that running it again does not help."""
    is_evaluating: bool = False
    """Whether it has finished, and its last worker may be evaluating it now."""


def build_trial(snapshot: RunSnapshot, metric: str | None) -> Trial:
    """The trial of a snapshot; its evaluations are read."""
    run, state = snapshot.run, run_state(snapshot)
    records = read_evaluations(run.evaluations_path)
    evaluation = records[-1] if records else None
    newest = {name: module.newest for name, module in snapshot.modules.items()}.get
    why, code = _reason(snapshot, state)
    result = None
    if metric is not None:
        result = ranking_value(run, metric, evaluation, newest, is_over=state == "finished")
    is_missing = metric is not None and result is None and state == "finished"
    is_evaluating = is_missing and _has_job(snapshot)
    if metric is not None and is_missing and not is_evaluating:
        why = unknown_metric(run, metric, evaluation, newest) or _missing_result(snapshot, metric, evaluation)
    trial = run.spec.trial or {}
    return Trial(
        number=int(trial.get("number", 0)),
        values=trial.get("values", {}),
        state=state,
        result=result,
        epoch=min((module.report.epoch or 0 for module in snapshot.modules.values()), default=0),
        metrics=evaluation.metrics if evaluation else {},
        why=why,
        exit_code=code,
        is_evaluating=is_evaluating,
    )


def ranking_value(
    run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf, *, is_over: bool
) -> float | None:
    """The value by which a sweep ranks a trial, from its newest evaluation or its training.

    None for a trial that is over and was evaluated only at an earlier epoch: its last evaluation is still to come.
    """
    is_early = evaluation is not None and metric in evaluation.metrics and evaluation.epoch < run.spec.epochs
    if is_over and is_early and evaluation is not None and run.spec.early_stop is not None:
        is_early = dict(evaluation.versions) != result_versions(run)
    return None if is_over and is_early else metric_value(run, metric, evaluation, newest)


def metric_value(
    run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf | None = None
) -> float | None:
    """The newest value of a metric: of an evaluation, or of training (`module.scalar`)."""
    if evaluation is not None and metric in evaluation.metrics:
        return evaluation.metrics[metric]
    value = _measured(run, metric, None, newest).get(training_scalar(run, metric)[1])
    return value if value is not None and math.isfinite(value) else None


def training_scalar(run: Run, metric: str) -> tuple[str, str]:
    """Module and scalar of a metric of training; two empty strings for a metric of the evaluation."""
    module, _, scalar = metric.partition(".")
    return (module, scalar) if scalar and module in run.modules else ("", "")


def values_by_epoch(run: Run, metric: str) -> dict[int, float]:
    """The metric after each epoch that has one, the first of several; NaN where it was not finite."""
    module, scalar = training_scalar(run, metric)
    if not module:
        return metric_by_epoch(read_evaluations(run.evaluations_path), metric)
    checkpoints = [c for c in run.store(module).history() if c.full and c.epoch > 0 and scalar in c.metrics]
    return {checkpoint.epoch: checkpoint.metrics[scalar] for checkpoint in checkpoints}


def unknown_metric(
    run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf | None = None
) -> str | None:
    """A sentence that names what is measured, where something is and the metric is not; else None."""
    module, scalar = training_scalar(run, metric)
    source, name = (f"The training of {module}", scalar) if module else ("The evaluation", metric)
    measured = _measured(run, metric, evaluation, newest)
    if not measured or name in measured:
        return None
    return f"{source} has no {name!r}; it has {', '.join(measured)}.{did_you_mean(name, measured)}"


def _measured(
    run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf | None
) -> Mapping[str, float | None]:
    """What was measured last where the metric belongs to: in the training of its module, or in the evaluation."""
    module, _ = training_scalar(run, metric)
    if not module:
        return evaluation.metrics if evaluation else {}
    checkpoint = newest(module) if newest else run.store(module).newest_intact().checkpoint
    return checkpoint.metrics if checkpoint else {}


def _has_job(snapshot: RunSnapshot) -> bool:
    """Whether a job of the run may still have a process."""
    if snapshot.jobs:
        return any(job.phase in ("pending", "running") for job in snapshot.jobs.values())
    return snapshot.launcher is not None


def _missing_result(snapshot: RunSnapshot, metric: str, evaluation: EvaluationRecord | None) -> str:
    """Why a finished run has no value of a metric that is measured."""
    if evaluation is not None and metric in evaluation.metrics and evaluation.metrics[metric] is None:
        return f"{metric} is not finite."
    if snapshot.evaluation_failure is not None:
        return f"Its evaluation failed: {snapshot.evaluation_failure.says}"
    return (
        f"It was not evaluated at its end; `modtrain evaluate {snapshot.run.path}` evaluates it, or says why it cannot."
    )


def _reason(snapshot: RunSnapshot, state: RunState) -> tuple[str, int | None]:
    """Why a run is in a state, and the exit code of a failure."""
    reports, stop = [module.report for module in snapshot.modules.values()], snapshot.stop
    if state in PENDING or state in ("finished", "created"):
        return "", None
    if state == "failed":
        failed = [report for report in reports if report.state == "failed"]
        # The cause rather than its consequences: the other workers were late, or overtaken, because of it.
        if causes := [report for report in failed if report.exit_code not in CONSEQUENCES] or failed:
            return causes[0].trouble or f"exit code {causes[0].exit_code}", causes[0].exit_code
        return stop.reason if stop and failed_worker(snapshot) is not None else "its job failed", None
    if stop is not None:
        return stop.reason, None
    if state == "preempted" and snapshot.refusals:
        return f"the scheduler refused the next job: {next(iter(snapshot.refusals.values()))}", None
    if state == "lost":
        return "its worker died without a report", None
    return next((report.trouble for report in reports if report.trouble), ""), None
