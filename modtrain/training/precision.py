"""Precision: in which numbers losses are computed; weights, optimizers and what is published are float32 in each.

`bfloat16` and `float16` are torch's automatic mixed precision: in a loss, convolutions and matrix products take the
lower one. The gradients of float16 are scaled up, since it lacks small numbers (Micikevicius et al. 2018, section 3.2).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from modtrain.errors import InputError
from modtrain.plugins import summary

LOWEST_SCALE = 2.0**-14
"""A gradient that is not finite at this scale of the loss is not so because of the scale."""
_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """A context in which a loss is computed in a precision; on a device such as cpu or cuda:1."""
    if precision not in _TYPES:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype=_TYPES[precision])


def check_precision(precision: str, device: str) -> None:
    """InputError where a device cannot compute in a precision."""
    if precision not in _TYPES:
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*autocast")  # torch warns where it falls back to float32
            layer = torch.nn.Conv2d(3, 8, 3, device=device)
            with autocast(precision, device):
                loss = layer(torch.zeros(1, 3, 8, 8, device=device)).float().square().mean()
            scale = loss_scale(precision, device)
            torch.autograd.grad(scale.scaled(loss) if scale else loss, list(layer.parameters()))
    except (RuntimeError, UserWarning, NotImplementedError) as error:
        others = " or ".join(name for name in ("float32", *_TYPES) if name != precision)
        raise InputError(
            f"--precision {precision} is not possible on {device} here ({summary(error)}); use {others}, or another "
            "--device."
        ) from error


def on_any_cpu(precision: str) -> str:
    """The precision itself, but bfloat16 in place of float16, which not every CPU can compute."""
    return "bfloat16" if precision == "float16" else precision


class LossScale:
    """The factor on a loss of float16: halved where a gradient overflows, doubled after 2,000 steps in which none did.

    Modules that are trained in one step have one. A step in which a gradient overflows is skipped.
    """

    def __init__(self, device: str) -> None:
        self._scaler = GradScaler(torch.device(device).type)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradient is to be computed."""
        return self._scaler.scale(loss)

    def unscale(self, optimizers: Sequence[Optimizer]) -> bool:
        """Divide the gradients of the weights by the scale and adapt it; False where a gradient is not finite."""
        if not (gradients := gradients_of(optimizers)):
            return True
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)
        self._scaler.update()
        return math.isfinite(float(get_total_norm(gradients, math.inf)))

    @property
    def is_lowest(self) -> bool:
        """Whether the scale is too low to be the reason of a gradient that is not finite."""
        return bool(self._scaler.get_scale() < LOWEST_SCALE)

    def state_dict(self) -> Mapping[str, Any]:
        """Plain values."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a scale."""
        self._scaler.load_state_dict(dict(state))


def loss_scale(precision: str, device: str) -> LossScale | None:
    """A new scale where the precision needs one."""
    return LossScale(device) if precision == "float16" else None


def gradients_of(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """The gradients of all weights that have one."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [weight.grad for group in groups for weight in group["params"] if weight.grad is not None]


def finite_of(scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that are neither NaN nor infinite; waits for the device."""
    return {name: value for name, value in scalars.items() if bool(torch.isfinite(value))}
