"""Which device a process computes on."""

from __future__ import annotations

import torch

from modtrain.errors import InputError


def choose_device(device: str, worker: int = 0) -> str:
    """A torch device name. `auto` assigns the GPUs to the workers in turn, and the CPU where there is none.

    InputError for a GPU that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise InputError(f"--device {device} is not available: this machine has {count} GPUs. Use auto or cpu.")
    if device != "auto":
        return device
    return f"cuda:{worker % count}" if count else "cpu"
