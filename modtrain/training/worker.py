"""The worker: the loop that trains the modules placed on it, and the only `backward()` in the package.

    resume, or publish version 0
    each epoch:   refresh the peers (and wait for those that are too far behind)
                  each batch: for each module in turn: loss, backward, step
                  at each exchange point: publish weights, refresh the peers
                  publish a full checkpoint

Modules of one worker see each other live; those of other workers as frozen copies. Deliberately not here: what is
trained (the recipe), where this process runs (`backends/`), and data (`data/`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence

import torch
from torch import Tensor

from modtrain.data.base import Batch
from modtrain.errors import CorruptCheckpoint, InputError, MissingCheckpoint, ModtrainError, StorageError
from modtrain.recipes.loading import data_of, params_of, recipe_of
from modtrain.recipes.nets_view import Nets
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.learner import Trainee, derived_seed
from modtrain.training.metrics_writer import PLACE
from modtrain.training.peers import Peers
from modtrain.training.shutdown import Leaving
from modtrain.training.timers import Stopwatch
from modtrain.training.trackers.base import Tracking
from modtrain.training.worker_events import Logbook

log = logging.getLogger(__name__)

CURVE_STEPS = 20
"""Steps between two lines of the training curve, at most."""
CURVE_S = 5.0
"""Seconds between two lines of the training curve, at most."""
LOG_S = 10.0
"""Seconds between two epochs that the log tells of, at least."""
PUBLISH_TRIES = 8
"""Failing publishes in a row before the worker gives up."""
RETRY_S = 2.0
"""Seconds before a failed publish is tried again; doubles up to a minute."""


class Worker:
    """Trains `modules` of a run in this process until the run's last epoch."""

    def __init__(
        self,
        run: Run,
        modules: Sequence[str],
        heartbeat: Heartbeat,
        leaving: Leaving,
        logbook: Logbook,
        *,
        device: str,
        after_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """Build everything, resume or begin.

        `heartbeat` and `logbook` are told what happens, `leaving` is asked when to leave.
        """
        self.run, self.heartbeat, self.leaving, self.device = run, heartbeat, leaving, device
        self.logbook, self.stopwatch = logbook, Stopwatch()
        self.after_epoch = after_epoch
        self.recipe = recipe_of(run.spec)
        self.params = params_of(run.spec, self.recipe)
        self.data = data_of(run.spec, self.recipe, self.params)
        self.per_epoch = len(self.data.train)
        self.total = run.spec.epochs * self.per_epoch
        self.writer = uuid.uuid4().hex
        self.trainees = [
            Trainee(run, self.recipe, self.params, name, device=device, writer=self.writer) for name in modules
        ]
        self.peers = Peers(run, self.recipe, self.params, modules, device)
        others = [module for name, module in self.recipe.modules.items() if name not in modules]
        self.read_elsewhere = {edge.peer for module in others for edge in module.edges()} & set(modules)
        torch.manual_seed(derived_seed(run.spec.seed, "worker " + " ".join(modules)))
        self.step = self._resume()
        self.nets = self._nets()
        self._failures = 0
        self._refused: OSError | None = None
        self._retry_at: float | None = None
        self._rates: deque[tuple[float, int]] = deque(maxlen=32)
        self._curve_at, self._logged_at = time.monotonic(), float("-inf")

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.per_epoch

    def train(self, tracking: Tracking) -> None:
        """Walk the epochs. Leaves by an error of `errors.py` where it does not reach the end."""
        self.tracking = tracking
        self.stopwatch.lap()  # building was no training
        if self.leaving.no_time and self.step < self.total:
            raise InputError("The job's time limit leaves no time to train: raise walltime, or lower publish_before_s.")
        modules, here = ", ".join(trainee.name for trainee in self.trainees), socket.gethostname()
        log.info("Trains %s on %s (%s), steps %d to %d", modules, here, self.device, self.step, self.total)
        if self.step < self.total:
            self._publish(full=True)  # version 0; later it fences out a worker that we take over from
        while self.step < self.total:
            self._refresh(wait=True)
            with contextlib.closing(self._batches()) as batches:
                for batch in self.stopwatch.fetching(batches):
                    self._train_on(batch)
                    self._between_batches()
            self._publish(full=True)
            self._log_epoch()
            if self.step < self.total:
                self.after_epoch(self.epoch)
                self._leave_if_asked()
        while self._retry_at is not None:
            self._wait_and_retry()

    def _log_epoch(self) -> None:
        """A line of the log now and then: epochs may be short."""
        if (now := time.monotonic()) - self._logged_at >= LOG_S or self.step == self.total:
            self._logged_at = now
            losses = ", ".join(
                f"loss of {trainee.name} {trainee.curve.means['loss']:.4g}"
                for trainee in self.trainees
                if "loss" in trainee.curve.means
            )
            log.info("Epoch %d of %d, step %d%s", self.epoch, self.run.spec.epochs, self.step, losses and f": {losses}")

    def _train_on(self, batch: Batch) -> None:
        """One step of every module on one batch, in the recipe's order."""
        self.nets.forget()
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        for trainee in self.trainees:
            if trainee.set_progress(self.step / self.total):
                for _ in range(trainee.updates):
                    losses = train_step(trainee, self.nets, on_device)
                trainee.curve.add(self.step, losses)
        self.step += 1

    def _between_batches(self) -> None:
        if self.step % CURVE_STEPS == 0 or time.monotonic() - self._curve_at > CURVE_S:
            self._tell()
        every = self.run.spec.exchange_every
        boundary = self.step % self.per_epoch == 0
        if every and self.step % every == 0 and not boundary:
            self._publish(full=False)
            self._refresh(wait=False)
        if not boundary:
            self._retry_if_due()
            self._leave_if_asked()

    def _refresh(self, *, wait: bool) -> None:
        """Pull newer peers; at the beginning of an epoch wait for those that are too far behind."""
        bound = self.run.spec.max_staleness
        needed = max(0, self.epoch - bound) if wait and bound is not None else 0
        with self.stopwatch.during("exchange"), self.logbook.waits(self.epoch, self.step):
            self.peers.refresh(at_least=needed, poll=self._while_waiting)
        self.nets = self._nets()
        for trainee in self.trainees:
            trainee.lineage = self.peers.lineage(trainee.reads)
        self.heartbeat.report(state="running", waiting_for=None)

    def _while_waiting(self, peer: str) -> None:
        self.stopwatch.turn("waiting")
        self.logbook.awaits(peer)
        self.heartbeat.report(state="waiting", waiting_for=peer)
        self._retry_if_due()
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        reason = self.leaving.reason()
        if reason is not None:
            if any(trainee.published_step != self.step for trainee in self.trainees):
                self._publish(full=True)
            raise reason if self._retry_at is None else self._unpublished(reason)

    def _unpublished(self, reason: ModtrainError) -> ModtrainError:
        """The same reason to leave, where storage refused the last publish."""
        why, _, then = str(reason).rpartition("published and left")
        lost = f"left, but publishing failed ({self._refused}); the steps since the last checkpoint are lost"
        return type(reason)(f"{why}{lost}{then}")

    def _publish(self, *, full: bool) -> None:
        """Publish every module of this worker; what storage refuses is tried again soon, training goes on.

        Inside of an epoch only those that another worker reads: in joint training there is nobody to exchange with.
        """
        self._tell()
        final = full and self.step == self.total
        try:
            with self.stopwatch.during("exchange"):
                for trainee in (t for t in self.trainees if full or t.name in self.read_elsewhere):
                    trainee.publish(epoch=self.epoch, step=self.step, full=full, final=final)
        except OSError as error:
            self._publish_failed(error)
        else:
            self._failures, self._retry_at = 0, None
            self.heartbeat.report(trouble=None)

    def _publish_failed(self, error: OSError) -> None:
        self._failures, self._refused = self._failures + 1, error
        if self._failures >= PUBLISH_TRIES:
            raise StorageError(
                f"Publishing to {self.run.path} failed {self._failures} times in a row: {error}. Free some space or "
                f"mend the folder (`modtrain doctor {self.run.path}`), then launch {self.run.name} again."
            ) from error
        pause_s = min(RETRY_S * 2 ** (self._failures - 1), 60.0)
        self._retry_at = time.monotonic() + pause_s
        log.warning("Publishing failed, trying again in %.0f s: %s", pause_s, error)
        self.heartbeat.report(trouble=f"publishing failed {self._failures} times: {error}", now=True)

    def _retry_if_due(self) -> None:
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._publish(full=True)

    def _wait_and_retry(self) -> None:
        """The work is done and only storage is missing: nothing to do but to try."""
        time.sleep(0.1)
        self._retry_if_due()
        if self._retry_at is not None and (reason := self.leaving.reason()) is not None:
            raise self._unpublished(reason)

    def _resume(self) -> int:
        """Load the newest step at which each module has a full checkpoint that verifies; 0 where there is none."""
        found = [trainee.resumable() for trainee in self.trainees]
        for step in sorted(set.intersection(*map(set, found)), reverse=True):
            try:
                checkpoints = [steps[step] for steps in found]
                contents = [t.read(checkpoint) for t, checkpoint in zip(self.trainees, checkpoints, strict=True)]
            except (CorruptCheckpoint, MissingCheckpoint) as error:
                log.warning("Cannot resume from step %d: %s", step, error)
                continue
            for trainee, checkpoint, files in zip(self.trainees, checkpoints, contents, strict=True):
                trainee.resume(checkpoint, files)
            log.info("Resumed at step %d of %d", step, self.total)
            return step
        if any(found):
            log.warning("No step has a sound full checkpoint of every module here: starting from the beginning.")
        return 0

    def _nets(self) -> Nets:
        live = {trainee.name: [trainee.net] for trainee in self.trainees}
        return Nets({**live, **self.peers.nets()}, {trainee.name: trainee.reads for trainee in self.trainees})

    def _batches(self) -> Generator[Batch, None, None]:
        return self.data.train.epoch(self.epoch, seed=self.run.spec.seed, start=self.step % self.per_epoch)

    def _tell(self) -> None:
        """Write the training curve and the news: how far, how fast, how well."""
        self._curve_at = time.monotonic()
        self._rates.append((self._curve_at, self.step))
        if trained := [trainee for trainee in self.trainees if trainee.curve.check()]:
            seconds = self.stopwatch.lap()
            for trainee in trained:
                line = trainee.curve.write(self.step / self.per_epoch, trainee.lr, seconds)
                self.tracking.line(trainee.name, line)
        (then, first), (now, last) = self._rates[0], self._rates[-1]
        rate = (last - first) / (now - then) if now > then else None
        self.heartbeat.report(
            epoch=self.epoch,
            step=self.step,
            steps_per_s=rate,
            left_s=(self.total - self.step) / rate if rate else None,
            losses={trainee.name: trainee.curve.means for trainee in self.trainees},
        )


def train_step(trainee: Trainee, nets: Nets, batch: Batch) -> Mapping[str, Tensor]:
    """One optimisation step of one module; every other network only lets gradients pass."""
    trainee.require_grad(True)
    nets.enter(trainee.name)
    losses = trainee.module.loss(nets, batch, trainee.params)
    if "loss" not in losses:
        raise InputError(f"The loss of {trainee.name} returned {', '.join(losses)}; it must return a 'loss'.")
    for name in losses.keys() & PLACE:
        its = ", ".join(sorted(PLACE))
        raise InputError(
            f"The loss of {trainee.name} returned {name!r}; rename it: a line of metrics.jsonl has its own {its}."
        )
    trainee.optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    trainee.optimizer.step()
    trainee.require_grad(False)
    trainee.update_average()
    return losses
