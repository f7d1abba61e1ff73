"""Launched runs in tests: their processes, and their end."""

from __future__ import annotations

import time

from modtrain.scheduling.launcher import Launch
from modtrain.storage.run import Run

LONG = {"pause_s": 0.05, "batches": 20}
"""Parameters that make the tiny recipe last for three seconds."""


def pid_after(run: Run, module: str, steps: int, timeout_s: float = 180.0) -> int:
    """The live process that trains a module, once it has made some steps."""
    deadline = time.monotonic() + timeout_s
    while True:
        report = run.read_report(module)
        if report and (report.step or 0) >= steps and report.process.is_running():
            return int(report.process.pid or 0)
        assert time.monotonic() < deadline, report
        time.sleep(0.05)


def to_the_end(launch: Launch, timeout_s: float = 90.0) -> list[str]:
    """Watch a launch to its end; the messages meanwhile."""
    messages: list[str] = []
    deadline = time.monotonic() + timeout_s
    for members in launch.watch(messages.append):
        assert time.monotonic() < deadline, (members, messages)
    return messages


def is_final(run: Run) -> bool:
    """Whether the newest version of every module is its last."""
    newest = [run.store(module).latest() for module in run.modules]
    return all(checkpoint is not None and checkpoint.final for checkpoint in newest)
