"""What came of a trial: its state, its value of the sweep's metric, and why, as its run's folder tells it.

A reader and nothing more. Deliberately not here: which trials there are (`trials.py`), and running them (`queue.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modtrain.errors import CONSEQUENCES, did_you_mean
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.evaluations import evaluations
from modtrain.storage.json_lines import Growing, number
from modtrain.storage.liveness import LIVE, Beat, Pulse, launcher, states_of
from modtrain.storage.run import Run
from modtrain.storage.stop_request import blamed

PRUNED = "pruned: "
"""How the reason in the `stop` file of a pruned trial begins: the folder itself says that it was pruned."""
LIVE_JOBS = ("running", "pending")
ENDED = ("finished", "pruned", "failed")
"""States of trials from which no other result is to come."""

State = Literal["waiting", "queued", "running", "finished", "pruned", "failed", "stopped"]
Newest = Callable[[str], Checkpoint | None]
"""The newest version of a module, as whoever asks may learn of it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial as its run's folder and its jobs tell it."""

    number: int
    values: Mapping[str, Any]
    state: State
    result: float | None = None
    """The sweep's metric; None where there is none yet."""
    epoch: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""
    """Why it failed, was pruned or stopped, or has no result, in one sentence."""
    exit_code: int | None = None
    """Of the worker that made it fail, where that is known."""


def outcome(run: Run, metric: str | None, job: str | None = None, newest: Newest | None = None) -> Trial:
    """Of a trial that has begun; `job` is the phase of its jobs, None where nobody can be asked.

    `newest` tells of the versions, else their own folders do.
    """
    beats = {module: run.heartbeat(module) for module in run.modules}
    newest = newest or _newest_of(run)
    state, why, code = _state(run, beats, job, newest)
    judged: dict[str, Any] = (evaluations(run) or [{}])[-1]
    metrics, over = judged.get("metrics", {}), state == "finished"
    result = None if metric is None else result_of(run, metric, metrics, judged.get("epochs", {}), newest, over=over)
    if over and metric and result is None:
        state, why = ("running", "") if job in LIVE_JOBS else ("finished", _missing(run, metric, metrics, newest))
    trial = run.spec.trial or {}
    return Trial(
        number=int(trial.get("number", 0)),
        values=trial.get("values", {}),
        state=state,
        result=result,
        epoch=min((int(number(beat.get("epoch")) or 0) for beat in beats.values()), default=0),
        metrics=metrics,
        why=why,
        exit_code=code,
    )


def result_of(
    run: Run,
    metric: str,
    metrics: Mapping[str, float | None],
    epochs: Mapping[str, Any],
    newest: Newest,
    *,
    over: bool,
) -> float | None:
    """What a sweep ranks a trial by; `metrics` and `epochs` are of its newest evaluation.

    None for a trial that is over and was judged at an earlier epoch alone: its last one is still to be judged.
    """
    early = over and metric in metrics and _judged_at(epochs) < run.spec.epochs
    return None if early else value_of(run, metric, metrics, newest)


def value_of(run: Run, metric: str, metrics: Mapping[str, float | None], newest: Newest | None = None) -> float | None:
    """The newest value of a metric: from the evaluation, or from training (`module.scalar`)."""
    if metric in metrics:
        return number(metrics[metric])
    module, scalar = trained(run, metric)
    found = (newest or _newest_of(run))(module) if module else None
    return number(found.metrics.get(scalar)) if found else None


def trained(run: Run, metric: str) -> tuple[str, str]:
    """The module and the name of a scalar of its training; two empty texts for a metric of the evaluation."""
    module, _, scalar = metric.partition(".")
    return (module, scalar) if scalar and module in run.modules else ("", "")


def reports(run: Run, metric: str) -> dict[int, float]:
    """The metric after each epoch that has one, the first of several; NaN where it was not finite."""
    module, scalar = trained(run, metric)
    if module:
        found = [c for c in run.store(module).history() if c.full and c.epoch > 0 and scalar in c.metrics]
        return {checkpoint.epoch: checkpoint.metrics[scalar] for checkpoint in found}
    judged = [found for found in evaluations(run) if metric in found["metrics"]]
    values = {_judged_at(found["epochs"]): found["metrics"][metric] for found in reversed(judged)}
    return {epoch: math.nan if value is None else value for epoch, value in values.items() if epoch > 0}


def unknown(run: Run, metric: str, newest: Newest | None = None) -> str | None:
    """What is measured instead, where something is and the metric is not; None where nobody can say, or it is there."""
    module, scalar = trained(run, metric)
    if module:
        found = (newest or _newest_of(run))(module)
        there = [*found.metrics] if found else []
        whose, name = f"The training of {module}", scalar
    else:
        there = [*(evaluations(run) or [{"metrics": {}}])[-1]["metrics"]]
        whose, name = "The evaluation", metric
    if not there or name in there:
        return None
    return f"{whose} has no {name!r}; it has {', '.join(there)}.{did_you_mean(name, there)}"


def ends_for_good(run: Run, stop: str) -> bool:
    """Whether a stop says more than that somebody asked for it: the trial was pruned, or a worker failed."""
    return stop.startswith(PRUNED) or blamed(run.spec.placement, stop) is not None


class Judged:
    """What the evaluations of a run found, without keeping them: the newest metrics, and of each its range."""

    def __init__(self, path: Path) -> None:
        self.newest: dict[str, float | None] = {}
        self.epochs: dict[str, Any] = {}
        """Of the modules that were judged last."""
        self.range: dict[str, tuple[float, float]] = {}
        """By metric the lowest and the highest value of all."""
        self._growing = Growing(path)

    def look(self) -> bool:
        """Whether there is something new."""
        changed, anew = self._growing.look()
        if not changed:
            return False
        if anew:
            self.newest, self.epochs, self.range = {}, {}, {}
        while (lines := self._growing.more()) is not None:
            for line in lines:
                self._take(line)
        return True

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            metrics, epochs = dict(said["metrics"]), dict(said["epochs"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        self.newest = {str(name): number(value) for name, value in metrics.items()}
        self.epochs = epochs
        for name, value in self.newest.items():
            if value is not None:
                low, high = self.range.get(name, (value, value))
                self.range[name] = min(low, value), max(high, value)


def is_complete(newest: Iterable[Checkpoint | None]) -> bool:
    """Whether these are the last versions of a run's modules."""
    return all(checkpoint is not None and checkpoint.final for checkpoint in newest)


def _newest_of(run: Run) -> Newest:
    return lambda module: run.store(module).latest()


def _judged_at(epochs: Mapping[str, Any]) -> int:
    """The epoch of the oldest version that an evaluation judged; 0 where it does not say."""
    return min((int(found) for epoch in epochs.values() if (found := number(epoch)) is not None), default=0)


def _missing(run: Run, metric: str, metrics: Mapping[str, float | None], newest: Newest) -> str:
    """Why a finished run has no value of the metric."""
    if (said := unknown(run, metric, newest)) is not None:
        return said
    if metric in metrics and metrics[metric] is None:
        return f"{metric} is not finite."
    return f"It was not evaluated at its end; `modtrain evaluate {run.path}` does it, or says why it cannot."


def _state(run: Run, beats: Mapping[str, Beat], job: str | None, newest: Newest) -> tuple[State, str, int | None]:
    """The state of a run, why, and the exit code of a failure."""
    said = {str(beat.get("state", "")) for beat in beats.values()}
    if said == {"finished"} or (job not in LIVE_JOBS and is_complete(newest(module) for module in run.modules)):
        return "finished", "", None
    stop = run.stop_requested() or ""
    if stop.startswith(PRUNED):
        return "pruned", stop.removeprefix(PRUNED), None
    if job in LIVE_JOBS:
        return ("running" if job == "running" else "queued"), "", None
    if (failure := _failure(run, beats, stop)) is not None:
        return "failed", *failure
    if job is None and said & set(LIVE) and set(states_of(run, beats).values()) & set(LIVE):
        return "running", "", None
    if job == "ended" and _lives_here(beats):
        return "running", "another worker trains it now", None
    if said == {""} and not stop:
        return ("waiting" if launcher(run) is None else "queued"), "", None  # its worker has only said nothing yet
    died = "its worker died without a word" if said & set(LIVE) else ""
    return "stopped", stop or died or next((str(b["trouble"]) for b in beats.values() if b.get("trouble")), ""), None


def _lives_here(beats: Mapping[str, Beat]) -> bool:
    """Whether a worker lives for certain, as its process on this machine tells; nothing is waited for."""
    pulse = Pulse()
    for module, beat in beats.items():
        pulse.hear(module, beat)
    live = {module for module, state in pulse.states().items() if state in LIVE}
    return bool(live.difference(pulse.unsure()))


def _failure(run: Run, beats: Mapping[str, Beat], stop: str) -> tuple[str, int | None] | None:
    """The cause rather than its consequences: the others were late, or overtaken, because of it."""
    failed = [beat for beat in beats.values() if beat.get("state") == "failed"]
    causes = [beat for beat in failed if beat.get("exit_code") not in CONSEQUENCES] or failed
    if causes:
        code = causes[0].get("exit_code")
        return str(causes[0].get("trouble") or f"exit code {code}"), code if isinstance(code, int) else None
    blame = blamed(run.spec.placement, stop)
    return (blame[1], None) if blame else None
