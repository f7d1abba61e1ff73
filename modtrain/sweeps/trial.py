"""Trial: the state of one trial of a sweep, and its value of the sweep's metric, from its run's folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modtrain.errors import CONSEQUENCES, did_you_mean
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import EvaluationRecord, metric_by_epoch, read_evaluations
from modtrain.storage.liveness import Liveness
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import JobPhase, RunSnapshot, WorkerJob, read_snapshot
from modtrain.storage.run_state import ENDED, PENDING, RunState, failed_worker, run_state

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
    epoch: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""
    """Why it failed, was pruned or stopped, or has no result: one sentence."""
    exit_code: int | None = None
    """Of the worker that made it fail, where it is known."""
    is_damaged: bool = False
    """Whether its run cannot be read, so that running it again does not help."""

    def is_open(self, *, retry_failed: bool) -> bool:
        """Whether a sweep that is resumed runs the trial: it has not ended, or has failed and is to be retried."""
        return self.state not in ENDED or (retry_failed and self.state == "failed")


def read_trial(run: Run, metric: str | None, job: JobPhase | None = None) -> Trial:
    """The trial of a run; `job` is the phase of its jobs, None where no backend was asked."""
    if job is None:
        return build_trial(read_snapshot(run), metric)
    jobs = {worker: WorkerJob(phase=job) for worker in range(len(run.spec.placement))}
    return build_trial(read_snapshot(run, Liveness(), jobs=jobs), metric)


def build_trial(snapshot: RunSnapshot, metric: str | None) -> Trial:
    """The trial of a snapshot; its evaluations are read."""
    run, state = snapshot.run, run_state(snapshot)
    records = read_evaluations(run.evaluations_path)
    newest = records[-1] if records else None
    why, code = _reason(snapshot, state)
    result = None
    if metric is not None:
        result = ranking_value(run, metric, newest, _newest_of(snapshot), is_over=state == "finished")
        if state == "finished" and result is None:
            if _is_evaluated_later(snapshot):
                state = "running"
            else:
                why = _missing_result(run, metric, newest, _newest_of(snapshot))
    trial = run.spec.trial or {}
    return Trial(
        number=int(trial.get("number", 0)),
        values=trial.get("values", {}),
        state=state,
        result=result,
        epoch=min((module.report.epoch or 0 for module in snapshot.modules.values()), default=0),
        metrics=newest.metrics if newest else {},
        why=why,
        exit_code=code,
    )


def ranking_value(
    run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf, *, is_over: bool
) -> float | None:
    """The value by which a sweep ranks a trial, from its newest evaluation or its training.

    None for a trial that is over and was evaluated only at an earlier epoch: its last evaluation is still to come.
    """
    is_early = evaluation is not None and metric in evaluation.metrics and evaluation.epoch < run.spec.epochs
    return None if is_over and is_early else metric_value(run, metric, evaluation, newest)


def metric_value(
    run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf | None = None
) -> float | None:
    """The newest value of a metric: of an evaluation, or of training (`module.scalar`)."""
    if evaluation is not None and metric in evaluation.metrics:
        return evaluation.metrics[metric]
    module, scalar = training_scalar(run, metric)
    if not module:
        return None
    checkpoint = newest(module) if newest else run.store(module).newest_intact().checkpoint
    value = checkpoint.metrics.get(scalar) if checkpoint else None
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


def unknown_metric(run: Run, metric: str) -> str | None:
    """A sentence that names what is measured, where something is and the metric is not; else None."""
    records = read_evaluations(run.evaluations_path)
    return _unknown_metric(
        run, metric, records[-1] if records else None, lambda module: run.store(module).newest_intact().checkpoint
    )


def _unknown_metric(run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf) -> str | None:
    module, scalar = training_scalar(run, metric)
    if module:
        checkpoint = newest(module)
        measured, source, name = list(checkpoint.metrics if checkpoint else ()), f"The training of {module}", scalar
    else:
        measured, source, name = list(evaluation.metrics if evaluation else ()), "The evaluation", metric
    if not measured or name in measured:
        return None
    return f"{source} has no {name!r}; it has {', '.join(measured)}.{did_you_mean(name, measured)}"


def _is_evaluated_later(snapshot: RunSnapshot) -> bool:
    """Whether the last worker of a finished run may be evaluating it now."""
    if snapshot.jobs:
        return any(job.phase in ("pending", "running") for job in snapshot.jobs.values())
    return snapshot.launcher is not None


def _newest_of(snapshot: RunSnapshot) -> NewestOf:
    return lambda module: snapshot.modules[module].newest


def _missing_result(run: Run, metric: str, evaluation: EvaluationRecord | None, newest: NewestOf) -> str:
    """Why a finished run has no value of the metric."""
    if (message := _unknown_metric(run, metric, evaluation, newest)) is not None:
        return message
    if evaluation is not None and metric in evaluation.metrics and evaluation.metrics[metric] is None:
        return f"{metric} is not finite."
    return f"It was not evaluated at its end; `modtrain evaluate {run.path}` evaluates it, or says why it cannot."


def _reason(snapshot: RunSnapshot, state: RunState) -> tuple[str, int | None]:
    """Why a run is in a state, and the exit code of a failure."""
    if state in PENDING or state in ("finished", "created"):
        return "", None
    if state == "failed":
        return _failure(snapshot)
    if snapshot.stop is not None:
        return snapshot.stop.reason, None
    if state == "lost":
        return "its worker died without a report", None
    troubles = [module.report.trouble for module in snapshot.modules.values() if module.report.trouble]
    return (troubles[0] if troubles else ""), None


def _failure(snapshot: RunSnapshot) -> tuple[str, int | None]:
    """The cause rather than its consequences: the other workers were late, or overtaken, because of it."""
    failed = [module.report for module in snapshot.modules.values() if module.report.state == "failed"]
    causes = [report for report in failed if report.exit_code not in CONSEQUENCES] or failed
    if causes:
        return causes[0].trouble or f"exit code {causes[0].exit_code}", causes[0].exit_code
    blamed = failed_worker(snapshot) is not None and snapshot.stop is not None
    return (snapshot.stop.reason if blamed and snapshot.stop else "its job failed"), None
