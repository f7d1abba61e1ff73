"""Publishing: checkpoints of a worker's learners, with retries where shared storage refuses them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from modtrain.errors import StorageError
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.learner import Learner
from modtrain.training.timeline import Position

log = logging.getLogger(__name__)

GIVE_UP_S = 15 * 60.0
"""Seconds after which a worker gives up if every publish since has failed."""
RETRY_S = 2.0
"""Seconds before a failed publish is tried again; doubles with every failure, up to a minute."""
LONGEST_RETRY_S = 60.0


class Publishing:
    """Publishes the learners of one worker. Training continues between two attempts of a publish that fails."""

    def __init__(self, run: Run, learners: Sequence[Learner], heartbeat: Heartbeat, read_by_peers: set[str]) -> None:
        """`read_by_peers`: the modules of this worker that others read; only these are published inside an epoch."""
        self._run, self._learners, self._heartbeat = run, learners, heartbeat
        self._read_by_peers = read_by_peers
        self._failing_since = self._retry_at = self._pause_s = 0.0
        self.error: OSError | None = None
        """Why the last publish failed; None where it succeeded."""

    def publish(self, position: Position, *, full: bool, last: bool = False) -> None:
        """Publish every learner with all that resuming needs (`full`), or the weights that other workers read.

        A refusal of storage is kept in `error`. What is to be published before its retry is due waits for the retry,
        unless it is the `last` publish before the worker exits. FencedOut, Diverged; StorageError after `GIVE_UP_S`.
        """
        if self.error is not None and not self.is_retry_due() and not last:
            return
        full = full or self.error is not None  # what failed may have been a full checkpoint
        final = full and position.progress == 1
        try:
            for learner in self._learners:
                if full or learner.name in self._read_by_peers:
                    learner.publish(epoch=position.epoch, step=position.step, full=full, final=final)
        except OSError as error:
            self._record_failure(error)
        else:
            self.error = None
            self._heartbeat.report(trouble=None)

    def is_complete(self, step: int) -> bool:
        """Whether every learner has a full checkpoint of a step."""
        return all(learner.published_step == step for learner in self._learners)

    def is_retry_due(self) -> bool:
        """Whether the last publish failed and its pause is over."""
        return self.error is not None and time.monotonic() >= self._retry_at

    def _record_failure(self, error: OSError) -> None:
        now = time.monotonic()
        if self.error is None:
            self._failing_since, self._pause_s = now, RETRY_S / 2
        self.error, failing_s = error, now - self._failing_since
        if failing_s >= GIVE_UP_S:
            raise StorageError(
                f"Publishing to {self._run.path} has failed for {failing_s:.0f} s: {error}. Free some space or "
                f'repair the folder (see "modtrain doctor {self._run.path}"), then launch {self._run.name} again.'
            ) from error
        self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)
        self._retry_at = now + self._pause_s
        log.warning("Publishing failed, trying again in %.0f s: %s", self._pause_s, error)
        self._heartbeat.report(trouble=f"publishing failed, next attempt in {self._pause_s:.0f} s: {error}", now=True)
