"""What the workers of a run do, line by line, where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from modtrain.cli import terminal
from modtrain.monitoring.status import Status
from modtrain.storage.run_state import LIVE

LINES_S = (5.0, 60.0)
"""Seconds between two lines of one worker where the output is no terminal: at first, and at most."""


class WorkerLines:
    """Decides which workers have a line to print."""

    def __init__(self) -> None:
        self._printed: dict[int, tuple[str, str, float, float]] = {}
        """By worker its last line, the state and the time of it, and the pause before the next one."""

    def due(self, status: Status) -> Iterator[str]:
        """A line for each worker whose state has changed, or that had none for some time and has something new."""
        now = time.monotonic()
        for number, worker in enumerate(status["workers"]):
            last, state, at, pause_s = self._printed.get(number, ("", "", 0.0, LINES_S[0]))
            changed = worker["state"] != state and {worker["state"], state} != {"running", "waiting"}
            if not changed and (now - at < pause_s or worker["state"] not in LIVE):
                continue
            modules = sorted(
                (status["modules"][name] for name in worker["modules"]), key=lambda module: module["rests"]
            )
            line = worker_line(status, worker, modules[0]["losses"].get("loss"))
            if line != last:
                self._printed[number] = (line, worker["state"], now, min(pause_s * 1.3, LINES_S[1]))
                yield line


def worker_line(status: Status, worker: Mapping[str, Any], loss: float | None) -> str:
    """What a worker does, as one line; epochs and steps are those of the run, also of a worker that leaves earlier."""
    name = "+".join(worker["modules"])
    if worker["state"] not in ("running", "waiting", "resting"):
        return f"{name:<28}  {worker['state']}"
    parts = [f"waiting for {worker['waiting_for']}" if worker["state"] == "waiting" else worker["state"]]
    parts += [f"evaluating epoch {worker['evaluating']}"] if worker["evaluating"] else []
    parts += [f"stage {worker['stage']}"] if worker["stage"] else []
    parts += [f"epoch {worker['epoch']}/{status['epochs']}", f"step {worker['step']}/{status['steps'] or '?'}"]
    parts += [terminal.rate(worker["steps_per_s"])] if worker["steps_per_s"] else []
    parts += [f"{terminal.clock(worker['left_s'])} left"] if worker["left_s"] is not None else []
    parts += [f"loss {terminal.number(loss)}"] if loss is not None else []
    return f"{name:<28}  {', '.join(parts)}"
