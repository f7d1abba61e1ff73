"""Full precision: float32 for a part of a loss, where the rest of a run is computed in a lower precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_LOWER = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def full_precision(enabled: bool = True) -> Iterator[None]:
    """Compute what is inside in the precision of its inputs: of weights and of `as_full(tensor)` that is float32.

    A gradient penalty needs it, since it differentiates the gradient. Where `enabled` is false nothing changes.
    """
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda", "mps"):
            if enabled and torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def as_full(tensor: Tensor) -> Tensor:
    """A bfloat16 or float16 tensor as float32; any other one as it is."""
    return tensor.float() if tensor.dtype in _LOWER else tensor


def is_full(tensor: Tensor) -> bool:
    """Whether a tensor is neither bfloat16 nor float16."""
    return tensor.dtype not in _LOWER
