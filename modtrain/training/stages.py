"""RunStage: a stage of a run with its parameters and its training data, as workers and checks pass through them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from modtrain.data.base import Batches, Data
from modtrain.errors import InputError, counted
from modtrain.plugins import place_of
from modtrain.recipes.base import Module, Recipe, resolve
from modtrain.recipes.contract import is_trained_after
from modtrain.recipes.loading import data_of, params_of
from modtrain.storage.run import RunSpec
from modtrain.training.timeline import Position, Timeline


@dataclass(frozen=True, kw_only=True)
class RunStage:
    """A stage of a run; a run without stages is one stage that trains every module."""

    name: str
    trains: frozenset[str]
    fresh_optimizers: frozenset[str]
    """The modules whose optimizers begin anew."""
    params: Any
    """The parameters of the stage."""
    data: Data
    draws: int
    """Consecutive batches that a step draws."""

    @property
    def batches(self) -> Batches:
        return self.data.train

    def batches_of(self, modules: Collection[str]) -> Batches:
        """What a worker with these modules draws; InputError where that has another number of batches."""
        if self.data.train_of is None:
            return self.batches
        batches = self.data.train_of(modules)
        if len(batches) != len(self.batches):
            raise InputError(
                f"Data.train_of ({place_of(self.data.train_of)}) returned {len(batches)} batches an epoch for "
                f"{', '.join(modules)}, but Data.train has {len(self.batches)}; make both the same."
            )
        return batches

    @property
    def steps_per_epoch(self) -> int:
        """Batches that do not fill a step are left out; InputError where they fill none."""
        if steps := len(self.batches) // self.draws:
            return steps
        raise InputError(
            f"The training data ({self.data.description}) has {counted(len(self.batches), 'batch')} an epoch, but a "
            f"step draws {self.draws}, the most that a module needs (updates times accumulate). Lower these, or the "
            "batch size."
        )


class RunStages:
    """The stages of a run in order, and its timeline.

    The data of every stage is made at once, since the timeline needs its number of batches; stages with equal
    parameters share it, and others what was read, where `Data.at` says how.
    """

    def __init__(self, spec: RunSpec, recipe: Recipe) -> None:
        self._spec, self._recipe = spec, recipe
        self.stages: list[RunStage] = []
        for stage in [*spec.all_stages, *spec.later_stages]:
            params, fresh = params_of(spec, recipe, stage), stage.fresh_optimizers
            self.stages.append(
                RunStage(
                    name=stage.name,
                    trains=frozenset(stage.trains),
                    fresh_optimizers=frozenset((stage.trains if fresh else ()) if isinstance(fresh, bool) else fresh),
                    params=params,
                    data=self.data_with(params),
                    draws=_draws(recipe, params, stage.trains),
                )
            )
        self.timeline = Timeline.of(spec, [stage.steps_per_epoch for stage in self.stages])
        del self.stages[len(spec.all_stages) :]

    def data_with(self, params: Any) -> Data:
        """The data of these parameters: that of a stage which has the same ones, or made from what a stage has read."""
        same = next((stage.data for stage in self.stages if stage.params == params), None)
        read = self.stages[0].data if self.stages else None
        return same or data_of(self._spec, self._recipe, params, read=read)

    def at(self, epoch: int) -> RunStage:
        """The stage of an epoch; the last one from the end of the run on."""
        return self.stages[self._spec.all_stages.index(self._spec.stage_at(epoch))]

    def spans(self) -> Iterator[tuple[RunStage, Position, Position]]:
        """Each stage with the positions of its first and its last batch."""
        epochs = 0
        for stage, stretch in zip(self.stages, self.timeline.stretches, strict=True):
            first, epochs = self.timeline.at_epoch(epochs), epochs + stretch.epochs
            yield stage, first, self.timeline.at(first.step + stretch.steps - 1)

    def trained_at(self, module: str, position: Position) -> Position:
        """Where a module was trained last before a position: there itself, or at the end of an earlier stage.

        Its weights at both are the same, since it rests in between.
        """
        if position.epoch_step and module in self.at(position.epoch).trains:
            return position
        return self.timeline.at_epoch(self._spec.trained_epochs(module, position.epoch))

    def last_stage(self, module: str, position: Position) -> RunStage | None:
        """The stage that trained a module last before a position; None before the first one."""
        trained = self.trained_at(module, position)
        return self.at(trained.epoch - (not trained.epoch_step)) if trained.step else None

    def end(self, modules: Iterable[str]) -> Position:
        """Where these modules are finished: no later stage trains any of them."""
        return self.timeline.at_epoch(self._spec.end_epoch(modules))


def most_versions(spec: RunSpec, recipe: Recipe, modules: Iterable[str]) -> dict[str, int]:
    """The peers that these modules read, each with the most versions that they read of it in any stage."""
    readers, most = list(modules), dict[str, int]()
    for stage in spec.all_stages:
        for peer, last in recipe.reads(readers, params_of(spec, recipe, stage)).items():
            most[peer] = max(last, most.get(peer, 1))
    return most


def idle_workers(spec: RunSpec, recipe: Recipe) -> str | None:
    """That workers have modules which neither a stage nor a schedule ever trains, in a sentence; None where none has.

    InputError as of the schedules.
    """
    stages = [(stage, params_of(spec, recipe, stage)) for stage in [*spec.all_stages, *spec.later_stages]]
    trained = {
        name
        for stage, params in stages
        for name in stage.trains
        if is_trained_after(-1, name, recipe.modules[name], params)
    }
    idle = [worker for worker in spec.placement if trained.isdisjoint(worker)]
    if not idle or len(idle) == len(spec.placement):
        return None
    names, has = [name for worker in idle for name in worker], "a worker has"
    if len(idle) > 1:
        has = f"{len(idle)} workers have"
    return (
        f"With these parameters {' and '.join(names)} {'is' if len(names) == 1 else 'are'} never trained, so that "
        f"{has} nothing to do: --nodes {len(spec.placement) - len(idle)} is enough."
    )


def needed_versions(spec: RunSpec, recipe: Recipe, module: str) -> int:
    """How many versions of a module stay on disk at least, as of `check_keep`.

    A peer may ask for any version that an edge reads or staleness allows; two more give it time to read.
    """
    read = most_versions(spec, recipe, [other for other in recipe.modules if other != module]).get(module, 1)
    return max(read, spec.epochs_behind or 0) + 2


def check_keep(spec: RunSpec, recipe: Recipe) -> None:
    """InputError where the run keeps fewer versions of a module than the modules of other workers need."""
    edges = [
        (last, reader, peer)
        for worker in spec.placement
        for reader in worker
        for peer, last in most_versions(spec, recipe, [reader]).items()
        if peer in recipe.trained and peer not in worker
    ]
    if spec.keep is None or not edges:
        return
    last, reader, peer = max(edges, key=lambda edge: edge[0])
    need = f"{reader} reads the newest {counted(last, 'version') if last > 1 else 'version'} of {peer}"
    if last < (behind := spec.epochs_behind or 0):
        last, need = behind, f"max_staleness lets {peer} be {counted(behind, 'epoch')} behind {reader}"
    if spec.keep < last + 2:
        raise InputError(
            f"keep = {spec.keep} is not allowed: {need}, and two more give it time to read; give at least {last + 2}."
        )


def _draws(recipe: Recipe, params: Any, modules: Iterable[str]) -> int:
    """The batches that the modules of a stage need in a step: the most of any of them."""
    return max(_needed(recipe.modules[name], params, name) for name in modules)


def _needed(module: Module, params: Any, name: str) -> int:
    return resolve(module.updates, params, "updates", name) * resolve(module.accumulate, params, "accumulate", name)
