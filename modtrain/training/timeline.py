"""Timeline: the epoch, stage and progress of every step of a run.

A pure function of the run's epochs, its exchange interval and the batch counts, hence the same in every worker. It is
the only place that relates steps to epochs. A step counts batches since the beginning of the run; epochs are numbered
through all stages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from modtrain.storage.run import RunSpec


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive epochs of one stage, all with the same number of batches."""

    stage: str
    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where training is after `step` batches, which is where batch number `step` belongs."""

    step: int
    epoch: int
    """Epochs completed, which is also the number of the current epoch, counted from 0."""
    batch: int
    """Batches of the current epoch that are completed, in [0, steps_per_epoch)."""
    steps_per_epoch: int
    stage: str
    progress: float
    """Completed part of the run by steps: in [0, 1), and 1 only at the end of the run."""
    stage_progress: float
    """Completed part of the stage: in [0, 1), and 1 only at the end of the run."""
    schedule_progress: float
    """What schedules and losses get: `progress`, or in a run with held schedules that of the epochs that they cover."""

    @property
    def epochs(self) -> float:
        """Epochs completed, with the completed part of the current one."""
        return self.epoch + self.batch / self.steps_per_epoch

    @property
    def is_epoch_boundary(self) -> bool:
        """Whether no batch of the current epoch is completed; true at step 0 and at the end of the run."""
        return self.batch == 0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The stretches of a run in order, and its exchange points."""

    stretches: tuple[Stretch, ...]
    exchange_every: int | None = None
    """Steps between two exchange points, counted from the beginning of the run; None exchanges at epoch ends only."""
    schedule_epochs: int | None = None
    """Epochs that the schedules cover; after them the value of their last step holds. None covers the whole run."""

    @classmethod
    def of(cls, spec: RunSpec, steps_per_epoch: int) -> Timeline:
        """The timeline of a run whose training data has so many batches in an epoch."""
        stretch = Stretch(stage="train", epochs=spec.epochs, steps_per_epoch=steps_per_epoch)
        return cls(stretches=(stretch,), exchange_every=spec.exchange_every, schedule_epochs=spec.schedule_epochs)

    @property
    def epochs(self) -> int:
        return sum(stretch.epochs for stretch in self.stretches)

    @property
    def steps(self) -> int:
        return sum(stretch.steps for stretch in self.stretches)

    def at(self, step: int) -> Position:
        """The position after `step` batches; every step beyond the end of the run gives its end."""
        step = min(step, self.steps)
        stretches = [stretch for stretch in self.stretches if stretch.epochs]
        step_of_stage, first_epoch = step, 0
        while step_of_stage >= stretches[0].steps and len(stretches) > 1:
            completed = stretches.pop(0)
            step_of_stage, first_epoch = step_of_stage - completed.steps, first_epoch + completed.epochs
        stretch = stretches[0]
        epoch, batch = divmod(step_of_stage, stretch.steps_per_epoch)
        return Position(
            step=step,
            epoch=first_epoch + epoch,
            batch=batch,
            steps_per_epoch=stretch.steps_per_epoch,
            stage=stretch.stage,
            progress=step / self.steps,
            stage_progress=step_of_stage / stretch.steps,
            schedule_progress=self._schedule_progress(step),
        )

    @functools.cached_property
    def _schedule_steps(self) -> int:
        """Steps of the epochs that the schedules cover."""
        steps, left = 0, self.epochs if self.schedule_epochs is None else self.schedule_epochs
        for stretch in self.stretches:
            epochs = min(stretch.epochs, left)
            steps, left = steps + epochs * stretch.steps_per_epoch, left - epochs
        return steps

    def _schedule_progress(self, step: int) -> float:
        steps = self._schedule_steps
        return step / steps if steps == self.steps else min(step, steps - 1) / steps

    def is_exchange_point(self, step: int) -> bool:
        """Whether weights are exchanged at a step inside an epoch; the end of an epoch publishes in any case."""
        every = self.exchange_every
        return every is not None and step % every == 0 and not self.at(step).is_epoch_boundary
