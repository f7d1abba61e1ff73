"""What the functions of a recipe must return. Each check raises InputError with the function's file and line.

A worker and the evaluation call these, and `training/recipe_check` before a run is created.
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtrain.data.base import Data
from modtrain.errors import InputError
from modtrain.plugins import calling, place_of
from modtrain.recipes.base import Evaluation, Memory, Module

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module as Net
    from torch.nn import Parameter
    from torch.optim import Optimizer

CLIPPED = "clipped"
"""Field of a line of a training curve: the share of steps whose gradient was clipped, of a module that clips it."""
SKIPPED = "skipped"
"""Field of a line of a training curve: the share of steps that float16 has skipped."""
SCHEDULE_POINTS = 100
"""Points of a run, evenly spread, at which a schedule is evaluated to find out whether a module trains later."""
RESERVED = frozenset({"step", "epoch", "lr", "at", "seconds", CLIPPED, SKIPPED})
"""Fields of a line of a training curve besides the losses; no loss may have one of these names."""


def check_data(data: object, function: Callable[..., Any]) -> Data:
    """`data` as it is; InputError where its training data cannot be iterated in epochs."""
    where = place_of(function)
    if not isinstance(data, Data):
        raise InputError(f"`data` ({where}) returned {describe(data)}; it must return Data(train=..., test=...).")
    train: Any = data.train
    is_beside = type(train).__module__ == getattr(function, "__module__", None)
    of_train = f"Data.train, {describe(train)} ({place_of(train) if is_beside else where}),"
    if not hasattr(type(train), "__len__"):
        raise InputError(f"{of_train} has no __len__; it must return the number of batches in an epoch.")
    with calling("Data.train.__len__", type(train).__len__):
        count = type(train).__len__(train)
    if not hasattr(count, "__index__") or not 0 <= count <= sys.maxsize:
        raise InputError(f"{of_train} has the __len__ {count!r}; it must be the whole number of batches in an epoch.")
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


def build_network(name: str, module: Module, params: Any) -> Net:
    """The network of a module, untrained, on the CPU; InputError where `build` returns anything else."""
    from torch.nn import Module as Net

    with calling(f"the network of {name}", module.build):
        net: object = module.build(params)
    if not isinstance(net, Net):
        where = place_of(module.build)
        raise InputError(f"`build` of {name} ({where}) returned {describe(net)}; it must return a torch.nn.Module.")
    return net


def fixed_reference(name: str, module: Module, params: Any) -> str | None:
    """What the weights of a fixed module refer to, None for those of `build`; InputError where it is no reference."""
    assert module.weights is not None
    with calling(f"the weights of {name}", module.weights):
        reference: object = module.weights(params)
    if reference is not None and not isinstance(reference, str | os.PathLike):
        where = place_of(module.weights)
        raise InputError(
            f"`weights` of {name} ({where}) returned {describe(reference)}; it must return a file, "
            "RUN#MODULE@VERSION, or None."
        )
    return None if reference is None else os.fspath(reference)


def build_optimizer(name: str, module: Module, weights: list[Parameter], params: Any) -> Optimizer:
    """The optimizer of a module; InputError where `optimizer` returns anything else."""
    from torch.optim import Optimizer

    assert module.optimizer is not None  # only trained modules have one
    with calling(f"the optimizer of {name}", module.optimizer):
        optimizer: object = module.optimizer(weights, params)
    if not isinstance(optimizer, Optimizer):
        where = place_of(module.optimizer)
        raise InputError(
            f"`optimizer` of {name} ({where}) returned {describe(optimizer)}; it must return a torch.optim.Optimizer."
        )
    return optimizer


def schedule_factor(name: str, module: Module, progress: float, params: Any) -> float:
    """The factor on a module's learning rates, 1 without a schedule; InputError where that returns no finite number."""
    schedule = module.schedule
    if schedule is None:
        return 1.0
    with calling(f"the schedule of {name}", schedule):
        value = schedule(progress, params)
    try:  # a NumPy number, or a tensor, is one
        if math.isfinite(factor := float(value)) and factor >= 0:
            return factor
    except (TypeError, ValueError):
        pass
    raise InputError(
        f"The schedule of {name} ({place_of(schedule)}) returned {value!r} at progress {progress:g}; it must "
        "return a number from 0 on, the factor on the learning rates."
    )


def is_trained_after(progress: float, name: str, module: Module, params: Any) -> bool:
    """Whether a schedule is not 0 somewhere between `progress` and the end of a run, looked up at SCHEDULE_POINTS."""
    points = (point / SCHEDULE_POINTS for point in range(SCHEDULE_POINTS))
    return any(schedule_factor(name, module, point, params) != 0 for point in points if point > progress)


def build_memory(name: str, module: Module, params: Any) -> Memory | None:
    """The memory of a module's loss, None where it has none; InputError where it cannot be saved and restored."""
    if module.memory is None:
        return None
    with calling(f"the memory of {name}", module.memory):
        memory = module.memory(params)
    for method in ("state_dict", "load_state_dict"):
        if not callable(getattr(memory, method, None)):
            raise InputError(
                f"`memory` of {name} ({place_of(module.memory)}) returned {describe(memory)}, which has no {method}(); "
                "it must return an object with state_dict() and load_state_dict(state)."
            )
    return memory


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
    if not (terms := terms_of(losses)):
        return "an empty tuple as 'loss'; it must hold the terms whose sum is minimised"
    for name, value in [*losses.items(), *(("loss", term) for term in terms)]:
        if name in RESERVED:
            return f"{name!r}; rename it: metrics.jsonl reserves {', '.join(sorted(RESERVED))}"
        if value is not terms and (not isinstance(value, Tensor) or value.dim()):
            return f"{describe(value)} under {name!r}; each value must be a tensor of shape ()"
    if not any(term.requires_grad for term in terms):
        return "a 'loss' without gradient; compute it from the module's own network, and do not detach it"
    return None


def terms_of(losses: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The terms of a loss, whose sum is minimised; `losses` is what the loss returned, a mapping with a "loss"."""
    loss = losses["loss"]
    return loss if isinstance(loss, tuple) else (loss,)


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of terms; one that is the same tensor object as another, such as from `Nets.once`, counts once."""
    first, *others = {id(term): term for term in terms}.values()
    return sum(others, start=first)


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


def check_applied(applied: object, images: Tensor, function: Callable[..., Any]) -> Tensor:
    """`applied` as it is; InputError where `apply` did not return as many images as it got."""
    returned = f"`apply` ({place_of(function)}) returned {describe(applied)} for images of shape {tuple(images.shape)}"
    return _check_images(applied, len(images), returned)


def check_samples(samples: object, noise: Tensor, function: Callable[..., Any]) -> Tensor:
    """`samples` as they are; InputError where `generate` did not return an image for each row of noise."""
    where = f"`generate` of `sample` ({place_of(function)})"
    return _check_images(samples, len(noise), f"{where} returned {describe(samples)} for noise {tuple(noise.shape)}")


def _check_images(images: object, count: int, returned: str) -> Tensor:
    from torch import Tensor

    is_batch = isinstance(images, Tensor) and images.dim() == 4 and images.shape[:2] == (count, 3)
    if not (isinstance(images, Tensor) and is_batch and images.is_floating_point()):
        raise InputError(f"{returned}; it must return a float tensor of shape ({count}, 3, height, width).")
    return images


def check_classes(classes: object, function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of classes; InputError where `classes` did not return different names, which can name folders."""
    names: tuple[Any, ...] = tuple(classes) if isinstance(classes, list | tuple) else ()
    are_names = all(isinstance(name, str) and Path(name).name == name != ".." for name in names)
    if not names or not are_names or len(set(names)) < len(names):
        raise InputError(
            f"`classes` of `sample` ({place_of(function)}) returned {describe(classes)}; it must return a tuple of "
            "different names, one for each label, without a slash."
        )
    return names


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
