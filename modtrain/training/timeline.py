"""Timeline: the epoch, stage and progress of every step of a run.

A pure function of the run's epochs, its exchange interval and the batch counts, hence the same in every worker. It is
the only place that relates steps to epochs. Steps and epochs are counted since the beginning of the run, through all
stages.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modtrain.storage.run import RunSpec


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive epochs of one stage, all with the same number of steps."""

    stage: str
    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where training is after `step` steps, which is where step number `step` belongs."""

    step: int
    epoch: int
    """Epochs completed, which is also the number of the current epoch, counted from 0."""
    epoch_step: int
    """Steps of the current epoch that are completed, in [0, steps_per_epoch)."""
    steps_per_epoch: int
    stage: str
    progress: float
    """Completed part of the run by steps: in [0, 1), and 1 only at the end of the run."""
    stage_progress: float
    """Completed part of the stage: in [0, 1), and 1 only at the end of the run. Held as `schedule_progress` is."""
    stage_epochs: range
    """The epochs of the stage."""
    schedule_progress: float
    """What schedules and losses get: `progress`, or in a run with held schedules that of the epochs that they cover."""

    @property
    def epochs(self) -> float:
        """Epochs completed, with the completed part of the current one."""
        return self.epoch + self.epoch_step / self.steps_per_epoch

    @property
    def is_epoch_boundary(self) -> bool:
        """Whether no step of the current epoch is completed; true at step 0 and at the end of the run."""
        return self.epoch_step == 0


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The stretches of a run in order, and its exchange points."""

    stretches: tuple[Stretch, ...]
    exchange_every: int | None = None
    """Steps between two exchange points, counted from the beginning of the run; None exchanges at epoch ends only."""
    schedule_epochs: int | None = None
    """Epochs that the schedules cover; after them the value of their last step holds. None covers the whole run."""
    later_steps: int = 0
    """Steps of the stages after which the run may go on later, which schedules cover as well."""

    @classmethod
    def of(cls, spec: RunSpec, steps_per_epoch: Sequence[int]) -> Timeline:
        """The timeline of a run whose training data has so many steps in an epoch of each of its stages.

        Those of the stages after which it may go on later follow.
        """
        stretches = tuple(
            Stretch(stage=stage.name, epochs=stage.epochs, steps_per_epoch=steps)
            for stage, steps in zip([*spec.all_stages, *spec.later_stages], steps_per_epoch, strict=True)
        )
        count = len(spec.all_stages)
        return cls(
            stretches=stretches[:count],
            exchange_every=spec.exchange_every,
            schedule_epochs=spec.schedule_epochs,
            later_steps=sum(stretch.steps for stretch in stretches[count:]),
        )

    @property
    def epochs(self) -> int:
        return sum(stretch.epochs for stretch in self.stretches)

    @property
    def steps(self) -> int:
        return sum(stretch.steps for stretch in self.stretches)

    def at(self, step: int) -> Position:
        """The position after `step` steps; every step beyond the end of the run gives its end."""
        step = min(step, self.steps)
        first_step, first_epoch, stretch = next(
            each for each in reversed(list(self._starts())) if each[0] <= step and each[2].epochs
        )
        epoch, epoch_step = divmod(step - first_step, stretch.steps_per_epoch)
        return Position(
            step=step,
            epoch=first_epoch + epoch,
            epoch_step=epoch_step,
            steps_per_epoch=stretch.steps_per_epoch,
            stage=stretch.stage,
            progress=step / self.steps,
            stage_progress=self._stage_progress(step - first_step, first_epoch, stretch),
            stage_epochs=range(first_epoch, first_epoch + stretch.epochs),
            schedule_progress=self._schedule_progress(step),
        )

    def at_epoch(self, epoch: int) -> Position:
        """The position after so many epochs, which is where the first step of the next one belongs."""
        for first_step, first_epoch, stretch in self._starts():
            if epoch < first_epoch + stretch.epochs:
                return self.at(first_step + (epoch - first_epoch) * stretch.steps_per_epoch)
        return self.at(self.steps)

    def _starts(self) -> Iterator[tuple[int, int, Stretch]]:
        """Each stretch with the steps and the epochs before it."""
        steps = epochs = 0
        for stretch in self.stretches:
            yield steps, epochs, stretch
            steps, epochs = steps + stretch.steps, epochs + stretch.epochs

    @functools.cached_property
    def _schedule_steps(self) -> int:
        """Steps of the epochs that the schedules cover."""
        if self.schedule_epochs is None:
            return self.steps + self.later_steps
        steps, left = 0, self.schedule_epochs
        for stretch in self.stretches:
            epochs = min(stretch.epochs, left)
            steps, left = steps + epochs * stretch.steps_per_epoch, left - epochs
        return steps

    def _schedule_progress(self, step: int) -> float:
        steps = self._schedule_steps
        return step / steps if steps >= self.steps else min(step, steps - 1) / steps

    def _stage_progress(self, step: int, first_epoch: int, stretch: Stretch) -> float:
        """After `step` steps of a stretch, held after the epochs that the schedules cover."""
        covered = stretch.epochs if self.schedule_epochs is None else self.schedule_epochs - first_epoch
        if not 0 < covered < stretch.epochs:
            return step / stretch.steps
        steps = covered * stretch.steps_per_epoch
        return min(step, steps - 1) / steps

    def is_exchange_point(self, step: int) -> bool:
        """Whether weights are exchanged at a step inside an epoch; the end of an epoch publishes in any case."""
        every = self.exchange_every
        return every is not None and step % every == 0 and not self.at(step).is_epoch_boundary
