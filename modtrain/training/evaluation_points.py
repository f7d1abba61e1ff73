"""EvaluationPoints: the evaluations of a run while it trains, each of one epoch of all modules.

The worker that completes the epoch last measures it, with the versions that were published at its end; of several that
complete it at the same moment, the one that claims it first. Until then every worker keeps its own version of that
epoch. Training is never stopped: what fails is recorded and logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modtrain.data.base import Data
from modtrain.errors import ModtrainError, message_of
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import params_of
from modtrain.storage.evaluations import TEST, VALID, claim_evaluation, read_evaluations
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.evaluation import NothingToEvaluate, evaluate, record_failure, share_evaluation, tracking_of
from modtrain.training.learner import Learner
from modtrain.training.random_state import kept_random_state
from modtrain.training.stages import RunStages
from modtrain.training.trackers.base import Tracking

log = logging.getLogger(__name__)

MOST_WAITING = 10
"""Evaluations for which versions are kept, at most: without a bound on staleness a worker may be far ahead."""


class EvaluationPoints:
    """The evaluations that one worker of a run takes part in; the end of a `with` block closes their trackers."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        stages: RunStages,
        learners: Sequence[Learner],
        heartbeat: Heartbeat,
        *,
        device: str,
    ) -> None:
        self._run, self._recipe, self._stages, self._learners = run, recipe, stages, learners
        self._heartbeat, self._device = heartbeat, device
        self._worker = "+".join(learner.name for learner in learners)
        self._every = run.spec.evaluate_every if recipe.evaluate is not None else 0
        self._data: Data | None = None
        self._validation: Any = None
        self._tracking: Tracking | None = None
        """Opened by the first evaluation: in many runs another worker makes all of them."""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> None: ...

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def after_epoch(self, epoch: int) -> bool:
        """Measure what is due and this worker was the last one to complete: this epoch, and later ones if it rests.

        Returns whether the run ends early, by what was measured up to now.
        """
        if not self._every and self._run.spec.early_stop is None:
            return False
        try:
            if not self._ends_early():
                self._measure(epoch)
            return self._ends_early()
        except (OSError, ModtrainError) as error:
            log.warning("Not evaluated after epoch %d: %s", epoch, message_of(error))
            return False

    def _ends_early(self) -> bool:
        outcome = self._run.early_stop_outcome()
        return outcome is not None and outcome.stopped_at is not None

    def _measure(self, epoch: int) -> None:
        due = sorted(set[int]().union(*self._due()))
        self._retain([each for each in due if each <= epoch])
        for each in [each for each in due if each >= epoch]:
            if (versions := self._versions_of(each)) is None or not self._claim(each):
                break
            self._heartbeat.report(evaluating=each, now=True)  # the peers that wait for this worker wait for longer
            for validates, epochs in enumerate(self._due()):  # again: it may have been measured before it was claimed
                if each in epochs:
                    self._evaluate(versions, validates=bool(validates))
            self._heartbeat.report(evaluating=None)

    def _claim(self, epoch: int) -> bool:
        is_only_worker = len(self._learners) == len(self._run.modules)
        return is_only_worker or claim_evaluation(self._run.evaluation_path, epoch, self._worker)

    def _due(self) -> tuple[set[int], set[int]]:
        """The epochs after the newest ones measured that are to be evaluated, and those to be validated."""
        spec = self._run.spec
        evaluated, validated = map(_newest_epoch, (self._run.evaluations_path, self._run.validations_path))
        evaluations = {each for each in range(evaluated + 1, spec.epochs) if self._every and each % self._every == 0}
        validations = range(max(validated, spec.validated_from) + 1, spec.epochs + 1) if spec.early_stop else ()
        return evaluations, set(validations)

    def _evaluate(self, versions: Mapping[str, int], *, validates: bool) -> None:
        try:
            with kept_random_state():  # also of what the recipe's file draws when it is read again
                if self._tracking is None:
                    self._tracking = self._open.enter_context(tracking_of(self._run))
                if self._data is None:
                    # The run's own parameters, which a stage may not have.
                    self._data = self._stages.data_with(params_of(self._run.spec, self._recipe))
                if validates and self._validation is None:
                    self._validation = self._data.held_out
                part = TEST if self._validation is self._data.test else VALID
                if validates and part == TEST and share_evaluation(self._run, versions):
                    return
                given: dict[str, Any] = {"version": versions, "device": self._device, "tracking": self._tracking}
                test = self._validation if validates else self._data.test
                evaluate(self._run, test=test, validates=part if validates else None, **given)
        except NothingToEvaluate as error:
            self._every = 0
            log.info("Not evaluated: %s", error)
        except Exception as error:  # a full disk, the GPU's memory, the recipe
            record_failure(self._run, error)
            is_known = isinstance(error, ModtrainError | OSError)
            log.warning("The evaluation failed: %s", message_of(error), exc_info=not is_known)

    def _step_of(self, module: str, epoch: int) -> int:
        """The step of the version that a module has after an epoch: an earlier one where it rests."""
        return self._stages.trained_at(module, self._stages.timeline.at_epoch(epoch)).step

    def _versions_of(self, epoch: int) -> dict[str, int] | None:
        """The version of each module after an epoch; None where one has not completed it, or its version is gone."""
        versions = {}
        for module in self._run.modules:
            step = self._step_of(module, epoch)
            present = self._run.store(module).newest(where=lambda checkpoint: checkpoint.full)
            version = next((checkpoint.version for checkpoint in present if checkpoint.step == step), None)
            if version is None:
                return None
            versions[module] = version
        return versions

    def _retain(self, epochs: Sequence[int]) -> None:
        """Keep the own versions of those epochs that are evaluated now, or once another worker has completed them."""
        newest = {module: self._run.store(module).latest() for module in self._run.modules} if epochs else {}
        waiting = [
            epoch
            for epoch in epochs
            if any(last is None or last.step < self._step_of(module, epoch + 1) for module, last in newest.items())
        ][:MOST_WAITING]
        for learner in self._learners:
            steps = {self._step_of(learner.name, epoch) for epoch in waiting}
            learner.publisher.retain(each.version for each in learner.publisher.present() if each.step in steps)


def _newest_epoch(path: Path) -> int:
    return max((record.epoch for record in read_evaluations(path)), default=0)
