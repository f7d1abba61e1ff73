"""Random state: the generators of torch, NumPy and Python that a recipe may draw from, seeded, saved and restored."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed every generator with a number from 0 to 2**63 - 1."""
    torch.manual_seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """The state of every generator as tensors and plain values: torch's on the CPU and on each GPU, the others'."""
    _, keys, *numbers = np.random.get_state(legacy=True)
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, numbers)],
        "python": random.getstate(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore every generator that the state has; those of the GPUs only where their number is the same."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "numpy" in state:
        keys, position, has_gauss, gauss = state["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    if "python" in state:
        random.setstate(state["python"])


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Every generator is as before afterwards."""
    numpy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(numpy)
        random.setstate(python)
