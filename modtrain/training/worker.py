"""Worker: the loop that trains the modules placed on it.

    resume, or publish version 0
    each stage:   its parameters, data and trained modules; each of its epochs:
                  evaluate the epoch before, where that is due
                  refresh the peers (and wait for those that are too far behind)
                  each step: for each module in turn, or several together: loss, backward, step
                  at each exchange point: publish weights, refresh the peers
                  publish a full checkpoint

Modules of one worker see each other live; those of other workers as frozen copies.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
import uuid
from collections.abc import Generator, Sequence

from modtrain.data.base import Batch
from modtrain.errors import CorruptCheckpoint, InputError, MissingCheckpoint
from modtrain.plugins import place_of
from modtrain.recipes.contract import check_batch
from modtrain.recipes.loading import accept_recipe, params_of, recipe_of
from modtrain.recipes.nets_view import Nets
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.evaluation_points import EvaluationPoints
from modtrain.training.fixed_modules import fixed_peers
from modtrain.training.learner import Learner, derived_seed, share_scales, simultaneous_steps
from modtrain.training.peers import Peers
from modtrain.training.progress import Progress
from modtrain.training.publishing import Publishing
from modtrain.training.random_state import seed_all
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.stages import RunStages
from modtrain.training.timing import PhaseTimer
from modtrain.training.trackers.base import Tracking
from modtrain.training.train_step import batches_of, nets_of, start_step, to_device, train_step

log = logging.getLogger(__name__)


class Worker:
    """Trains `modules` of a run in this process until the run's last epoch."""

    def __init__(
        self,
        run: Run,
        modules: Sequence[str],
        heartbeat: Heartbeat,
        shutdown: Shutdown,
        events: WorkerEvents,
        *,
        device: str,
    ) -> None:
        """Build the modules and resume from their newest checkpoints; what requests an exit meanwhile is obeyed."""
        shutdown.check_start()
        self.run = run = accept_recipe(run)
        self.heartbeat, self.shutdown, self.events, self.device = heartbeat, shutdown, events, device
        self.recipe = recipe = recipe_of(run)
        if unknown := [module for module in run.modules if module not in recipe.modules]:
            raise InputError(
                f"{run.name} places {unknown[0]!r}, but the recipe {run.spec.recipe} has {', '.join(recipe.modules)}. "
                "Restore the recipe as it was when the run was created."
            )
        params = params_of(run.spec, recipe)
        shutdown.check_start()
        self.stages = RunStages(run.spec, recipe)
        self.timeline, self.end = self.stages.timeline, self.stages.end(modules)
        self.writer = uuid.uuid4().hex
        self.learners: list[Learner] = []
        for name in modules:
            shutdown.check_start()
            self.learners.append(Learner(run, recipe, params, name, device=device, writer=self.writer))
        share_scales(recipe, self.learners)
        shutdown.check_start()
        self.peers = Peers(run, recipe, params, modules, device)
        self.fixed = fixed_peers(run, recipe, params, modules, device)
        self.timer = PhaseTimer()
        self.progress = Progress(self.stages, self.learners, heartbeat, self.timer)
        self.publishing = Publishing(run, self.stages, self.learners, heartbeat, recipe.read_by_others(modules))
        self.evaluations = EvaluationPoints(run, recipe, self.stages, self.learners, heartbeat, device=device)
        seed_all(derived_seed(run.spec.seed, "worker " + " ".join(modules)))
        self.position = self.timeline.at(self._resume())
        self._enter_stage()
        self.nets = self._build_nets()
        shutdown.check_start()

    @property
    def is_finished(self) -> bool:
        """Whether no later batch of the run trains a module of this worker."""
        return self.position.step >= self.end.step

    def train(self, tracking: Tracking) -> None:
        """Train to the end of the run; raises an error of `errors.py` where it does not get there."""
        self._start(tracking)
        self._publish(full=True)  # version 0, or after a resume the fence against the worker that was here before
        for epoch in range(self.position.epoch, self.end.epoch):
            if self._evaluate_epoch():
                self.publishing.ends_early = True
                self._publish(full=True)
                break
            self._enter_stage()
            self._refresh_peers(wait=True)
            self.progress.start_epoch(self.position)
            with contextlib.closing(self._draws(epoch)) as batches:
                for drawn in self.timer.fetching(batches):
                    self.train_on(*drawn)
                    self._between_steps()
            self._publish(full=True)
            self.progress.log_epoch(self.position)
            if self.steps and not self.is_finished:  # a worker that rests has nothing to publish
                self._exit_if_requested()
        else:
            self._evaluate_epoch()
        self._finish_publishing()

    def _evaluate_epoch(self) -> bool:
        """Evaluate what is due after an epoch, and return whether early stopping ends the run."""
        with self.timer.during("evaluation"):
            return self.evaluations.after_epoch(self.position.epoch)

    def _start(self, tracking: Tracking) -> None:
        self.progress.tracking = tracking
        self.timer.lap()  # the time to build is no training time
        modules = ", ".join(learner.name for learner in self.learners)
        step, steps = self.position.step, self.end.step
        log.info("Trains %s on %s (%s), steps %d to %d", modules, socket.gethostname(), self.device, step, steps)

    def _enter_stage(self) -> None:
        """Begin the stage of the current epoch, or go on with it."""
        self.stage = self.stages.at(self.position.epoch)
        for learner in self.learners:
            learner.enter(self.stage)
        self.steps = simultaneous_steps(self.recipe, [learner for learner in self.learners if learner.trains])

    def _draws(self, epoch: int) -> Generator[list[Batch], None, None]:
        """The batches of each step of the rest of an epoch; those that do not fill a step are left out.

        Where the stage trains no module of this worker, the epoch passes without batches. InputError where it has more
        or fewer of them than its length says.
        """
        if not self.steps:
            self.position = self.timeline.at_epoch(epoch + 1)
            return
        train = self.stage.batches_of([learner.name for learner in self.learners])
        draws, drawn = self.stage.draws, list[Batch]()
        first = self.position.epoch_step * draws
        number = first - 1
        for number, batch in enumerate(train.epoch(epoch, seed=self.run.spec.seed, start=first), first):
            if number >= len(train):
                break
            check_batch(batch, train)
            drawn.append(batch)
            if len(drawn) == draws:
                yield drawn
                drawn = []
        if number + 1 != len(train):
            raise InputError(
                f"Data.train.epoch ({place_of(train.epoch)}) yielded {'fewer' if number < len(train) else 'more'} "
                f"batches in epoch {epoch} than the {len(train)} of its __len__; make both the same."
            )

    def train_on(self, *batches: Batch) -> None:
        """One step of every module that does not rest, in the recipe's order; each update is on batches of its own."""
        start_step(self.nets, self.position)
        on_device = {number: to_device(batch, self.device) for number, batch in enumerate(batches)}
        for step in self.steps:
            trained = [learner for learner in step if learner.set_progress(self.position.schedule_progress)]
            for learners in [trained] if len(trained) == len(step) else [[learner] for learner in trained]:
                for update in range(learners[0].updates):
                    own = batches_of(update, learners[0], on_device)
                    for learner, scalars in zip(learners, train_step(learners, self.nets, own), strict=True):
                        learner.metrics.add(self.position.step, scalars)
        self.position = self.timeline.at(self.position.step + 1)

    def _between_steps(self) -> None:
        """Inside an epoch: exchange, retry a failed publish, exit if requested. The end of an epoch does all of it."""
        self.progress.after_step(self.position)
        if self.timeline.is_exchange_point(self.position.step):
            self._publish(full=False)
            self._refresh_peers(wait=self.run.spec.waits_at_exchanges)
        if not self.position.is_epoch_boundary:
            self._retry_publish_if_due()
            self._exit_if_requested()

    def _refresh_peers(self, *, wait: bool) -> None:
        """Load newer peers; with `wait` until none of them is further behind than the run's staleness bound.

        Inside an epoch that is until all have reached its exchange point. The bound does not reach back across the
        beginning of a stage, which all workers enter together.
        """
        epoch, bound = self.position.epoch, self.run.spec.epochs_behind
        first = self.position.stage_epochs.start if wait else 0
        oldest_epoch = max(first, epoch - bound) if wait and bound is not None else first
        with self.timer.during("exchange"):
            self.peers.refresh(
                at_least=oldest_epoch,
                stage_epochs=first,
                step=self.position.step if wait and not self.position.is_epoch_boundary else 0,
                poll=self._while_waiting,
                waited=self._record_wait,
            )
        self.nets = self._build_nets()
        for learner in self.learners:
            learner.lineage = self.peers.lineage(learner.reads)
        self.heartbeat.report(state=self.progress.state, waiting_for=None)

    def _while_waiting(self, peer: str) -> None:
        self.timer.enter("waiting")
        self.heartbeat.report(state=self.progress.state_of_wait, waiting_for=peer)
        self._retry_publish_if_due()
        self._exit_if_requested()

    def _record_wait(self, peer: str, seconds: float) -> None:
        self.events.record_wait(peer, seconds, epoch=self.position.epoch, step=self.position.step)

    def _publish(self, *, full: bool, last: bool = False) -> None:
        """Publish a full checkpoint of every module, or the weights that other workers read."""
        self.progress.report(self.position)  # finds NaN before it could be published
        with self.timer.during("exchange"):
            self.publishing.publish(self.position, full=full, last=last)

    def _retry_publish_if_due(self) -> None:
        if self.publishing.is_retry_due():
            self._publish(full=True)

    def _exit_if_requested(self) -> None:
        reason = self.shutdown.reason()
        if reason is not None:
            if not self.publishing.is_complete(self.position):
                self._publish(full=True, last=True)
            raise reason.error(self.publishing.error)

    def _finish_publishing(self) -> None:
        """Retry the last publish until storage accepts it."""
        while self.publishing.error is not None:
            time.sleep(filesystem.RETRY_POLL_S)
            self._retry_publish_if_due()
            if self.publishing.error is not None and (reason := self.shutdown.reason()) is not None:
                raise reason.error(self.publishing.error)

    def _resume(self) -> int:
        """Load the newest step at which every module has a full checkpoint that verifies; 0 where there is none.

        That of a module that rests there is from where it was trained last. A step that storage fails to give is an
        error instead of one to be left out.
        """
        by_step = [learner.resumable() for learner in self.learners]
        for step in sorted(set[int]().union(*by_step), reverse=True):
            checkpoints = self._checkpoints_at(step, by_step)
            if len(checkpoints) < len(self.learners):
                continue
            try:
                files = {learner: learner.read(checkpoint) for learner, checkpoint in checkpoints.items()}
            except (CorruptCheckpoint, MissingCheckpoint) as error:
                if filesystem.fault_of(error) and isinstance(error, CorruptCheckpoint):
                    raise
                log.warning("Cannot resume from step %d: %s", step, error)
                continue
            for learner, checkpoint in sorted(checkpoints.items(), key=lambda item: item[1].step):
                if stage := self.stages.last_stage(learner.name, self.timeline.at(checkpoint.step)):
                    learner.enter(stage)
                learner.resume(checkpoint, files[learner])  # the last one sets the random state of this step
            log.info("Resumed at step %d of %d", step, self.timeline.steps)
            return step
        if any(by_step):
            log.warning("No step has an intact full checkpoint of every module: starting from the beginning.")
        for learner in self.learners:
            if weights := self.run.weights_of(learner.name):
                learner.initialise(weights)
        return 0

    def _checkpoints_at(self, step: int, by_step: list[dict[int, Checkpoint]]) -> dict[Learner, Checkpoint]:
        """The checkpoint of each module with its weights at a step, where it has one."""
        position, found = self.timeline.at(step), dict[Learner, Checkpoint]()
        for learner, checkpoints in zip(self.learners, by_step, strict=True):
            since = self.stages.trained_at(learner.name, position).step
            if steps := [each for each in checkpoints if since <= each <= step]:
                found[learner] = checkpoints[max(steps)]
        return found

    def _build_nets(self) -> Nets:
        return nets_of(self.learners, {**self.fixed, **self.peers.nets()})
