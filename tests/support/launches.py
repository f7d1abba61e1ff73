"""Launched runs in tests: their processes, their end, and a recipe of three modules."""

from __future__ import annotations

import time

from modtrain.scheduling.launcher import Launch
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run

LONG = {"pause_s": 0.05, "batches": 20}
"""Parameters that make the tiny recipe last for three seconds."""
THREE = """
import dataclasses, importlib.util, sys
spec = importlib.util.spec_from_file_location("tiny", {tiny!r})
tiny = sys.modules["tiny"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

def alone(nets, batch, params):
    return {{"loss": nets.third(batch["real"]).square().mean()}}

third = dataclasses.replace(tiny.recipe.modules["discriminator"], loss=alone, reads=())
recipe = dataclasses.replace(tiny.recipe, modules={{"third": third, **tiny.recipe.modules}})
"""
"""The text of a recipe file: the tiny recipe with a third module, which reads no other."""


def pid_after(run: Run, module: str, steps: int, timeout_s: float = 180.0) -> int:
    """The live process that trains a module, once it has made some steps."""
    deadline = time.monotonic() + timeout_s
    while True:
        beat = run.heartbeat(module)
        if beat and beat.get("step", 0) >= steps and process_started(beat["pid"]) == beat["started"]:
            return int(beat["pid"])
        assert time.monotonic() < deadline, beat
        time.sleep(0.05)


def to_the_end(launch: Launch, timeout_s: float = 90.0) -> list[str]:
    """What was told meanwhile."""
    told: list[str] = []
    deadline = time.monotonic() + timeout_s
    for members in launch.watch(told.append):
        assert time.monotonic() < deadline, (members, told)
    return told


def is_final(run: Run) -> bool:
    found = [run.store(module).latest() for module in run.modules]
    return all(checkpoint is not None and checkpoint.final for checkpoint in found)
