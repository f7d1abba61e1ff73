"""Initialisation: a module begins with weights from a file instead of random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import params_of
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import RunSpec
from modtrain.training import serialization

MOST_NAMED = 3
"""Weights that an error names."""


def initialise(nets: Iterable[nn.Module], module: str, weights: InitialWeights) -> None:
    """Copy the weights of a file into networks of a module.

    InputError where the file is gone, another one, or does not fit the networks; StorageError where it is unreadable.
    """
    tensors = serialization.read_tensors(Path(weights.path), weights.read())
    for net in nets:
        if misfits := _misfits(net.state_dict(), tensors):
            more = f" and {len(misfits) - MOST_NAMED} more" if len(misfits) > MOST_NAMED else ""
            raise InputError(f"{weights.path} does not fit {module}: {', '.join(misfits[:MOST_NAMED])}{more}.")
        net.load_state_dict(tensors)


def check_initial_weights(spec: RunSpec, recipe: Recipe) -> None:
    """InputError where the initial weights of a module do not fit it."""
    params = params_of(spec, recipe)
    for module, weights in spec.init.items():
        with torch.random.fork_rng():
            net = recipe.modules[module].build(params)
        initialise([net], module, weights)


def _misfits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with tensors for a network, one phrase each."""
    missing = [f"{name} is missing" for name in own if name not in tensors]
    foreign = [f"{name} is not in the network" for name in tensors if name not in own]
    shapes = [(name, tuple(tensors[name].shape), tuple(value.shape)) for name, value in own.items() if name in tensors]
    return missing + foreign + [f"{name} is {got} instead of {shape}" for name, got, shape in shapes if got != shape]
