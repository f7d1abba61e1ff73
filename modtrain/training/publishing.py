"""Publishing: checkpoints of a worker's learners, with retries where shared storage refuses them."""

from __future__ import annotations

from collections.abc import Sequence

from modtrain.storage import filesystem
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.learner import Learner
from modtrain.training.timeline import Position


class Publishing:
    """Publishes the learners of one worker. Training continues between two attempts of a publish that fails."""

    def __init__(self, run: Run, learners: Sequence[Learner], heartbeat: Heartbeat, read_by_peers: set[str]) -> None:
        """`read_by_peers`: the modules of this worker that others read; only these are published inside an epoch."""
        self._run, self._learners, self._heartbeat = run, learners, heartbeat
        self._read_by_peers = read_by_peers
        self._backoff = filesystem.Backoff("Publishing", run.path, run.spec.storage_timeout_s)
        self.error: OSError | None = None
        """Why the last publish failed; None where it succeeded."""

    def publish(self, position: Position, *, full: bool, last: bool = False) -> None:
        """Publish every learner with all that resuming needs (`full`), or the weights that other workers read.

        A refusal of storage is kept in `error`. What is to be published before its retry is due waits for the retry,
        unless it is the `last` publish before the worker exits. FencedOut, Diverged, RunMoved; StorageError after the
        run's `storage_timeout_s`.
        """
        if self.error is not None and not self.is_retry_due() and not last:
            return
        full = full or self.error is not None  # what failed may have been a full checkpoint
        final = full and position.progress == 1
        try:
            self._run.check_present()
            for learner in self._learners:
                if full or learner.name in self._read_by_peers:
                    learner.publish(epoch=position.epoch, step=position.step, full=full, final=final)
        except OSError as error:
            self.error = error
            self._backoff.fail(error)
            self._heartbeat.report(trouble=self._backoff.trouble, now=True)
        else:
            self.error = None
            self._backoff.succeed()
            self._heartbeat.report(trouble=None)

    def is_complete(self, step: int) -> bool:
        """Whether every learner has a full checkpoint of a step."""
        return all(learner.published_step == step for learner in self._learners)

    def is_retry_due(self) -> bool:
        """Whether the last publish failed and its pause is over."""
        return self.error is not None and self._backoff.is_due
