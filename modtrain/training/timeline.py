"""Timeline: the epoch, stage and progress of every step of a run.

A pure function of the run's epochs, its exchange interval and the batch counts, hence the same in every worker. It is
the only place that relates steps to epochs. A step counts batches since the beginning of the run; epochs are numbered
through all stages.
"""

from __future__ import annotations

from dataclasses import dataclass

STAGE = "train"
"""Name of the only stage of a recipe without stages."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive epochs of one stage, all with the same number of batches."""

    stage: str
    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Batches in all epochs of the stretch."""
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
    """Batches in the current epoch."""
    stage: str
    progress: float
    """Completed part of the run by steps: in [0, 1), and 1 only at the end of the run."""
    stage_progress: float
    """Completed part of the stage: in [0, 1), and 1 only at the end of the run."""

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

    @staticmethod
    def of_one_stage(*, epochs: int, steps_per_epoch: int, exchange_every: int | None = None) -> Timeline:
        """The timeline of a recipe without stages."""
        stretch = Stretch(stage=STAGE, epochs=epochs, steps_per_epoch=steps_per_epoch)
        return Timeline(stretches=(stretch,), exchange_every=exchange_every)

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return sum(stretch.epochs for stretch in self.stretches)

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return sum(stretch.steps for stretch in self.stretches)

    def at(self, step: int) -> Position:
        """The position after `step` batches; every step beyond the end of the run gives its end."""
        total = self.steps
        first_step = first_epoch = 0
        for stretch in self.stretches:
            if step < first_step + stretch.steps:
                epoch, batch = divmod(step - first_step, stretch.steps_per_epoch)
                return Position(
                    step=step,
                    epoch=first_epoch + epoch,
                    batch=batch,
                    steps_per_epoch=stretch.steps_per_epoch,
                    stage=stretch.stage,
                    progress=step / total,
                    stage_progress=(step - first_step) / stretch.steps,
                )
            first_step, first_epoch = first_step + stretch.steps, first_epoch + stretch.epochs
        return self._end()

    def end_of_epoch(self, epoch: int) -> int:
        """The step at which epoch number `epoch`, counted from 0, is completed."""
        end, remaining = 0, epoch + 1
        for stretch in self.stretches:
            completed = min(remaining, stretch.epochs)
            end += completed * stretch.steps_per_epoch
            remaining -= completed
            if remaining == 0:
                return end
        raise ValueError(f"The run has {self.epochs} epochs, numbered from 0; there is no epoch {epoch}.")

    def is_epoch_boundary(self, step: int) -> bool:
        """Whether an epoch ends, or the run begins, at a step."""
        return self.at(step).is_epoch_boundary

    def is_exchange_point(self, step: int) -> bool:
        """Whether weights are exchanged at a step inside an epoch; the end of an epoch publishes in any case."""
        every = self.exchange_every
        return every is not None and step % every == 0 and not self.is_epoch_boundary(step)

    def _end(self) -> Position:
        last = self.stretches[-1]
        return Position(
            step=self.steps,
            epoch=self.epochs,
            batch=0,
            steps_per_epoch=last.steps_per_epoch,
            stage=last.stage,
            progress=1.0,
            stage_progress=1.0,
        )
