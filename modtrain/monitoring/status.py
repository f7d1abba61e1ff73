"""What a run's folder says, taken together: the state of the run, of its workers and of each module.

A reader and nothing more: it writes nothing, asks no scheduler and compares no two machines' clocks. Deliberately not
here: whether a worker lives (`pulse.py`), and what a person should do about it (`alarms.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.json_lines import number
from modtrain.storage.liveness import LIVE, ONE_LOOK_S, Beat, Pulse, launcher, settle
from modtrain.storage.run import CANCELLED, Run
from modtrain.storage.stop_request import blamed
from modtrain.storage.whole import newest_whole


def status(run: Run) -> dict[str, Any]:
    """The run as plain values: `modtrain status RUN --json` prints exactly this."""
    pulse = Pulse(patience_s=ONE_LOOK_S)
    pulse.look(run)
    settle(pulse, run)
    return summary(run, *pulse.look(run))


def summary(run: Run, beats: Mapping[str, Beat], states: Mapping[str, str]) -> dict[str, Any]:
    """The same for heartbeats and states of modules that are known already; nothing is waited for."""
    found = {module: newest_whole(run.store(module)) for module in run.modules}
    newest = {module: checkpoint for module, (checkpoint, _) in found.items()}
    return told(run, beats, states, newest, run.stop_requested(), {m: damaged for m, (_, damaged) in found.items()})


def told(
    run: Run,
    beats: Mapping[str, Beat],
    states: Mapping[str, str],
    newest: Mapping[str, Checkpoint | None],
    stop: str | None,
    damaged: Mapping[str, list[int]] | None = None,
) -> dict[str, Any]:
    """The same of what was read already; nothing more is read, but who launches the run."""
    states = {m: "finished" if s == "not started" and _is_final(newest[m]) else s for m, s in states.items()}
    if stop == CANCELLED:  # whoever was killed by it has no last word
        states = {module: "stopped" if state == "lost" else state for module, state in states.items()}
    launched = launcher(run)
    return {
        "run": run.name,
        "path": str(run.path),
        "recipe": run.spec.recipe,
        "state": _overall(run, set(states.values()), stop, launched),
        "stop": stop,
        "launcher": launched,
        "workers": [_worker(number, placed, beats, states, newest) for number, placed in enumerate(run.spec.placement)],
        "modules": {
            module: _module(run, module, newest, beats[module], states[module])
            | {"damaged": (damaged or {}).get(module, [])}
            for module in run.modules
        },
    }


def _is_final(newest: Checkpoint | None) -> bool:
    """Its module is finished, whatever has become of its heartbeat."""
    return newest is not None and newest.final


def _overall(run: Run, states: set[str], stop: str | None, launched: int | None) -> str:
    """A lost worker may be about to be started again, by a launcher or beside a live one; a failed one is not."""
    if states == {"finished"}:
        return "finished"
    if "failed" in states:
        return "failed"
    if states & set(LIVE) or ("lost" in states and launched is not None):
        return "running"
    if "lost" in states or blamed(run.spec.placement, stop):
        return "failed"
    waiting = "not started" in states and not states & {"stopped", "preempted"} and stop is None
    return "running" if waiting and filesystem.names(run.path / "jobs") else "stopped"


def _worker(
    number: int,
    placed: list[str],
    beats: Mapping[str, Beat],
    states: Mapping[str, str],
    newest: Mapping[str, Checkpoint | None],
) -> dict[str, Any]:
    beat, state = beats[placed[0]], states[placed[0]]
    facts = ("host", "pid", "job", "device", "steps_per_s", "left_s", "waiting_for", "trouble")
    told = {"worker": number, "modules": placed, "state": state} | {key: beat.get(key) for key in facts}
    ages = [age for module in placed if (age := _age_s(beat, newest[module])) is not None]
    waited_s = min(ages, default=None) if state == "waiting" else None  # a wait begins after a publish
    return {**told, "exit_code": beat.get("exit_code"), "waited_s": waited_s}


def _age_s(beat: Beat, newest: Checkpoint | None) -> float | None:
    """How old a module's newest version was when its worker said so: both times are by the worker's own clock."""
    at = number(beat.get("at"))
    return max(0.0, at - newest.published_at) if newest and at is not None else None


def _module(run: Run, module: str, newest: Mapping[str, Checkpoint | None], beat: Beat, state: str) -> dict[str, Any]:
    checkpoint = newest[module]
    at = checkpoint.published_at if checkpoint else None
    lineage = checkpoint.peers if checkpoint else {}
    return {
        "version": checkpoint.version if checkpoint else None,
        "epoch": _place(beat, checkpoint, "epoch", state),
        "epochs": run.spec.epochs,
        "step": _place(beat, checkpoint, "step", state),
        "steps": beat.get("steps"),
        "state": state,
        "worker": next(i for i, placed in enumerate(run.spec.placement) if module in placed),
        "peers": {name: _peer(used, newest.get(name)) for name, used in lineage.items()},
        "metrics": checkpoint.metrics if checkpoint else {},
        "losses": _losses(beat, module),
        "age_s": _age_s(beat, checkpoint) if state in LIVE else None,
        "published_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) if at is not None else None,
    }


def _place(beat: Beat, checkpoint: Checkpoint | None, what: str, state: str) -> int:
    """Where a module is: of one that was killed the last heartbeat may be older than what it has published."""
    said, published = number(beat.get(what)), int(getattr(checkpoint, what)) if checkpoint else 0
    if said is None:
        return published
    return int(said) if state in LIVE else max(int(said), published)


def _losses(beat: Beat, module: str) -> dict[str, Any]:
    """Of whatever a heartbeat holds."""
    said = beat.get("losses")
    its = said.get(module) if isinstance(said, dict) else None
    return {name: value for name, value in its.items() if number(value) is not None} if isinstance(its, dict) else {}


def _peer(used: Mapping[str, Any], newest: Checkpoint | None) -> dict[str, Any]:
    """Which version of a peer a module was trained against last, and how many versions that is behind by now."""
    version = used["versions"][0] if used["versions"] else None
    behind = newest.version - version if newest and version is not None else 0
    return {"version": version, "epoch": used["epoch"], "behind": behind, "ensemble": len(used["versions"])}
