"""Pins: the versions that are never pruned, since they are the best ones, or one of these or a last one was trained
against them."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence

from modtrain.errors import CorruptCheckpoint, InputError, MissingCheckpoint, message_of
from modtrain.storage.best_version import best_versions
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.run import Run
from modtrain.training.learner import Learner

log = logging.getLogger(__name__)


class Pins:
    """The pins of the modules of one worker, by what all workers have published and measured."""

    def __init__(self, run: Run, learners: Sequence[Learner]) -> None:
        self._run, self._learners = run, learners
        self._meta = functools.lru_cache(1000)(lambda module, version: run.store(module).meta(version))

    def update(self) -> None:
        """Pin what is best by now; where storage does not answer the pins stay as they are."""
        try:
            best = dict(_best(self._run))
            ends = {module: newest for module in self._run.modules if (newest := self._final(module))}
            for learner in self._learners:
                learner.publisher.pin(self._pins_of(learner.name, best, ends))
        except OSError as error:
            log.warning("The best versions cannot be read now: %s", message_of(error))

    def _final(self, module: str) -> Checkpoint | None:
        newest = self._run.store(module).latest()
        return newest if newest is not None and newest.final else None

    def _pins_of(
        self, module: str, best: Mapping[str, Mapping[str, int]], ends: Mapping[str, Checkpoint]
    ) -> dict[int, str]:
        """Versions of a module, each with the reason."""
        pins = dict[int, str]()
        for name, end in ends.items():
            pins |= dict.fromkeys(_named(end, module), f"the last {name}, {end.version}, was trained against it")
        for reason, versions in best.items():
            for name, version in versions.items():
                if name != module and (of_best := self._published(name, version)) is not None:
                    why = f"{name} {version}, {reason}, was trained against it"
                    pins |= dict.fromkeys(_named(of_best, module), why)
        return pins | {versions[module]: reason for reason, versions in best.items() if module in versions}

    def _published(self, module: str, version: int) -> Checkpoint | None:
        try:
            return self._meta(module, version)
        except (CorruptCheckpoint, MissingCheckpoint):
            return None


def _best(run: Run) -> Iterator[tuple[str, Mapping[str, int]]]:
    """The best versions of a run, each with what they are best by; the last one is the reason of what is both."""
    outcome = run.early_stop_outcome()
    if outcome is not None and outcome.best_single is not None:
        yield "best single epoch", outcome.best_single.versions
    with contextlib.suppress(InputError):  # nothing was measured yet
        yield "best", best_versions(run, None)[0]


def _named(checkpoint: Checkpoint, module: str) -> list[int]:
    return list(checkpoint.peers.get(module, {}).get("versions", []))
