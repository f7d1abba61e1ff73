"""Fixed modules: networks that are never trained, built wherever they are read, with weights that `run.json` names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import build_network, fixed_reference
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import Run
from modtrain.training.initialisation import initialise
from modtrain.training.learner import derived_seed
from modtrain.training.peers import freeze
from modtrain.training.random_state import kept_random_state, seed_all


def build_fixed(seed: int, recipe: Recipe, params: Any, name: str, weights: InitialWeights | None) -> nn.Module:
    """The network of a fixed module on the CPU, the same in every process of the run with this seed.

    InputError where its file is gone, another one, or does not fit; StorageError where it cannot be read.
    """
    module = recipe.modules[name]
    with kept_random_state():
        seed_all(derived_seed(seed, name))
        net = build_network(name, module, params)
    if weights:
        initialise([net], name, weights, recipe.formats.values(), is_part=True)
    elif fixed_reference(name, module, params) is not None:
        raise InputError(f"The run names no weights of {name}; restore the recipe as it was when the run was created.")
    return net


def fixed_peers(
    run: Run, recipe: Recipe, params: Any, modules: Iterable[str], device: str
) -> dict[str, list[nn.Module]]:
    """The fixed modules that the losses of `modules` read, each frozen in its `frozen_mode`, as versions of a peer."""
    names = [name for name in recipe.reads(modules, params) if recipe.modules[name].is_fixed]
    nets = {name: build_fixed(run.spec.seed, recipe, params, name, run.weights_of(name)) for name in names}
    return {name: [freeze(net.to(device), recipe.modules[name].frozen_mode)] for name, net in nets.items()}
