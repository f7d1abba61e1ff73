"""Initialisation: a module begins with weights from a file instead of random ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import build_network
from modtrain.recipes.loading import params_of
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import RunSpec
from modtrain.training import serialization
from modtrain.training.random_state import kept_random_state


def initialise(nets: Iterable[nn.Module], module: str, weights: InitialWeights) -> None:
    """Copy the weights of a file into networks of a module.

    InputError where the file is gone, another one, or does not fit the networks; StorageError where it is unreadable.
    """
    tensors = serialization.read_tensors(Path(weights.path), weights.read())
    for net in nets:
        if problems := serialization.misfits(net.state_dict(), tensors):
            raise InputError(f"{weights.path} does not fit {module}: {problems}.")
        net.load_state_dict(tensors)


def check_initial_weights(spec: RunSpec, recipe: Recipe) -> None:
    """InputError where the initial weights of a module do not fit it."""
    params = params_of(spec, recipe)
    for module, weights in spec.init.items():
        with kept_random_state():
            net = build_network(module, recipe.modules[module], params)
        initialise([net], module, weights)
