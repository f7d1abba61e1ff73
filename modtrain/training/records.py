"""MetricsWriter and WorkerEvents: the JSON lines that a worker appends in the folder of each of its modules.

Storage that fails costs only the line.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtrain.errors import Diverged, message_of
from modtrain.storage import filesystem
from modtrain.storage.process_identity import job_id
from modtrain.storage.run import Run

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SHORTEST_WAIT_S = 0.5
"""Waits shorter than this are not recorded."""


class MetricsWriter:
    """The training curve of one module, `metrics.jsonl`: gathered without stopping the device, checked, and written.

    NaN and Inf are found here, at the latest before the next publish, and the error names the loss and the step.
    """

    def __init__(self, module: str, path: Path) -> None:
        self._module, self._path = module, path
        self._pending: list[tuple[int, Mapping[str, Tensor]]] = []
        self._step = 0
        self.means: dict[str, float] = {}
        """The means over the last interval, each over the steps that had it."""

    def resume(self, step: int) -> None:
        """Mark that training continues at this step: lines that an earlier process wrote beyond it are void."""
        try:
            is_first = not self._path.exists()
        except OSError:
            is_first = False
        if not is_first:
            _append(self._path, {"goes_on_from": step, "at": time.time()})

    def add(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step (scalars), without waiting for the device."""
        self._pending.append((step, {name: value.detach() for name, value in losses.items()}))

    def check(self) -> bool:
        """Wait for the device and take the means; False where nothing was added since.

        Diverged names the first loss that is NaN or Inf.
        """
        import torch

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

    def write(self, epoch: float, lr: float, seconds: Mapping[str, float]) -> dict[str, Any]:
        """Append the line of the last `check`, with the worker's seconds by phase."""
        line = {"step": self._step, "epoch": epoch, "lr": lr, "at": time.time(), "seconds": seconds, **self.means}
        _append(self._path, line)
        return line


class WorkerEvents:
    """When a worker started, waited for a peer, and exited: the lines of `workers.jsonl`."""

    def __init__(self, run: Run, modules: Iterable[str]) -> None:
        self._paths = [run.workers_path(module) for module in modules]
        self._writer = ""

    def record_start(self, writer: str, step: int, device: str) -> None:
        """Training starts or continues at a step; `writer` is the writer id of the checkpoints to come."""
        self._writer = writer
        process = {"host": socket.gethostname(), "pid": os.getpid(), "job": job_id(), "device": device}
        self._write("began", **process, step=step)

    def record_wait(self, peer: str, seconds: float, *, epoch: int, step: int) -> None:
        """A wait for a peer is over, in whichever way."""
        if seconds >= SHORTEST_WAIT_S:
            self._write("waited", **{"for": peer}, seconds=round(seconds, 3), epoch=epoch, step=step)

    def record_exit(self, state: str, exit_code: int, trouble: str | None, step: int | None) -> None:
        """The worker exits. A worker that found its modules finished has written no start and writes no exit."""
        if self._writer or exit_code != 0:
            outcome = {"state": state, "exit_code": exit_code, "trouble": trouble, "step": step}
            self._write("left", host=socket.gethostname(), pid=os.getpid(), **outcome)

    def _write(self, what: str, **fields: Any) -> None:
        for path in self._paths:
            _append(path, {"what": what, "at": time.time(), "writer": self._writer, **fields})


def _append(path: Path, line: Mapping[str, Any]) -> None:
    try:
        filesystem.append_line(path, json.dumps(line))
    except OSError as error:
        log.warning("Could not write %s: %s", path, message_of(error))
