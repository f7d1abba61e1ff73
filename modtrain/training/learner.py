"""Learner: one module in training: network, optimizer, average, memory, training curve, and its checkpoints."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from modtrain.errors import CorruptCheckpoint, Diverged, InputError, counted
from modtrain.plugins import calling
from modtrain.recipes.base import Recipe, resolve
from modtrain.recipes.contract import (
    CLIPPED,
    SKIPPED,
    build_memory,
    build_network,
    build_optimizer,
    is_trained_after,
    schedule_factor,
)
from modtrain.storage.checkpoint import EMA, STATE, WEIGHTS, Checkpoint
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import DEVICE, Run
from modtrain.training import serialization
from modtrain.training.initialisation import initialise
from modtrain.training.precision import autocast, loss_scale
from modtrain.training.random_state import random_state, seed_all, set_random_state
from modtrain.training.records import MetricsWriter
from modtrain.training.stages import RunStage, needed_versions


class Learner:
    """One module that a worker trains and publishes."""

    def __init__(self, run: Run, recipe: Recipe, params: Any, name: str, *, device: str, writer: str) -> None:
        """Build the module with its initial weights, which depend only on the run's seed and the module's name.

        `writer` is the id that its checkpoints carry.
        """
        self.name, self.module = name, recipe.modules[name]
        seed_all(derived_seed(run.spec.seed, name))
        self.net = build_network(name, self.module, params).to(device)
        self.weights = [weight for weight in self.net.parameters() if weight.requires_grad]
        self.memory = build_memory(name, self.module, params)
        self.device = device
        self.autocast = partial(autocast, run.spec.precision, device)
        """A context in which the loss is computed."""
        self.scale = loss_scale(run.spec.precision, device)
        """Scale of the loss where the precision needs one; modules that are trained together share theirs."""
        self.average: nn.Module | None = None
        self.averaged = 0
        self._recipe = recipe
        self._set_params(params)
        self.published_step = -1
        self._unchecked_states = 2
        self._formats = tuple(recipe.formats.values())
        self.lineage: dict[str, dict[str, Any]] = {}
        self.require_grad(False)
        self.resting = False
        """Whether the schedule was 0 at the last progress that was set, or the stage does not train the module."""
        self.trains = True
        """Whether the stage trains the module."""
        self._stage: RunStage | None = None
        self.metrics = MetricsWriter(name, run.metrics_path(name))
        self.store = run.store(name)
        keep, ends = run.spec.keep or needed_versions(run.spec, recipe, name), run.spec.stage_ends(name)
        others = {} if run.spec.keep is None else {"grace_s": 0.0}
        self.publisher = Publisher(self.store, writer, keep=keep, keep_epochs=ends, **others)

    def _set_params(self, params: Any) -> None:
        """Take the options and the optimizer that these parameters give."""
        self.params = params
        self.optimizer = build_optimizer(self.name, self.module, self.weights, params)
        for group in self.optimizer.param_groups:
            group.update(serialization.plain({name: value for name, value in group.items() if name != "params"}))
            group.setdefault("initial_lr", group["lr"])
        self.updates = resolve(self.module.updates, params, "updates", self.name)
        self.accumulate = resolve(self.module.accumulate, params, "accumulate", self.name)
        self.reads = self._recipe.reads([self.name], params)
        self.decay = resolve(self.module.ema, params, "ema", self.name) or 0.0
        self.averages_from = resolve(self.module.ema_from, params, "ema_from", self.name)
        if self.decay and self.average is None:
            self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.clip_norm = resolve(self.module.clip_norm, params, "clip_norm", self.name)
        self.clip_value = resolve(self.module.clip_value, params, "clip_value", self.name)

    def enter(self, stage: RunStage) -> None:
        """Begin a stage: with its parameters, and the state of the optimizer unless that is to begin anew.

        A module that the stage does not train stays as it is.
        """
        self.trains = self.name in stage.trains
        if not self.trains:
            self.resting = True
            return
        is_fresh = self.name in stage.fresh_optimizers
        if stage is not self._stage and (stage.params != self.params or is_fresh):
            before = self.optimizer
            self._set_params(stage.params)
            if not is_fresh and type(self.optimizer) is type(before):
                self.optimizer.state.update(before.state)
        self._stage = stage

    def initialise(self, weights: InitialWeights) -> None:
        """Begin with these weights instead of random ones; errors as of `initialisation.initialise`."""
        initialise([net for net in (self.net, self.average) if net is not None], self.name, weights, self._formats)

    def require_grad(self, required: bool) -> None:
        """Whether gradients reach the weights: only while this module's own loss is computed."""
        for weight in self.weights:
            weight.requires_grad_(required)

    def set_progress(self, progress: float) -> bool:
        """Set the learning rates for `progress` in [0, 1); False where the schedule is 0 and the module rests."""
        factor = schedule_factor(self.name, self.module, progress, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.resting = factor == 0
        return not self.resting

    @property
    def is_trained(self) -> bool:
        """Whether the stage trains the module, and its schedule is not 0 throughout."""
        return self.trains and self.trains_after(-1)

    def trains_after(self, progress: float) -> bool:
        """As `is_trained_after`."""
        return is_trained_after(progress, self.name, self.module, self.params)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> dict[str, Tensor]:
        """Step the optimizer with the gradient, and the average with the weights; returns what `clip_gradient` does."""
        with calling(f"the optimizer of {self.name}", self.module.optimizer):
            clipped = self.clip_gradient()
            self.optimizer.step()
        self.require_grad(False)
        self.update_average()
        return clipped if self.scale is None else {**clipped, SKIPPED: torch.zeros((), device=self.device)}

    def skip_step(self) -> dict[str, Tensor]:
        """Leave weights and average as they are; returns that the step was skipped."""
        self.require_grad(False)
        return {SKIPPED: torch.ones((), device=self.device)}

    def clip_gradient(self) -> dict[str, Tensor]:
        """Clip the gradient where the module asks for it; returns whether that changed it, a scalar on the device."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        bound = self.clip_norm or self.clip_value
        if bound is None or not gradients:
            return {}
        size = get_total_norm(gradients, 2.0 if self.clip_norm else math.inf)
        if self.clip_norm:
            clip_grads_with_norm_(self.weights, bound, size)
        else:
            clip_grad_value_(self.weights, bound)
        return {CLIPPED: size > bound}

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the exponential moving average towards the weights, faster during the first updates; copy buffers."""
        if self.average is None:
            return
        self.averaged += 1
        decay = self._decay_now()
        for value, current in zip(self.average.parameters(), self.net.parameters(), strict=True):
            if value.is_floating_point():
                value.lerp_(current, 1 - decay)
            else:
                value.copy_(current)
        # Statistics and the vectors of a power iteration belong to the weights that they were computed with.
        for buffer, own in zip(self.average.buffers(), self.net.buffers(), strict=True):
            buffer.copy_(own)

    def _decay_now(self) -> float:
        if self.averages_from:
            return self.decay if self.averaged > self.averages_from else 0.0
        return min(self.decay, (1 + self.averaged) / (10 + self.averaged))

    def publish(self, *, epoch: int, step: int, full: bool, final: bool) -> None:
        """Publish the weights, and with `full` all that resuming needs. Raises Diverged, FencedOut, OSError."""
        for name, value in self.net.state_dict().items():
            if not torch.isfinite(value).all():
                raise Diverged(
                    f"The weight {name!r} of {self.name} is NaN or Inf at step {step}; it was not published. "
                    "Lower the learning rate (--set), or look at metrics.jsonl."
                )
        self.publisher.publish(
            self.packed(step, full=full),
            epoch=epoch,
            step=step,
            metrics=self.metrics.means,
            peers=self.lineage,
            final=final,
        )
        if full:
            self.published_step = step

    def packed(self, step: int, *, full: bool) -> dict[str, bytes]:
        """The files of a version, as of `publish`; InputError where the state could not be read back."""
        files = {WEIGHTS: serialization.pack_weights(self.net)}
        if full:
            files[STATE] = self._packed_state(step)
            if self.average is not None:
                files[EMA] = serialization.pack_weights(self.average)
        return files

    def _packed_state(self, step: int) -> bytes:
        """The content of `state.pt`; InputError where it could not be read back.

        It is read back twice: at first, and once the optimizer has made steps and has a state of its own.
        """
        parts: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.memory is not None:
            with calling(f"the memory of {self.name}", self.module.memory):
                parts["memory"] = self.memory.state_dict()
        if self.scale is not None:
            parts["scale"] = self.scale.state_dict()
        if self._unchecked_states:
            self._unchecked_states -= 1
            for part, state in parts.items():
                self._check_readable(part, state)
        return serialization.pack_state({"step": step, **parts, "averaged": self.averaged, "rng": random_state()})

    def _check_readable(self, part: str, state: Any) -> None:
        if entry := serialization.unreadable_entry(state).strip():
            raise InputError(
                f"The state of the {part} of {self.name} cannot be resumed: its entry {entry} is neither a "
                f"tensor nor a plain value. Keep it out of the {part}'s state_dict."
            )

    def resumable(self) -> dict[int, Checkpoint]:
        """Full checkpoints by step; of two at the same step the newer."""
        return {c.step: c for c in reversed(list(self.store.newest(where=lambda c: c.full)))}

    def read(self, checkpoint: Checkpoint) -> dict[str, bytes]:
        """Every file of a checkpoint, verified; CorruptCheckpoint, MissingCheckpoint."""
        return {name: self.store.read(checkpoint, name) for name in checkpoint.files}

    def resume(self, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
        """Continue from the files of a full checkpoint; InputError where they do not fit the recipe."""
        try:
            saved = serialization.unpack_state(files[STATE])
            serialization.load_weights(self.net, files[WEIGHTS])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.averaged = saved["averaged"]
            if self.memory is not None:
                with calling(f"the memory of {self.name}", self.module.memory):
                    self.memory.load_state_dict(saved["memory"])
            if self.scale is not None:
                self.scale.load_state_dict(saved["scale"])
            if self.average is not None:
                serialization.load_weights(self.average, files[EMA])
            set_random_state(saved["rng"])
        except (CorruptCheckpoint, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(
                f"Version {checkpoint.version} of {self.name} is intact but does not fit the recipe as it is now "
                f"({error}). Restore the recipe, or start a run with another --name."
            ) from error
        self.metrics.means = checkpoint.metrics
        self.published_step = checkpoint.step
        self.lineage = checkpoint.peers


def simultaneous_steps(recipe: Recipe, learners: Sequence[Learner]) -> list[list[Learner]]:
    """The learners of a worker by the step in which they are trained, as of `Recipe.steps_of`."""
    by_name = {learner.name: learner for learner in learners}
    steps = [[by_name[name] for name in step] for step in recipe.steps_of(by_name)]
    for first, *others in steps:
        for option, other in itertools.product(("updates", "accumulate"), others):
            if (value := getattr(first, option)) != (different := getattr(other, option)):
                raise InputError(
                    f"{first.name} and {other.name} are trained together, but have {value} and {different} as "
                    f"`{option}`; give both the same."
                )
    return steps


def share_scales(recipe: Recipe, learners: Sequence[Learner]) -> None:
    """Give those that are trained in one step, and so from one loss, one scale of it."""
    by_name = {learner.name: learner for learner in learners}
    for first, *others in recipe.steps_of(by_name):
        for other in others:
            by_name[other].scale = by_name[first].scale


def choose_device(device: str, worker: int = 0) -> str:
    """A torch device name. `auto` assigns the GPUs to the workers in turn, and the CPU where there is none.

    InputError for what is no device, or one that this machine does not have.
    """
    if not re.fullmatch(DEVICE, device):
        raise InputError(f"device = {device!r} is not allowed; use auto, cpu, cuda, cuda:1 or mps.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise InputError(
            f"--device {device} is not available: this machine has {counted(count, 'GPU')}. Use auto or cpu."
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps is not available: it is the GPU of a Mac. Use auto or cpu.")
    if device != "auto":
        return device
    return f"cuda:{worker % count}" if count else "cpu"


def derived_seed(seed: int, name: str) -> int:
    """A seed for one purpose, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
