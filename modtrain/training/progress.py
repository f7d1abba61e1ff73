"""Progress: what a worker reports while it trains: curve lines, heartbeat, log lines, rate and time left."""

from __future__ import annotations

import logging
import time

from modtrain.storage.heartbeat import Heartbeat
from modtrain.training.learner import Learner
from modtrain.training.stages import RunStages
from modtrain.training.timeline import Position
from modtrain.training.timing import PaceEstimator, PhaseTimer
from modtrain.training.trackers.base import Tracking

log = logging.getLogger(__name__)

REPORT_STEPS = 20
"""Steps between two lines of the training curve, at most."""
REPORT_S = 5.0
"""Seconds between two lines of the training curve, at most."""
LOG_S = 10.0
"""Seconds between two log lines about epochs, at least: epochs may be short."""


class Progress:
    """Reports the progress of one worker."""

    def __init__(self, stages: RunStages, learners: list[Learner], heartbeat: Heartbeat, timer: PhaseTimer) -> None:
        self._timeline, self._end = stages.timeline, stages.end(learner.name for learner in learners)
        self._learners, self._heartbeat, self._timer = learners, heartbeat, timer
        self._pace = self._new_pace()
        self._pace_of: object = None
        """What a step computed when the pace was measured."""
        self._reported_at, self._logged_at = time.monotonic(), float("-inf")
        self.tracking: Tracking | None = None
        """Gets every curve line; None before training."""

    @property
    def state(self) -> str:
        """State of the worker between two waits: resting while neither stage nor schedule trains one of its modules."""
        return "resting" if all(learner.resting for learner in self._learners) else "running"

    @property
    def state_of_wait(self) -> str:
        """State of the worker while it waits for a peer: one whose stage trains none of its modules rests."""
        return "waiting" if any(learner.trains for learner in self._learners) else "resting"

    def start_epoch(self, position: Position) -> None:
        """The peers are refreshed and the first batch of an epoch follows."""
        self._pace.start_epoch(time.monotonic(), position.step)

    def after_step(self, position: Position) -> None:
        """Report if the last report is old enough."""
        if position.step % REPORT_STEPS == 0 or time.monotonic() - self._reported_at > REPORT_S:
            self.report(position)

    def report(self, position: Position) -> None:
        """Write the curve lines and update the heartbeat. Waits for the device; Diverged where a loss is not finite."""
        self._reported_at = time.monotonic()
        self._measure_pace(position)
        if trained := [learner for learner in self._learners if learner.metrics.check()]:
            seconds = self._timer.lap()
            for learner in trained:
                line = learner.metrics.write(position.epochs, learner.lr, seconds)
                if self.tracking is not None:
                    self.tracking.line(learner.name, line)
        trains = any(learner.trains for learner in self._learners)  # else an epoch passes in no time
        self._heartbeat.report(
            state=self.state,
            epoch=position.epoch,
            step=position.step,
            steps_per_s=self._pace.steps_per_s(position.steps_per_epoch) if trains else None,
            left_s=self._left_s(position),
            losses={learner.name: learner.metrics.means for learner in self._learners},
        )

    def log_epoch(self, position: Position) -> None:
        """Log the epochs completed and the losses, not more often than every LOG_S."""
        if (now := time.monotonic()) - self._logged_at < LOG_S and position.step < self._end.step:
            return
        self._logged_at = now
        means = {learner.name: learner.metrics.means for learner in self._learners if learner.metrics.means}
        losses = ", ".join(f"loss of {name} {v['loss']:.4g}" for name, v in means.items() if "loss" in v)
        epochs = self._timeline.epochs
        log.info("Epoch %d of %d, step %d%s", position.epoch, epochs, position.step, losses and f": {losses}")

    def _new_pace(self) -> PaceEstimator:
        return PaceEstimator(interval_steps=self._timeline.exchange_every or 1)

    def _measure_pace(self, position: Position) -> None:
        computes = position.stage, [learner.resting for learner in self._learners]
        if computes != self._pace_of:
            self._pace_of, self._pace = computes, self._new_pace()  # a step computes something else from now on
            self._pace.start_epoch(self._reported_at, position.step)
        elif position.is_epoch_boundary:
            self._pace.end_epoch(self._reported_at, position.step)
        else:
            self._pace.update(self._reported_at, position.step)

    def _left_s(self, position: Position) -> float | None:
        """None also before the last stage, and while a module rests that trains later: other steps cost other times."""
        if position.stage_epochs.stop < self._end.epoch:
            return None
        resting = (learner for learner in self._learners if learner.trains and learner.resting)
        if any(learner.trains_after(position.schedule_progress) for learner in resting):
            return None
        return self._pace.left_s(max(0, self._end.step - position.step), position.steps_per_epoch)
