"""Study: chooses the next point of a sweep, and the trials to prune, from the results so far.

TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011) and the pruners are Optuna's. The study is
kept in memory only: a resumed sweep restores it from the runs of its trials, and gets the same next point as if it had
never stopped.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from modtrain.errors import InputError
from modtrain.sweeps.space import Choices, Dimension, Space, point

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

State = Literal["running", "finished", "pruned", "failed"]

PRUNERS = ("halving", "median")
STARTUP = 10
"""Results that TPE needs; until then its points are Sobol's."""
KEPT = 3
"""Halving keeps one trial in so many at each rung; the rungs are so many times further apart each time."""
MEDIAN_OF = 5
"""Finished trials that the median needs."""
WORST = 1e300
"""Value of NaN and infinity (with a sign): worse than any result, and still usable for interpolation."""
ATTEMPTS = 20
"""Points that TPE proposes before one that was tried already is accepted."""


@dataclass
class _Trial:
    values: dict[str, Any]
    record: optuna.Trial | None
    """Optuna's record of the trial, where there is one."""
    state: State = "running"
    reports: dict[int, float] = field(default_factory=dict)
    reason: str | None = None


class Study:
    """The trials of a sweep, by their numbers: `ask` begins one, `report` takes its values, `tell` ends it.

    `maximize`: whether a larger result is better. "halving" (ASHA, Li et al., 2020) compares the trials after 1, 3, 9,
    ... epochs and keeps the best third of those that have reached them; "median" compares every report with the median
    of the finished trials at that epoch, once five have finished, and keeps a trial whose best report was as good.
    """

    def __init__(
        self, space: Space, *, sampler: str, seed: int, maximize: bool = True, pruner: str | None = None
    ) -> None:
        self._space, self._sampler, self._seed, self._maximize = space, sampler, seed, maximize
        self._pruner = pruner
        self._trials: dict[int, _Trial] = {}
        self._study = self._new_study() if sampler == "tpe" or pruner else None
        self._distributions = {n: _distribution(d) for n, d in space.items()} if self._study else {}

    def ask(self, number: int) -> dict[str, Any]:
        """Begin trial `number`; its values are a pure function of space, seed and number.

        Those of TPE depend on the trials and results so far as well, but not on their times. It repeats a point only
        where it finds no other one.
        """
        values = point(self._space, self._sampler, seed=self._seed, index=number)
        if self._sampler == "tpe":
            values = self._tpe_point(number, values)
        self._begin(number, values)
        return values

    def remember(
        self,
        number: int,
        values: Mapping[str, Any],
        *,
        reports: Mapping[int, float],
        result: float | None,
        state: State,
    ) -> None:
        """Restore a trial of an earlier process; trials must be restored in the order in which they began.

        A running one may report and end later. Its earlier reports count, but do not prune it.
        """
        self._begin(number, values)
        for epoch in sorted(reports):
            self._take(self._trials[number], epoch, reports[epoch])
        self.tell(number, result, state)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Take the value of a running trial after `epoch` epochs; of two reports of an epoch the first counts."""
        trial = self._trials[number]
        if trial.state != "running" or epoch in trial.reports:
            return
        if self._take(trial, epoch, value) and trial.reason is None:
            trial.reason = self._reason(trial, max(trial.reports))

    def should_prune(self, number: int) -> str | None:
        """The reason for pruning a trial, which does not change any more; None where it is to continue."""
        return self._trials[number].reason

    def tell(self, number: int, value: float | None, state: State) -> None:
        """End a trial; only the first call counts. NaN is the worst result, and a trial without a result has failed."""
        trial = self._trials[number]
        if trial.state != "running" or state == "running":
            return
        trial.state = "failed" if state == "finished" and value is None else state
        if self._study is None or trial.record is None:
            return
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        result = self._comparable(value) if trial.state == "finished" and value is not None else None
        self._study.tell(trial.record, result, states[trial.state])

    def _new_study(self) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruners: dict[str | None, optuna.pruners.BasePruner] = {
            None: optuna.pruners.NopPruner(),
            "halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=KEPT),
            "median": optuna.pruners.MedianPruner(n_startup_trials=MEDIAN_OF, n_warmup_steps=1),
        }
        pruner = pruners[self._pruner]
        return optuna.create_study(direction="maximize" if self._maximize else "minimize", pruner=pruner)

    def _tpe_point(self, number: int, values: dict[str, Any]) -> dict[str, Any]:
        """A point that was not tried yet; `values` are those for a trial that begins before there are results."""
        tried = {json.dumps(trial.values) for trial in self._trials.values()}
        if sum(trial.state in ("finished", "pruned") for trial in self._trials.values()) >= STARTUP:
            values = self._propose(number, 0)
        for attempt in range(1, ATTEMPTS):
            if json.dumps(values) not in tried:
                break
            values = self._propose(number, attempt)
        return values

    def _propose(self, number: int, attempt: int) -> dict[str, Any]:
        """A point of TPE. A new sampler for each, so that a point does not depend on the number of points before."""
        import numpy as np
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        assert self._study is not None
        seed = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=STARTUP)
        drawn = self._study.ask(self._distributions)
        self._study.tell(drawn, state=TrialState.FAIL)  # the trial that begins has these values, rounded
        return {
            name: d.choices[drawn.params[name]] if isinstance(d, Choices) else d.rounded(drawn.params[name])
            for name, d in self._space.items()
        }

    def _begin(self, number: int, values: Mapping[str, Any]) -> None:
        if number in self._trials and self._trials[number].state != "failed":
            raise ValueError(f"trial {number} has begun already")
        record = None
        if self._study is not None:
            from optuna.samplers import RandomSampler

            self._study.sampler = RandomSampler(seed=0)  # it draws nothing
            self._study.enqueue_trial({name: _encoded(name, d, values) for name, d in self._space.items()})
            record = self._study.ask(self._distributions)
        self._trials[number] = _Trial(dict(values), record)

    def _take(self, trial: _Trial, epoch: int, value: float) -> bool:
        """Keep a report; whether Optuna would prune. It counts the trials of that moment, so it is asked each time."""
        trial.reports[epoch] = float(value)
        if trial.record is None:
            return False
        trial.record.report(self._comparable(value), epoch)
        return trial.record.should_prune()

    def _reason(self, trial: _Trial, epoch: int) -> str:
        best = max if self._maximize else min
        if self._pruner == "median":
            done = [t.reports[epoch] for t in self._trials.values() if t.state == "finished" and epoch in t.reports]
            median = statistics.median(map(self._comparable, done))
            own = best(map(self._comparable, trial.reports.values()))
            return (
                f"the median of {len(done)} trials at epoch {epoch} is {_format(median)}, this one has {_format(own)}"
            )
        rung = 1
        while rung * KEPT <= epoch:
            rung *= KEPT
        here = [t.reports[min(e)] for t in self._trials.values() if (e := [e for e in t.reports if e >= rung])]
        kept, leader = max(len(here) // KEPT, 1), best(map(self._comparable, here))
        return (
            f"halving at epoch {epoch} keeps the best {kept} of {len(here)} trials; "
            f"this one has {_format(trial.reports[epoch])}, the best {_format(leader)}"
        )

    def _comparable(self, value: float) -> float:
        if math.isfinite(value):
            return min(max(float(value), -WORST), WORST)
        return -WORST if self._maximize else WORST


def _format(value: float) -> str:
    """A value for messages, where NaN and infinity are `no number`."""
    return f"{value:.4g}" if abs(value) < WORST / 10 else "no number"


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's distribution of a dimension; of choices the indices, since it has no lists and takes 1 for true."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        return CategoricalDistribution(range(len(dimension.choices)))
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _encoded(name: str, dimension: Dimension, values: Mapping[str, Any]) -> Any:
    """A value as Optuna has it; InputError where it is not in the space."""
    value = values.get(name)
    if isinstance(dimension, Choices):
        alike = [isinstance(known, bool) == isinstance(value, bool) and known == value for known in dimension.choices]
        if any(alike):
            return alike.index(True)
    elif isinstance(value, int | float) and dimension.low <= value <= dimension.high:
        return value
    raise InputError(
        f"{name} = {value!r} of an earlier trial is not in the space of this sweep; begin a new sweep for it."
    )
