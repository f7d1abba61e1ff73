"""What the functions of a recipe must return. Each check raises InputError with the function's file and line.

A worker and the evaluation call these, and `training/recipe_check` before a run is created.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modtrain.data.base import Data
from modtrain.errors import InputError
from modtrain.recipes.base import Evaluation, Module

RESERVED = frozenset({"step", "epoch", "lr", "at", "seconds"})
"""Fields of a line of a training curve besides the losses; no loss may have one of these names."""


def place_of(function: Any) -> str:
    """File and line of a function, or of a class or its object: `ring.py, line 12`; its name where there is none."""
    function = inspect.unwrap(getattr(function, "func", function))
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        function = type(function)
    try:
        code = getattr(function, "__code__", None)
        file = code.co_filename if code else inspect.getsourcefile(function)
        line = code.co_firstlineno if code else inspect.getsourcelines(function)[1]
    except (OSError, TypeError):
        return str(getattr(function, "__qualname__", function))
    return f"{Path(file or '').name}, line {line}"


def check_data(data: object, function: Callable[..., Any]) -> Data:
    """`data` as it is; InputError where its training data cannot be iterated in epochs."""
    where = place_of(function)
    if not isinstance(data, Data):
        raise InputError(f"`data` ({where}) returned {describe(data)}; it must return Data(train=..., test=...).")
    train: Any = data.train
    of_train = f"Data.train, {describe(train)} ({place_of(train)}),"
    if not hasattr(type(train), "__len__"):
        raise InputError(f"{of_train} has no __len__; it must return the number of batches in an epoch.")
    if not callable(getattr(train, "epoch", None)):
        raise InputError(f"{of_train} has no method `epoch`; it takes (epoch, *, seed, start=0) and yields batches.")
    try:
        inspect.signature(train.epoch).bind(0, seed=0, start=0)
    except TypeError as error:
        raise InputError(
            f"Data.train.epoch ({place_of(train.epoch)}) does not take (epoch, *, seed, start=0): {error}."
        ) from error
    return data


def check_batch(batch: object, train: Any) -> None:
    """InputError where a batch is no mapping of tensors by name."""
    from torch import Tensor

    of_epoch = f"Data.train.epoch ({place_of(train.epoch)}) yielded"
    if not isinstance(batch, Mapping):
        raise InputError(f"{of_epoch} {describe(batch)}; a batch is a mapping of tensors by name.")
    for name, value in batch.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{of_epoch} {describe(value)} under {name!r}; a batch holds a tensor under each name.")


def check_losses(name: str, module: Module, losses: object) -> None:
    """InputError where the loss of a module returned anything but scalar tensors by name, with one to minimise."""
    if problem := _problem_of_losses(losses):
        raise InputError(f"The loss of {name} ({place_of(module.loss)}) returned {problem}.")


def _problem_of_losses(losses: object) -> str | None:
    from torch import Tensor

    if not isinstance(losses, Mapping):
        return f"{describe(losses)}; it must return a mapping such as {{'loss': tensor}}"
    if "loss" not in losses:
        return f"{', '.join(map(str, losses)) or 'an empty mapping'}; it must return a 'loss'"
    for name, value in losses.items():
        if name in RESERVED:
            return f"{name!r}; rename it: metrics.jsonl reserves {', '.join(sorted(RESERVED))}"
        if not isinstance(value, Tensor) or value.dim():
            return f"{describe(value)} under {name!r}; each value must be a tensor of shape ()"
    if not losses["loss"].requires_grad:
        return "a 'loss' without gradient; compute it from the module's own network, and do not detach it"
    return None


def check_evaluation(evaluation: object, function: Callable[..., Any]) -> Evaluation:
    """`evaluation` with its metrics as numbers; InputError where `evaluate` returned anything else."""
    import torch

    returned = f"`evaluate` ({place_of(function)}) returned"
    if not isinstance(evaluation, Evaluation):
        raise InputError(f"{returned} {describe(evaluation)}; it must return Evaluation(metrics={{...}}, grid=...).")
    if not isinstance(evaluation.metrics, Mapping):
        raise InputError(f"{returned} metrics that are {describe(evaluation.metrics)}; they are numbers by name.")
    metrics = dict[str, float]()
    for name, value in evaluation.metrics.items():
        if not isinstance(name, str) or not (isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()):
            raise InputError(f"{returned} {describe(value)} as metric {name!r}; a metric is one number.")
        metrics[name] = float(value)
    grid = evaluation.grid
    is_picture = isinstance(grid, torch.Tensor) and grid.dim() == 3 and grid.shape[2] == 3
    if grid is not None and not (is_picture and grid.dtype == torch.uint8 and grid.numel()):
        raise InputError(f"{returned} a grid that is {describe(grid)}; it must be a uint8 tensor (height, width, 3).")
    return Evaluation(metrics=metrics, grid=grid)


def describe(value: object) -> str:
    """What a value is, in words: `nothing`, `a dict`, `a float32 tensor of shape (4, 3)`."""
    if value is None:
        return "nothing"
    if type(value).__module__.partition(".")[0] in ("torch", "numpy") and hasattr(value, "shape"):
        kind = "tensor" if type(value).__module__.startswith("torch") else "numpy array"
        dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"{_article(dtype)} {dtype} {kind} of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{_article(name)} {name}"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeio" or word.startswith("u8") else "a"
