"""The state of a sweep: the one place that decides it, from the states of its trials."""

from __future__ import annotations

from collections.abc import Mapping

from modtrain.storage.run_state import ENDED, LIVE, RunState
from modtrain.storage.stop_request import StopRequest


def sweep_state(counts: Mapping[str, int], stop: StopRequest | None, *, is_launched: bool) -> RunState:
    """The state of a sweep with so many trials in each state; `is_launched` where a process here runs its trials."""
    present = {state for state, count in counts.items() if count}
    if present <= ENDED:
        return "finished" if present & {"finished", "pruned"} else "failed"
    if present & LIVE or is_launched:
        return "running"
    if "queued" in present:
        return "queued"
    if stop is not None:
        return "cancelled" if stop.kind == "cancelled" else "stopped"
    return "created" if present == {"created"} else "stopped"
