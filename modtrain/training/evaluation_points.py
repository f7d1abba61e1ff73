"""EvaluationPoints: the evaluations of a run while it trains, each of one epoch of all modules.

The worker that completes the epoch last measures it, with the versions that were published at its end. Until then every
worker keeps its own version of that epoch. Training is never stopped: what fails is recorded and logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from modtrain.errors import ModtrainError, message_of
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import params_of
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.run import Run
from modtrain.training.evaluation import NOT_LOADED, NothingToEvaluate, evaluate, record_failure, tracking_of
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
        self, run: Run, recipe: Recipe, stages: RunStages, learners: Sequence[Learner], *, device: str
    ) -> None:
        self._run, self._stages, self._learners, self._device = run, stages, learners, device
        self._every = run.spec.evaluate_every if recipe.evaluate is not None else 0
        params = params_of(run.spec, recipe)
        self._test = next((stage.data.test for stage in stages.stages if stage.params == params), NOT_LOADED)
        self._tracking: Tracking | None = None
        """Opened by the first evaluation: in many runs another worker makes all of them."""
        self._open = contextlib.ExitStack()

    def __enter__(self) -> None: ...

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def after_epoch(self, epoch: int) -> None:
        """Evaluate what is due and this worker was the last one to complete: this epoch, and later ones if it rests."""
        if not self._every:
            return
        try:
            measured = max((record.epoch for record in read_evaluations(self._run.evaluations_path)), default=0)
            self._retain([each for each in range(measured + 1, epoch + 1) if self._is_due(each)])
            later = (each for each in range(max(epoch, measured + 1), self._run.spec.epochs) if self._is_due(each))
            for due in later:
                if (versions := self._versions_of(due)) is None:
                    break
                self._evaluate(versions)
        except OSError as error:
            log.warning("Not evaluated after epoch %d: %s", epoch, message_of(error))

    def _is_due(self, epoch: int) -> bool:
        """The end of the run is evaluated once its last versions are published."""
        return 0 < epoch < self._run.spec.epochs and self._every > 0 and epoch % self._every == 0

    def _evaluate(self, versions: Mapping[str, int]) -> None:
        try:
            with kept_random_state():  # also of what the recipe's file draws when it is read again
                if self._tracking is None:
                    self._tracking = self._open.enter_context(tracking_of(self._run))
                given: dict[str, Any] = {"device": self._device, "test": self._test, "tracking": self._tracking}
                evaluate(self._run, version=versions, **given)
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
        newest = {module: self._run.store(module).latest() for module in self._run.modules}
        waiting = [
            epoch
            for epoch in epochs
            if any(last is None or last.step < self._step_of(module, epoch + 1) for module, last in newest.items())
        ][:MOST_WAITING]
        for learner in self._learners:
            steps = {self._step_of(learner.name, epoch) for epoch in waiting}
            learner.publisher.retain(each.version for each in learner.publisher.present() if each.step in steps)
