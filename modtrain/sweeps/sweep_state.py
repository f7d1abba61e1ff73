"""The state of a sweep: the one place that decides it, from the states of its trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from modtrain.storage.run_state import ENDED, LIVE, RunState
from modtrain.storage.stop_request import StopRequest


def sweep_state(counts: Mapping[str, int], stop: StopRequest | None, *, is_launched: bool) -> RunState:
    """The state of a sweep from the number of its trials in each state.

    `is_launched`: a process of this machine runs the trials, so that more is to come even where none of them trains.
    """
    present = {state for state, count in counts.items() if count}
    if is_launched or present & LIVE:
        return "running"
    if present <= ENDED:
        return "finished" if present & {"finished", "pruned"} else "failed"
    if "queued" in present:
        return "queued"
    if stop is not None:
        return "cancelled" if stop.kind == "cancelled" else "stopped"
    return "created" if present == {"created"} else "stopped"


def pending_state(number: int, submitted: Collection[int], stop: StopRequest | None, *, is_launched: bool) -> RunState:
    """The state of a trial without a run: `queued` where a process or a submitted job will begin it."""
    return "queued" if stop is None and (is_launched or number in submitted) else "created"
