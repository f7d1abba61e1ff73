"""Tensors in and out of a checkpoint's files: weights as safetensors, the owner's state as a weights-only pickle.

Loading what a peer published runs no code.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from modtrain.errors import CorruptCheckpoint, InputError

MOST_NAMED = 3
"""Weights that an error names."""
_WRAPPED = ("state_dict", "model", "params")


def pack_weights(net: nn.Module) -> bytes:
    """Parameters and buffers of a network, as safetensors; each is stored separately, even where two share memory."""
    values = net.state_dict()
    return safetensors.torch.save({name: value.detach().cpu().contiguous().clone() for name, value in values.items()})


def load_weights(net: nn.Module, content: bytes) -> None:
    """Copy published weights into a network in place; CorruptCheckpoint, and no change, where they do not fit it."""
    try:
        tensors = safetensors.torch.load(content)
        if problems := misfits(net.state_dict(), tensors):
            raise CorruptCheckpoint(f"The published weights do not fit this network: {problems}.")
        net.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise CorruptCheckpoint(f"The published weights do not fit this network: {error}") from error


def misfits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What keeps tensors from being the state of a network, the first phrases; empty where they fit."""
    missing = [f"{name} is missing" for name in own if name not in tensors]
    foreign = [f"{name} is not in the network" for name in tensors if name not in own]
    shapes = [(name, tuple(tensors[name].shape), tuple(value.shape)) for name, value in own.items() if name in tensors]
    found = missing + foreign + [f"{name} is {got} instead of {shape}" for name, got, shape in shapes if got != shape]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more


def read_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors in a file by name: safetensors, or a state dict that torch saved, of which nothing is executed.

    InputError where the file holds anything else. A state dict may stand under `state_dict`, `model` or `params`, and
    its names may begin with the `module.` of DataParallel.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file, or a damaged one: {error}.") from error
    except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError, KeyError) as error:
        if found := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} holds {found[1]}, which is not loaded, since that could run code; save only the tensors, as "
                "in torch.save(net.state_dict(), path)."
            ) from error
        raise InputError(f"{path} is not a file of torch.save, or a damaged one.") from error
    for name in _WRAPPED:
        values = values[name] if isinstance(values, Mapping) and isinstance(values.get(name), Mapping) else values
    if not isinstance(values, Mapping) or not all(isinstance(value, Tensor) for value in values.values()):
        raise InputError(f"{path} does not hold a state dict (tensors by name); save `net.state_dict()`.")
    parallel = all(name.startswith("module.") for name in values)
    return {name.removeprefix("module.") if parallel else name: value for name, value in values.items()}


def pack_state(state: Mapping[str, Any]) -> bytes:
    """The owner's state (optimizer, RNG, position): tensors and plain values, NumPy's numbers as Python's."""
    buffer = io.BytesIO()
    torch.save(plain(dict(state)), buffer)
    return buffer.getvalue()


def unreadable_entry(state: Any, name: str = "") -> str:
    """The first entry of a state, named by its keys and its type, that `unpack_state` cannot read back; else empty."""
    try:
        unpack_state(pack_state({"entry": state}))
        return ""
    except (CorruptCheckpoint, pickle.PicklingError, AttributeError, TypeError):
        entries = state.items() if isinstance(state, Mapping) else enumerate(state if isinstance(state, list) else ())
    below = (entry for key, value in entries if (entry := unreadable_entry(value, f"{name}[{key!r}]")))
    return next(below, f"{name} ({type(state).__name__})")


def plain(value: Any) -> Any:
    """The same values, with NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {plain(name): plain(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value


def unpack_state(content: bytes) -> dict[str, Any]:
    """The owner's state; nothing in it is executed (`weights_only`). CorruptCheckpoint where it cannot be read."""
    try:
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
        raise CorruptCheckpoint(f"The state.pt cannot be read: {error}") from error
