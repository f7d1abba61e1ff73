"""One step of a module on one batch: its loss, its gradient, and what it must leave alone or share with others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from modtrain.data.base import Batch
from modtrain.plugins import place_of
from modtrain.recipes.contract import sum_of, terms_of
from modtrain.recipes.nets_view import Nets
from modtrain.training.learner import Learner
from modtrain.training.recipe_check.batches import are_equal, copy_of
from modtrain.training.train_step import losses_of, train_step

POINTS = (0.0, 0.25, 0.5, 0.75, 0.99)
"""Progress of the run at which a schedule is evaluated."""


def schedule(learner: Learner) -> None:
    """Evaluate the schedule; the learner is left at a progress at which it trains, if there is one."""
    trained = [point for point in POINTS if learner.set_progress(point)]
    learner.set_progress(trained[0] if trained else POINTS[0])


def step(learner: Learner, nets: Nets, batch: Batch) -> Iterator[str]:
    """What is wrong with the loss of a module on a batch; the weights change by one step where nothing is."""
    loss = f"The loss of {learner.name} ({place_of(learner.module.loss)})"
    given = copy_of(batch)
    nets.forget()
    learner.require_grad(True)
    (losses,) = losses_of([learner], nets, given)
    if not are_equal(given, batch):
        yield f"{loss} changes the batch, which the other modules of its worker get as well; change a copy of it."
    for name, value in {**losses, "loss": sum_of(terms_of(losses))}.items():
        if not math.isfinite(float(value.detach())):
            yield f"{loss} returned {float(value.detach())} as {name!r} with the initial weights."
            return
    nets.forget()
    train_step([learner], nets, {0: copy_of(batch)})
    if all(weight.grad is None for weight in learner.weights):
        yield f"{loss} gives no gradient to the weights of {learner.name}; compute it with nets.{learner.name}."


def unshared_terms(learners: Sequence[Learner], nets: Nets, batch: Batch) -> Iterator[str]:
    """A sentence for each two modules that train another way together than apart, since a term is not shared."""
    nets.forget()
    for learner in learners:
        learner.require_grad(True)
    terms = [terms_of(losses) for losses in losses_of(learners, nets, copy_of(batch))]
    for learner, own in zip(learners, terms, strict=True):
        for other, others in zip(learners, terms, strict=True):
            shared = set(map(id, others))
            if any(_reaches(other, term) for term in own if id(term) not in shared):
                yield (
                    f"The loss of {learner.name} ({place_of(learner.module.loss)}) has a term that also trains "
                    f"{other.name}, with which it is trained together, and that is not a term of {other.name}; make it "
                    "with nets.once, and return it in the tuple 'loss' of both."
                )
    for learner in learners:
        learner.require_grad(False)


def _reaches(learner: Learner, term: torch.Tensor) -> bool:
    """Whether a term has a gradient for weights of a module."""
    if not (term.requires_grad and learner.weights):
        return False
    gradients = torch.autograd.grad(term, learner.weights, retain_graph=True, allow_unused=True)
    return any(gradient is not None for gradient in gradients)


def weak_gradient(learner: Learner) -> Iterator[str]:
    """A sentence where the gradient of the last step is 0 for every weight."""
    gradients = [weight.grad for weight in learner.weights if weight.grad is not None]
    if gradients and not any(bool(gradient.any()) for gradient in gradients):
        yield f"The gradient of {learner.name} is 0 for every weight with the initial weights."
