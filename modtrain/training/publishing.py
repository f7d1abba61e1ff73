"""Publishing: checkpoints of a worker's learners, with retries where shared storage refuses them."""

from __future__ import annotations

from collections.abc import Sequence

from modtrain.storage import filesystem
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.learner import Learner
from modtrain.training.pins import Pins
from modtrain.training.stages import RunStages
from modtrain.training.timeline import Position


class Publishing:
    """Publishes the learners of one worker. Training continues between two attempts of a publish that fails."""

    def __init__(
        self, run: Run, stages: RunStages, learners: Sequence[Learner], heartbeat: Heartbeat, read_by_peers: set[str]
    ) -> None:
        """`read_by_peers`: the modules of this worker that others read; only these are published inside an epoch."""
        self._run, self._stages, self._learners, self._heartbeat = run, stages, learners, heartbeat
        self._read_by_peers = read_by_peers
        self._backoff = filesystem.Backoff("Publishing", run.path, run.spec.storage_timeout_s)
        self._pins = Pins(run, learners)
        self.ends_early = False
        """Whether what is published now is the last version, although the run has further epochs."""
        self.error: OSError | None = None
        """Why the last publish failed; None where it succeeded."""

    def publish(self, position: Position, *, full: bool, last: bool = False) -> None:
        """Publish every learner with all that resuming needs (`full`), or the weights that other workers read.

        One that rests in the stage is published only where its last version is not. The last version of a learner that
        no later stage trains is final.
        A refusal of storage is kept in `error`. What is to be published before its retry is due waits for the retry,
        unless it is the `last` publish before the worker exits. FencedOut, Diverged, RunMoved; StorageError after the
        run's `storage_timeout_s`.
        """
        if self.error is not None and not self.is_retry_due() and not last:
            return
        full = full or self.error is not None  # what failed may have been a full checkpoint
        try:
            self._run.check_present()
            if full:
                self._pins.update()
            for learner in self._learners:
                if self._is_due(learner, position, full=full):
                    trained = self._stages.trained_at(learner.name, position)
                    final = full and (self.ends_early or trained.step == self._stages.end([learner.name]).step)
                    learner.publish(epoch=trained.epoch, step=trained.step, full=full, final=final)
        except OSError as error:
            self.error = error
            self._backoff.fail(error)
            self._heartbeat.report(trouble=self._backoff.trouble, now=True)
        else:
            self.error = None
            self._backoff.succeed()
            self._heartbeat.report(trouble=None)

    def _is_due(self, learner: Learner, position: Position, *, full: bool) -> bool:
        if learner.trains:
            return full or learner.name in self._read_by_peers
        return full and not self._is_published(learner, position)

    def _is_published(self, learner: Learner, position: Position) -> bool:
        return self._stages.trained_at(learner.name, position).step <= learner.published_step <= position.step

    def is_complete(self, position: Position) -> bool:
        """Whether every learner has a full checkpoint with its weights at a position."""
        return all(self._is_published(learner, position) for learner in self._learners)

    def is_retry_due(self) -> bool:
        """Whether the last publish failed and its pause is over."""
        return self.error is not None and self._backoff.is_due
