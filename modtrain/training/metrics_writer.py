"""MetricsWriter: the training curve of a module, gathered without stopping the device, checked, and written.

It is written to `metrics.jsonl`. NaN and Inf are found here, at the latest before the next publish, and the error names
the loss and the step.
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
from modtrain.training.timers import Phase

log = logging.getLogger(__name__)

POSITION = frozenset({"step", "epoch", "lr", "at", "seconds"})
"""Fields of a line besides the losses; no loss may have one of these names."""


class MetricsWriter:
    """Losses of one module since the last line of its `metrics.jsonl`."""

    def __init__(self, module: str, path: Path) -> None:
        self._module, self._path = module, path
        self._pending: list[tuple[int, dict[str, Tensor]]] = []
        self._step = 0
        self.means: dict[str, float] = {}
        """The means over the last interval, each over the steps that had it."""

    def resume(self, step: int) -> None:
        """Mark that training continues at this step: lines that an earlier process wrote beyond it are void."""
        if self._path.exists():
            self._append({"goes_on_from": step, "at": time.time()})

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step (scalars), without waiting for the device."""
        self._pending.append((step, {name: value.detach() for name, value in losses.items()}))

    def check(self) -> bool:
        """Wait for the device and take the means; False where nothing was added since.

        Diverged names the first loss that is NaN or Inf.
        """
        if not self._pending:
            return False
        values_by_name: dict[str, list[float]] = {}
        entries = [(step, name, value.float()) for step, losses in self._pending for name, value in losses.items()]
        values = torch.stack([value for _, _, value in entries]).tolist()
        for (step, name, _), value in zip(entries, values, strict=True):
            if not math.isfinite(value):
                raise Diverged(
                    f"{name!r} of {self._module} became {value} at step {step}; nothing of it was published. "
                    "Lower the learning rate (--set), or look at the losses before it in metrics.jsonl."
                )
            values_by_name.setdefault(name, []).append(value)
        self.means = {name: statistics.fmean(column) for name, column in values_by_name.items()}
        self._step = self._pending[-1][0] + 1
        self._pending.clear()
        return True

    def write(self, epoch: float, lr: float, seconds: Mapping[Phase, float]) -> dict[str, Any]:
        """Append the line of the last `check`, with the worker's seconds by phase; failing storage costs the line."""
        line = {"step": self._step, "epoch": epoch, "lr": lr, "at": time.time(), "seconds": seconds, **self.means}
        self._append(line)
        return line

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            filesystem.append_line(self._path, json.dumps(line))
        except OSError as error:
            log.warning("Could not write %s: %s", self._path, error)
