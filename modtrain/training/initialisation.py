"""Initialisation: a module begins with weights from a file instead of random ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import build_network
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.loading import params_of
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import RunSpec
from modtrain.training import serialization
from modtrain.training.random_state import kept_random_state


def initialise(
    nets: Iterable[nn.Module],
    module: str,
    weights: InitialWeights,
    formats: Iterable[Format],
    *,
    is_part: bool = False,
) -> None:
    """Copy the weights of a file, which has the names of the networks or those of a format, into networks of a module.

    `is_part`: a network may be a part of that of the file, such as its first layers. InputError where the file is gone,
    another one, or does not fit the networks; StorageError where it is unreadable.
    """
    tensors = serialization.read_tensors(Path(weights.path), weights.read())
    for net in nets:
        if is_part:
            tensors = {name: value for name, value in tensors.items() if name in net.state_dict()} or tensors
        net.load_state_dict(_state(net, module, tensors, formats, weights.path))


def _state(
    net: nn.Module, module: str, tensors: Mapping[str, Tensor], formats: Iterable[Format], path: str
) -> Mapping[str, Tensor]:
    """The tensors of a file by the names of a network; InputError where they do not fit it."""

    def expected_of(file: WeightsFile | None) -> Mapping[str, Tensor]:
        return file.named(net) if file else net.state_dict()

    files = [each.files[module] for each in formats if module in each.files]
    file = max([*files, None], key=lambda each: len(expected_of(each).keys() & tensors.keys()))
    expected = expected_of(file)
    used = file.upgrade(tensors) if file else tensors
    if path.endswith(".safetensors") and not expected.keys() & used.keys():  # most likely another module of modtrain's
        expected, used = net.state_dict(), tensors
    if problems := serialization.misfits(expected, used):
        raise InputError(f"{path} does not fit {module}: {problems}.")
    return file.imported(net, used) if file else used


def check_initial_weights(spec: RunSpec, recipe: Recipe) -> None:
    """InputError where the initial weights of a module, or those of a fixed one, do not fit it."""
    params = params_of(spec, recipe)
    for module, weights in (spec.init | spec.fixed).items():
        with kept_random_state():
            net = build_network(module, recipe.modules[module], params)
        is_fixed = recipe.modules[module].is_fixed
        initialise([net], module, weights, recipe.formats.values(), is_part=is_fixed)
