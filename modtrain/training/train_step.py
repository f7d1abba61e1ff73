"""One optimisation step of a module, or of several trained together; it has the only `backward()` of the training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modtrain.data.base import Batch
from modtrain.errors import Diverged
from modtrain.plugins import calling
from modtrain.recipes.contract import check_losses, sum_of, terms_of
from modtrain.recipes.nets_view import Nets
from modtrain.training.learner import Learner
from modtrain.training.precision import finite_of
from modtrain.training.timeline import Position


def nets_of(learners: Sequence[Learner], others: Mapping[str, Sequence[nn.Module]], *, versions: int = 1) -> Nets:
    """The live networks of learners, each as so many `versions`, with those of other modules, for their losses."""
    return Nets(
        {learner.name: [learner.net] * versions for learner in learners} | dict(others),
        {learner.name: learner.reads for learner in learners},
        {learner.name: learner.memory for learner in learners},
    )


def start_step(nets: Nets, position: Position) -> None:
    """Give the losses of the step that belongs to a position what they may know of it."""
    nets.start_step(
        step=position.step,
        progress=position.schedule_progress,
        stage=position.stage,
        stage_progress=position.stage_progress,
    )


def to_device(batch: Batch, device: str) -> Batch:
    """A batch with its tensors on a device."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def batches_of(update: int, learner: Learner, batches: Mapping[int, Batch]) -> Mapping[int, Batch]:
    """Those of a step's batches, by number, with which a module makes its update of this number."""
    count = learner.accumulate
    return {number: batches[number] for number in range(update * count, (update + 1) * count)}


def train_step(learners: Sequence[Learner], nets: Nets, batches: Mapping[int, Batch]) -> list[dict[str, Tensor]]:
    """One optimisation step of one module, or of several together; every other network only lets gradients pass.

    The gradient is the mean over the batches, which are given with their numbers in the step. Returns the scalars of
    the training curve of each module, means as well.
    """
    for learner in learners:
        learner.require_grad(True)
        learner.optimizer.zero_grad(set_to_none=True)
    of_batches = [_add_gradient(learners, nets, number, batch, len(batches)) for number, batch in batches.items()]
    scalars, scale = [_means(own) for own in zip(*of_batches, strict=True)], learners[0].scale
    if scale is None or scale.unscale([learner.optimizer for learner in learners]):
        return [{**values, **learner.step()} for values, learner in zip(scalars, learners, strict=True)]
    if scale.is_lowest:
        raise Diverged(
            f"The gradient of {names_of(learners)} is NaN or Inf at step {nets.step}, however low the loss is scaled; "
            "it was not used. Lower the learning rate (--set), or use --precision bfloat16."
        )
    return [{**finite_of(values), **learner.skip_step()} for values, learner in zip(scalars, learners, strict=True)]


def _add_gradient(
    learners: Sequence[Learner], nets: Nets, number: int, batch: Batch, count: int
) -> list[dict[str, Tensor]]:
    """Add the gradient of one of `count` batches, its share of the mean, and return the scalars of each module."""
    losses, scale = losses_of(learners, nets, batch, number), learners[0].scale
    terms = [terms_of(values) for values in losses]
    with calling(f"the loss of {names_of(learners)}", learners[0].module.loss):
        total = sum_of(itertools.chain(*terms)) / count
        (total if scale is None else scale.scaled(total)).backward()  # type: ignore[no-untyped-call]
    return [{**values, "loss": sum_of(own)} for values, own in zip(losses, terms, strict=True)]


def names_of(learners: Sequence[Learner]) -> str:
    """The names of modules, for messages."""
    return ", ".join(learner.name for learner in learners)


def _means(scalars: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each scalar over the batches that have it; of one batch its scalars as they are."""
    if len(scalars) == 1:
        return scalars[0]
    columns: dict[str, list[Tensor]] = {}
    for values in scalars:
        for name, value in values.items():
            columns.setdefault(name, []).append(value.detach())
    return {name: torch.stack(column).mean() for name, column in columns.items()}


def losses_of(learners: Sequence[Learner], nets: Nets, batch: Batch, number: int = 0) -> list[Mapping[str, Any]]:
    """What the losses of modules that are trained in one step return, from one graph; `number` is the batch's."""
    names, losses = [learner.name for learner in learners], []
    for learner in learners:
        nets.enter(learner.name, names, batch=number)
        assert learner.module.loss is not None  # a fixed module has no learner
        with calling(f"the loss of {learner.name}", learner.module.loss), learner.autocast():
            losses.append(learner.module.loss(nets, batch, learner.params))
            check_losses(learner.name, learner.module, losses[-1])
    return losses
