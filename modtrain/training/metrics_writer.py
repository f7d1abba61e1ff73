"""The training curve of a module: losses gathered without stopping the device, checked, and written to metrics.jsonl.

NaN and Inf are found here, at the latest before the next publish, and the loss and the step are named. Deliberately not
here: plotting, and metrics on held-out data (`evaluate.py`).
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modtrain.errors import Diverged
from modtrain.storage import filesystem
from modtrain.training.timers import Kind

log = logging.getLogger(__name__)

PLACE = frozenset({"step", "epoch", "lr", "at", "seconds"})
"""What a line says besides the losses: none of them may be called so."""


class Curve:
    """Losses of one module since the last line of its `metrics.jsonl`."""

    def __init__(self, module: str, path: Path) -> None:
        self._module, self._path = module, path
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self._step = 0
        self.means: dict[str, float] = {}
        """The means over the last interval, each over the steps that had it."""

    def goes_on(self, step: int) -> None:
        """Training goes on from this step: what an earlier life wrote of later ones does not count any more."""
        if self._path.exists():
            self._append({"goes_on_from": step, "at": time.time()})

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step, without waiting for the device."""
        self._pending.append((step, {name: value.detach() for name, value in losses.items()}))

    def check(self) -> bool:
        """Wait for the device and take the means; False where nothing was added since.

        Diverged names the first loss that is NaN or Inf.
        """
        if not self._pending:
            return False
        found: dict[str, list[float]] = {}
        entries = [(step, name, value.float()) for step, losses in self._pending for name, value in losses.items()]
        values = torch.stack([value for _, _, value in entries]).tolist()
        for (step, name, _), value in zip(entries, values, strict=True):
            if not math.isfinite(value):
                raise Diverged(
                    f"{name!r} of {self._module} became {value} at step {step}; nothing of it was published. "
                    "Lower the learning rate (--set), or look at the losses before it in metrics.jsonl."
                )
            found.setdefault(name, []).append(value)
        self.means = {name: statistics.fmean(its) for name, its in found.items()}
        self._step = self._pending[-1][0] + 1
        self._pending.clear()
        return True

    def write(self, epoch: float, lr: float, seconds: Mapping[Kind, float]) -> dict[str, Any]:
        """One line of what was checked, and of where the worker's seconds went meanwhile; storage may fail."""
        line = {"step": self._step, "epoch": epoch, "lr": lr, "at": time.time(), "seconds": seconds, **self.means}
        self._append(line)
        return line

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            filesystem.append_line(self._path, json.dumps(line))
        except OSError as error:
            log.warning("Could not write %s: %s", self._path, error)
