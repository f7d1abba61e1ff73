"""Status of a run as plain values: what `modtrain status --json` prints and what every view shows."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from modtrain.scheduling.restarts import wants_restart
from modtrain.storage import early_stop
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.early_stop import Outcome
from modtrain.storage.json_lines import Line, integer
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.run_snapshot import ModuleSnapshot, RunSnapshot
from modtrain.storage.run_state import LIVE, RunState, failed_worker, run_state, worker_states

Status = dict[str, Any]


def build_status(snapshot: RunSnapshot) -> Status:
    """The status of a snapshot.

    `progress` is in [0, 1]; `left_s` is the estimated time left in seconds, None where it is not known.
    `interruption` says why a run stands still, and how it is resumed; `continuation`, how a finished one may go on.
    """
    run, states = snapshot.run, worker_states(snapshot)
    workers = [_worker(snapshot, number, state) for number, state in enumerate(states)]
    modules = {module: _module(snapshot, module, states[run.worker_of(module)]) for module in run.modules}
    state = run_state(snapshot, states)
    # A module may be finished long before the run is.
    unfinished = [module["epoch"] for module in modules.values() if module["state"] != "finished"]
    epoch = min(unfinished, default=max(module["epoch"] for module in modules.values()))
    return {
        "run": run.name,
        "path": str(run.path),
        "recipe": run.spec.recipe,
        "state": state,
        "progress": 1.0 if state == "finished" else min(module["progress"] for module in modules.values()),
        "epoch": epoch,
        "epochs": run.spec.epochs,
        "steps": _steps(snapshot, modules),
        "stage": _stage(run.spec, epoch),
        "left_s": _left_s(workers, states) if run.spec.is_last_stage(epoch) else None,
        "evaluation_failure": vars(snapshot.evaluation_failure) if snapshot.evaluation_failure else None,
        "early_stop": early_stop_status(run),
        "stop": str(snapshot.stop) if snapshot.stop else None,
        "stop_kind": snapshot.stop.kind if snapshot.stop else None,
        "stop_sender": snapshot.stop.sender if snapshot.stop else None,
        "interruption": _interruption(snapshot, state),
        "continuation": _continuation(run) if state == "finished" else None,
        "launcher": snapshot.launcher,
        "workers": workers,
        "modules": modules,
        "fixed": {name: each.model_dump() for name, each in run.spec.fixed.items()},
    }


def early_stop_status(run: Run) -> dict[str, Any] | None:
    """Which epoch is best and why the run ended early if it did; None where it has no early stopping."""
    rule = run.spec.early_stop
    try:
        outcome = run.early_stop_outcome()
    except OSError:
        outcome = Outcome()
    if rule is None or outcome is None:
        return None
    return {"says": early_stop.describe(rule, outcome), **asdict(outcome)}


def queue_messages(status: Status) -> list[str]:
    """One sentence for each worker whose job waits in a scheduler's queue, with the scheduler's reason."""
    return [
        f"{' + '.join(worker['modules'])} is queued as job {worker['job']}: {worker['why'] or 'no reason given'}."
        for worker in status["workers"]
        if worker["state"] == "queued" and worker.get("job_state")
    ]


def count_restarts(events: Sequence[Line]) -> int:
    """How often a worker began again after it was killed or preempted, or storage failed, by its `workers.jsonl`.

    After these ends a launcher or a job script starts it again. A worker that was stopped, failed or finished was
    resumed by a user, which is not counted.
    """
    restarts, has_begun, exit_code = 0, False, None
    for event in events:
        if event["what"] == "began":
            restarts += has_begun and wants_restart(exit_code)
            has_begun, exit_code = True, None
        elif event["what"] == "left":
            exit_code = integer(event.get("exit_code"))
    return restarts


def _interruption(snapshot: RunSnapshot, state: RunState) -> str | None:
    """Why a run that has begun stands still, and the command that resumes it; None of any other run."""
    if state not in ("stopped", "cancelled", "preempted"):
        return None
    reason = str(snapshot.stop) if snapshot.stop else state
    about = state if reason == state else f"{state}: {reason}"
    return f"{about}; `modtrain launch {shlex.quote(str(snapshot.run.path))}` resumes it."


def _continuation(run: Run) -> str | None:
    """The stages with which a run may go on that was to end after one of them, and the command."""
    later, outcome = [stage.name for stage in run.spec.later_stages], early_stop_status(run)
    if not later or (outcome and outcome["stopped_at"] is not None):
        return None
    command = f"modtrain launch {shlex.quote(str(run.path))} --until-stage {shlex.quote(later[-1])}"
    return f"ended after its stage {run.spec.stages[-1].name}; `{command}` goes on with {', '.join(later)}."


def _worker(snapshot: RunSnapshot, number: int, state: RunState) -> dict[str, Any]:
    modules = snapshot.run.spec.placement[number]
    report, job = snapshot.modules[modules[0]].report, snapshot.jobs.get(number)
    blame = snapshot.stop.reason if snapshot.stop and failed_worker(snapshot) == number else None
    ages = [age for module in modules if (age := _age_s(snapshot.modules[module])) is not None]
    epoch, step = max(_position(snapshot.modules[module]) for module in modules)
    values: dict[str, Any] = {
        "worker": number,
        "modules": modules,
        "state": state,
        "epoch": epoch,
        "step": step,
        "stage": _stage(snapshot.run.spec, epoch),
        "host": report.process.host,
        "pid": report.process.pid,
        "job": job.ids[-1] if job and job.ids and state == "queued" else report.job,
        **{
            name: getattr(report, name)
            for name in ("device", "gpus", "steps_per_s", "left_s", "waiting_for", "evaluating", "exit_code")
        },
        "trouble": report.trouble or blame,
        "waited_s": min(ages, default=None) if state == "waiting" else None,  # a wait begins after a publish
    }
    if state == "preempted" and (refusal := snapshot.refusals.get(number)):
        values["refusal"] = refusal
    if state == "lost" and report.run not in (None, str(snapshot.run.path)):
        values["trained_in"] = report.run
    return values if job is None else {**values, "job_state": job.phase, "why": job.reason}


def _module(snapshot: RunSnapshot, module: str, of_worker: RunState) -> dict[str, Any]:
    own, spec = snapshot.modules[module], snapshot.run.spec
    report, newest = own.report, own.newest
    is_last = spec.is_last(newest)
    epoch, step = (newest.epoch, newest.step) if newest and is_last else _position(own)
    epochs, rests = spec.end_epoch([module]), module not in spec.stage_at(epoch).trains
    state: RunState = "finished" if is_last else "resting" if rests and of_worker == "running" else of_worker
    if is_last and newest and not newest.metrics:  # no step has trained it
        state = "resting"
    done = step / report.steps if report.steps else epoch / epochs
    at = newest.published_at if newest else None
    return {
        "version": newest.version if newest else None,
        "epoch": epoch,
        "epochs": epochs,
        "step": step,
        "steps": step if is_last else report.steps,
        "progress": 1.0 if state == "finished" else min(1.0, max(0.0, done)),
        "state": state,
        "rests": rests or spec.trained_epochs(module, epoch) < epoch,  # or it has completed no epoch since it rested
        "worker": snapshot.run.worker_of(module),
        "peers": _peers(snapshot, newest),
        "metrics": newest.metrics if newest else {},
        "losses": dict(report.losses.get(module, {})),
        "age_s": _age_s(own) if state in LIVE and not is_last else None,
        "published_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) if at is not None else None,
        "damaged": list(own.damaged),
    }


def _steps(snapshot: RunSnapshot, modules: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Steps of the whole run: a worker whose modules are finished earlier reports fewer. None where none is known."""
    epochs = snapshot.run.spec.epochs
    return max((each["steps"] for each in modules.values() if each["epochs"] == epochs and each["steps"]), default=None)


def _stage(spec: RunSpec, epoch: int) -> str | None:
    return spec.stage_at(epoch).name if spec.stages else None


def _position(module: ModuleSnapshot) -> tuple[int, int]:
    """Epochs and steps completed: a report may be older than what was published, by a heartbeat or by a whole job."""
    report, newest = module.report, module.newest
    published = (newest.epoch, newest.step) if newest else (0, 0)
    if report.epoch is None or report.step is None:
        return published
    return max(published, (report.epoch, report.step))


def _peers(snapshot: RunSnapshot, newest: Checkpoint | None) -> dict[str, Any]:
    """By peer the version that the newest version was trained against, and how far it is behind by now.

    In versions, and in steps of the peer (None where the version does not record its own). `behind_epochs` is by how
    many epochs it was behind when the version was trained, those in which the peer rests left out.
    """
    peers = {}
    for name, used in newest.peers.items() if newest else ():
        version = next(iter(used["versions"]), None)
        current = snapshot.modules[name].newest if name in snapshot.modules else None
        # A peer is read before the module, which may have used a newer version of it meanwhile.
        behind = max(0, current.version - version) if current and version is not None else 0
        step = integer(used.get("step"))
        behind_steps = max(0, current.step - step) if current and step is not None else None
        own = {"version": version, "epoch": used["epoch"], "behind": behind, "behind_steps": behind_steps}
        trained = snapshot.run.spec.trained_epochs(name, newest.epoch - 1) if newest else 0
        peers[name] = {**own, "behind_epochs": trained + 1 - used["epoch"], "ensemble": len(used["versions"])}
    return peers


def _age_s(module: ModuleSnapshot) -> float | None:
    """Age of a module's newest version at its worker's last report: both times are by the worker's own clock."""
    if module.newest is None or module.report.at is None:
        return None
    return max(0.0, module.report.at - module.newest.published_at)


def _left_s(workers: Sequence[Mapping[str, Any]], states: Sequence[RunState]) -> float | None:
    """The longest time left of a live worker; None where one has failed, since the others wait for it."""
    known = [worker["left_s"] for worker in workers if worker["state"] in LIVE and worker["left_s"] is not None]
    return None if {"lost", "failed"} & set(states) else max(known, default=None)
