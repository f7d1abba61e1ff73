"""Alarms: what a person should look at in a run, each in words with what to do.

Deliberately not here: what is the case (`status.py`) and how it came to it (`history.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modtrain.history import History
from modtrain.pulse import LIVE


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One thing to look at."""

    module: str | None
    level: Literal["bad", "warn"]
    says: str
    do: str


def alarms(found: Mapping[str, Any], history: History | None = None) -> list[Alarm]:
    """What a person should look at in a run: `found` as `status` says it, and its history where that is known."""
    said = []
    for worker in found["workers"]:
        name, where = worker["modules"][0], f"{worker['host']}, process {worker['pid']}"
        if worker["state"] == "lost":
            says = f"{' + '.join(worker['modules'])} died without a word ({where})."
            said.append(Alarm(module=name, level="bad", says=says, do="Launch the run again to go on from there."))
        elif worker["state"] in ("failed", *LIVE) and worker["trouble"]:
            said.append(Alarm(module=name, level="bad", says=str(worker["trouble"]), do="See its worker.log."))
    return said
