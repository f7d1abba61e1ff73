"""The trials of a sweep as they are now: read, counted by state, and ranked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from modtrain.errors import InputError, did_you_mean
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.run_snapshot import JobPhase
from modtrain.storage.run_state import BY_URGENCY, RunState
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.sweep_jobs import submitted_trials, sweep_jobs, trial_phases
from modtrain.sweeps.sweep_state import pending_state, sweep_state
from modtrain.sweeps.trial import Trial, metric_value


def read_trials(sweep: Sweep, *, ask_scheduler: bool = True, is_launched: bool | None = None) -> list[Trial]:
    """Every trial by number; one whose run is damaged has failed, with the reason in `why`.

    A scheduler is asked once, and BackendSilent raised where it does not answer. Trials on this machine and on a Ray
    cluster are read from their folders, as every view does it. `is_launched`: whether a process runs the trials;
    None looks for one.
    """
    phases = trial_phases([own for own in sweep_jobs(sweep) if own.needs_no_launcher]) if ask_scheduler else {}
    submitted = set[int]() if ask_scheduler else submitted_trials(sweep)
    stop = sweep.stop_request()
    if is_launched is None:
        is_launched = launcher_pid(sweep.path) is not None

    def read(number: int) -> Trial:
        trial = _read_trial(sweep, number, phases.get(number))
        if trial.state != "created" or sweep.intact_run(number) is not None:
            return trial
        return replace(trial, state=pending_state(number, submitted, stop, is_launched=is_launched))

    return sweep.map_trials(read)


def count_pending(sweep: Sweep, begun: Collection[int], stop: StopRequest | None, *, is_launched: bool) -> Counter[str]:
    """The number of trials without a run in each state, without asking a scheduler; `begun` are the other trials."""
    count = max(0, sweep.spec.trials - len(begun))
    queued = 0
    if count and stop is None:
        queued = count if is_launched else len(submitted_trials(sweep) - set(begun))
    return Counter(queued=min(queued, count), created=count - min(queued, count))


def state_of(sweep: Sweep, trials: Iterable[Trial]) -> RunState:
    """The state of the sweep whose trials these are."""
    is_launched = launcher_pid(sweep.path) is not None
    return sweep_state(count_states(trials), sweep.stop_request(), is_launched=is_launched)


def count_states(trials: Iterable[Trial]) -> Mapping[str, int]:
    """The number of trials in each state that one of them has, most urgent first."""
    states = [trial.state for trial in trials]
    return {state: states.count(state) for state in BY_URGENCY if state in states}


def rank(sweep: Sweep, trials: Iterable[Trial], *, maximize: bool | None = None) -> list[Trial]:
    """The trials, best result first; those without one last. `maximize` is the sweep's where it is None."""
    sign = -1 if (sweep.spec.maximize if maximize is None else maximize) else 1

    def key(trial: Trial) -> tuple[bool, float, int]:
        if trial.result is None or math.isnan(trial.result):
            return True, 0.0, trial.number
        return False, sign * trial.result, trial.number

    return sorted(trials, key=key)


def with_metric(sweep: Sweep, trials: Iterable[Trial], metric: str) -> list[Trial]:
    """The same trials with another metric as their result; InputError where trials have metrics, but not this one."""
    results = [replace(trial, result=_value(sweep, trial, metric)) for trial in trials]
    known = sorted({name for trial in results for name in trial.metrics})
    if known and metric not in known and all(trial.result is None for trial in results):
        raise InputError(f"No trial has {metric!r}; there is {', '.join(known)}.{did_you_mean(metric, known)}")
    return results


def _read_trial(sweep: Sweep, number: int, phase: JobPhase | None) -> Trial:
    try:
        return sweep.trial(number, phase)
    except InputError as error:
        return replace(sweep.trial_without_run(number, "failed", str(error)), is_damaged=True)


def _value(sweep: Sweep, trial: Trial, metric: str) -> float | None:
    run = sweep.intact_run(trial.number) if "." in metric else None
    if run is None or metric in trial.metrics:
        return trial.metrics.get(metric)
    return metric_value(run, metric, None)
