"""Disk use: the most bytes that the versions of a run take on disk at a time, by what is kept and what is published.

The sizes are those of files after a step of the optimizer. On top come what the memory of a loss holds later, a
kilobyte of `meta.json` for each version, curves, pictures and logs.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import params_of
from modtrain.storage.checkpoint import EMA, STATE, WEIGHTS
from modtrain.storage.run import Run, RunSpec
from modtrain.training.evaluation_points import MOST_WAITING
from modtrain.training.learner import Learner
from modtrain.training.stages import RunStages, most_versions, needed_versions


@dataclass(frozen=True, kw_only=True)
class ModuleUse:
    """The versions of one module: the bytes of their files, and the most of them on disk at a time."""

    weights_bytes: int
    average_bytes: int
    state_bytes: int
    full: int
    """Versions with which training can be resumed, the one that is being published as well."""
    exchanged: int
    """Versions of exchange points inside an epoch: weights alone."""
    has_memory: bool

    @property
    def full_bytes(self) -> int:
        """Of one full version."""
        return self.weights_bytes + self.average_bytes + self.state_bytes

    @property
    def most_bytes(self) -> int:
        """Of all versions."""
        return self.full * self.full_bytes + self.exchanged * self.weights_bytes


@dataclass(frozen=True, kw_only=True)
class DiskUse:
    """The versions of a run."""

    modules: Mapping[str, ModuleUse]
    copied_bytes: int
    """Weights of other runs that the run's folder holds."""
    keeps_last_minute: bool
    """Whether the versions of the last minute stay in addition to those that are counted."""

    @property
    def most_bytes(self) -> int:
        """On disk at a time."""
        return self.copied_bytes + sum(module.most_bytes for module in self.modules.values())

    @property
    def exchange_bytes(self) -> int:
        """Published at an exchange point inside an epoch."""
        return sum(module.weights_bytes for module in self.modules.values() if module.exchanged)

    @property
    def epoch_bytes(self) -> int:
        """Published at the end of an epoch."""
        return sum(module.full_bytes for module in self.modules.values())

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        sums = {name: getattr(self, name) for name in ("most_bytes", "exchange_bytes", "epoch_bytes")}
        modules = {name: asdict(each) | {"most_bytes": each.most_bytes} for name, each in self.modules.items()}
        return {**asdict(self), **sums, "modules": modules}


def disk_use(spec: RunSpec, recipe: Recipe) -> DiskUse:
    """What a run takes; InputError where its modules cannot be built, or the data that it exchanges by not read."""
    modules = dict[str, ModuleUse]()
    stages = RunStages(spec, recipe) if spec.exchange_every and len(spec.placement) > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), spec)
        for group in spec.placement:
            for name in group:
                learner = Learner(run, recipe, params_of(spec, recipe), name, device="cpu", writer="disk use")
                is_exchanged = stages is not None and name in recipe.read_by_others(group)
                inside = _exchange_points(stages, name) if stages and is_exchanged else (0, 0)
                full, exchanged = _most_versions(spec, recipe, name, group, inside)
                modules[name] = ModuleUse(
                    **_file_bytes(learner), full=full, exchanged=exchanged, has_memory=learner.memory is not None
                )
    copied = [weights.path for weights in (*spec.init.values(), *spec.fixed.values()) if weights.kept("").kept_as]
    return DiskUse(modules=modules, copied_bytes=sum(map(os.path.getsize, copied)), keeps_last_minute=spec.keep is None)


def _file_bytes(learner: Learner) -> dict[str, int]:
    """The sizes of the files of a full version, by their field of a ModuleUse."""
    for weight in learner.weights:
        weight.grad = torch.zeros_like(weight)
    learner.optimizer.step()  # its state, such as Adam's moments, begins with the first step
    sizes = {file: len(content) for file, content in learner.packed(0, full=True).items()}
    return {"weights_bytes": sizes[WEIGHTS], "average_bytes": sizes.get(EMA, 0), "state_bytes": sizes[STATE]}


def _exchange_points(stages: RunStages, module: str) -> tuple[int, int]:
    """The fewest and the most exchange points inside an epoch that trains a module."""
    every = stages.timeline.exchange_every or sys.maxsize
    steps = [stage.steps_per_epoch - 1 for stage in stages.stages if module in stage.trains]
    return min(steps) // every, math.ceil(max(steps) / every)


def _most_versions(
    spec: RunSpec, recipe: Recipe, module: str, worker: Sequence[str], exchanges: tuple[int, int]
) -> tuple[int, int]:
    """The most full and exchanged versions of a module of a worker on disk at a time.

    The newest ones, of which two are full, one that is being published, the ends of earlier stages, those that wait for
    an evaluation, the best ones, and the opponents of these and of the last ones of other workers.
    """
    keep, (fewest, most) = spec.keep or needed_versions(spec, recipe, module), exchanges
    best = 0 if spec.early_stop is None and not spec.evaluate_every else 1 if spec.early_stop is None else 2
    full = max(2, math.ceil(keep / (fewest + 1))) + 1 + max(0, len(spec.stage_ends(module)) - 1) + best
    if len(spec.placement) > 1 and best:
        ahead = MOST_WAITING if spec.epochs_behind is None else spec.epochs_behind
        full += min(MOST_WAITING, math.ceil(ahead / (1 if spec.early_stop else spec.evaluate_every)))
    others = [group for group in spec.placement if group is not worker]
    read = [most_versions(spec, recipe, group).get(module, 0) for group in others]
    opponents = (1 + best) * (max(read, default=0) if spec.epochs_behind == 0 else sum(read))
    exchanged = keep - keep // (most + 1) + opponents if most else 0
    published = 1 + sum(stage.epochs for stage in spec.all_stages if module in stage.trains)
    return min(published, full + (0 if most else opponents)), exchanged
