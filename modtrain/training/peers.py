"""Peers: frozen copies of other workers' modules, refreshed at exchange points, with the versions that were read."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from modtrain.errors import CorruptCheckpoint, PeerTimeout
from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import build_network
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import WEIGHTS, Checkpoint
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.liveness import Liveness
from modtrain.storage.run import Run
from modtrain.training import serialization
from modtrain.training.stages import most_versions

log = logging.getLogger(__name__)


@dataclass
class _Peer:
    """The newest versions of one module, newest first, each with its frozen network."""

    count: int
    build: Callable[[], nn.Module]
    versions: list[tuple[Checkpoint, nn.Module]] = field(default_factory=list)
    unfit: dict[int, str] = field(default_factory=dict)
    """Versions that are intact but do not fit the recipe, with the reason."""

    @property
    def newest(self) -> Checkpoint | None:
        return self.versions[0][0] if self.versions else None

    def load_newer(self, store: CheckpointStore) -> None:
        above = self.newest.version if self.newest else -1
        read = store.read_newest(WEIGHTS, count=self.count, above=above, where=lambda c: c.version not in self.unfit)
        for checkpoint, content in reversed(read):
            is_full = len(self.versions) >= self.count
            net = self.versions[-1][1] if is_full else self.build()
            try:
                serialization.load_weights(net, content)
            except CorruptCheckpoint as error:  # the network is as it was
                self.unfit[checkpoint.version] = str(error)
                log.warning("Skipped version %d of %s: %s", checkpoint.version, store.module, error)
                continue
            if is_full:
                self.versions.pop()
            self.versions.insert(0, (checkpoint, net))


@dataclass
class _Unread:
    """The newest version of a module whose weights are not needed."""

    newest: Checkpoint | None = None
    unfit: dict[int, str] = field(default_factory=dict)

    def load_newer(self, store: CheckpointStore) -> None:
        with contextlib.suppress(OSError):  # read again soon
            self.newest = store.newest_intact().checkpoint


class Peers:
    """The modules of other workers that the modules of one worker read."""

    def __init__(self, run: Run, recipe: Recipe, params: Any, modules: Sequence[str], device: str) -> None:

        def build(name: str) -> nn.Module:
            module = recipe.modules[name]
            return freeze(build_network(name, module, params), module.frozen_mode).to(device)

        self._run = run
        peers = most_versions(run.spec, recipe, modules)
        peers = {name: last for name, last in peers.items() if name in recipe.trained}
        self._unread = {name: _Unread() for name in recipe.connected(modules) if name not in {*peers, *modules}}
        self._stage_epochs = 0
        """Epochs of the stages that every connected module of another worker has completed."""
        self._peers = {name: _Peer(count, functools.partial(build, name)) for name, count in peers.items()}

    def nets(self) -> dict[str, list[nn.Module]]:
        """The frozen networks of each peer, newest first."""
        return {name: [net for _, net in peer.versions] for name, peer in self._peers.items()}

    def lineage(self, reads: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """Versions loaded of each peer in `reads` (peer: how many), newest first; epoch and step of the newest."""
        return {
            name: {
                "versions": [c.version for c, _ in peer.versions[: reads[name]]],
                "epoch": peer.newest.epoch if peer.newest else -1,
                "step": peer.newest.step if peer.newest else None,
            }
            for name, peer in self._peers.items()
            if name in reads
        }

    def refresh(
        self,
        *,
        at_least: int,
        stage_epochs: int = 0,
        step: int = 0,
        poll: Callable[[str], None],
        waited: Callable[[str, float], None],
    ) -> None:
        """Load newer versions, and wait until every peer has completed `at_least` epochs or is finished.

        Of a peer that rests in the last ones of these, the epoch that trained it last is enough. The `stage_epochs` of
        earlier stages every module that is connected by reads must have completed, since these enter a stage together.
        Where `step` is given, inside an epoch, those that the epoch trains must have reached it as well.
        `poll(peer)` is called repeatedly while waiting for a peer; an exception that it raises ends the wait.
        `waited(peer, seconds)` is called when a wait is over. PeerTimeout where a peer neither completes an epoch nor
        evaluates one for the run's `peer_timeout_s`.
        """
        needed: dict[str, tuple[_Peer | _Unread, int]] = {name: (peer, at_least) for name, peer in self._peers.items()}
        if stage_epochs > self._stage_epochs:
            needed |= {name: (module, stage_epochs) for name, module in self._unread.items()}
        for name, (peer, epochs) in needed.items():
            peer.load_newer(self._run.store(name))
            trained = self._run.spec.trained_epochs(name, epochs)
            own_step = step if self._run.spec.trained_epochs(name, epochs + 1) > epochs else 0
            if not self._is_enough(peer, trained, own_step):
                began_at = time.monotonic()
                try:
                    self._wait_for(name, peer, trained, own_step, poll)
                finally:
                    waited(name, time.monotonic() - began_at)
        self._stage_epochs = max(self._stage_epochs, stage_epochs)

    def _is_enough(self, peer: _Peer | _Unread, epoch: int, step: int) -> bool:
        """Whether a peer has reached an epoch and a step, or is finished: no newer version will come."""
        newest = peer.newest
        has_arrived = newest is not None and newest.epoch >= epoch and newest.step >= step
        return has_arrived or self._run.spec.is_last(newest)

    def _wait_for(
        self, name: str, peer: _Peer | _Unread, at_least: int, step: int, poll: Callable[[str], None]
    ) -> None:
        liveness, evaluates = Liveness(), False

        def arrived(epoch: int, step: int) -> bool | None:
            nonlocal evaluates
            poll(name)
            peer.load_newer(self._run.store(name))
            evaluates = evaluates or liveness.is_evaluating(self._run, name)
            return True if self._is_enough(peer, epoch, step) else None

        reached = peer.newest.epoch if peer.newest else -1
        goals = [(epoch, 0) for epoch in range(reached + 1, at_least + 1)]  # each epoch has a deadline of its own
        if step:
            goals.append((at_least, step))
        for epoch, own_step in goals:
            evaluates, has_arrived = False, functools.partial(arrived, epoch, own_step)
            while filesystem.wait_until(has_arrived, timeout_s=self._run.spec.peer_timeout_s) is None:
                if not evaluates:
                    raise PeerTimeout(self._timeout_message(name, peer, epoch, own_step))
                evaluates = False  # it has the whole time to complete an epoch once more

    def _timeout_message(self, name: str, peer: _Peer | _Unread, needed: int, step: int) -> str:
        report = self._run.read_report(name)
        process = report.process
        worker = f"{process.host}, process {process.pid}, {report.state}" if report else "never started"
        reached = f"it is at {peer.newest.epoch}" if peer.newest else "it has published nothing"
        if peer.unfit:
            version, why = max(peer.unfit.items())
            reached = f"its version {version} does not fit the recipe: {why.rstrip('.')}"
        goal = f"step {step}" if step else f"epoch {needed}"
        stage = f" of the stage {self._run.spec.stage_at(needed - 1).name}" if self._run.spec.stages and needed else ""
        return (
            f"Waited {self._run.spec.peer_timeout_s:g} s for {name} to publish {goal}{stage}; {reached} "
            f"({worker}). "
            f'See {self._run.log_path(name)}, or run "modtrain launch {self._run.path}" to restart it.'
        )


def freeze(net: nn.Module, mode: str) -> nn.Module:
    """Freeze a network's weights and set its `mode`, eval or train; gradients still pass through to its input."""
    return net.requires_grad_(False).train(mode == "train")
