"""Alarms: what a user should look at in a run, each with what to do.

A false alarm teaches users to ignore alarms: each has a threshold with its reason, and an ambiguous curve raises none.
"""

from __future__ import annotations

import itertools
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from modtrain.errors import CONSEQUENCES, counted
from modtrain.monitoring.adversarial import NEWEST, WINDOW, beaten_opponent, collapse, has_won
from modtrain.monitoring.status import Status
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.history import History, RecentHistory
from modtrain.storage.layout import JOBS, MODULES, WORKER_LOG
from modtrain.storage.run_state import LIVE

WAIT_S = 300.0
"""A wait that is reported where it is not known how long the peer takes for an epoch: nodes differ in speed."""
WAIT_EPOCHS = 3
"""Epochs of the peer that a wait may take: within the bound on staleness the usual one is less than one."""
OLD_EPOCHS = 3
"""How many epochs a peer may be behind while it trains: a frozen opponent that old is one huge gradient step."""
QUIET_TIMES, QUIET_S = 5, 60.0
"""A version is overdue after so many times the usual interval, in which an evaluation may just have ended."""
INTERVALS = 10
"""The newest intervals between two versions that say what is usual."""
FLAT = 1e-6
"""Relative spread of a window below which a loss does not change at all; noise of batches is far above."""
SHOT = 10.0
"""How many times the window before the newest lines must be, to be no spike of a few batches."""

DO_BY_EXIT_CODE = {
    None: "{jobs} has the output of its job; `modtrain launch {path}` resumes the run.",  # it never reported
    2: "Correct it, then run `modtrain launch {path}`.",
    4: "Nothing is lost: the other worker continues. Make sure that only one launch of this run is alive.",
    5: "The settings of a run do not change: start a new run. The published checkpoints of this one are intact.",
    6: "Free some space or repair the folder (`modtrain doctor {path}`), then run `modtrain launch {path}`.",
    7: "See what its peer does; `modtrain launch {path}` restarts both.",
}
DO_WON = (
    "{loser} learns little from an opponent that is always right: lower the learning rate of {name}, give it fewer "
    "updates, or regularise it (spectral normalisation, a gradient penalty), in a new run."
)
DO_BY_REFUSAL = (
    "Where a job may not submit jobs, `--chain 10` submits them in advance, or the administrator of a PBS server sets "
    "`flatuid`."
)


@dataclass(frozen=True)
class Alarm:
    """One thing to look at: what is the case, and what to do."""

    module: str | None
    level: Literal["bad", "warn"]
    says: str
    do: str


def find_alarms(status: Status, history: History | RecentHistory | None = None) -> list[Alarm]:
    """The alarms of a run, the worst first; `history` adds those that need its curves and intervals."""
    alarms = [*_workers(status, history), *_modules(status)]
    if history is not None:
        curves = {name: history.losses(name) for name, module in status["modules"].items() if not module["rests"]}
        of_curves = list(_curves(curves))
        others = curves.keys() - {alarm.module for alarm in of_curves}
        alarms += [*_overdue(status, history), *of_curves, *_adversarial(status, history, others)]
    if status["stop"] and status["state"] in LIVE:
        says = f"A stop was requested ({status['stop']}): the workers publish and exit."
        alarms.append(Alarm(None, "warn", says, f"`modtrain launch {_path(status)}` resumes it."))
    if failure := status.get("evaluation_failure"):
        says = f"The evaluation failed: {failure['says'].rstrip('.')}."
        do = f"Correct the recipe, then run `modtrain evaluate {_path(status)} --trust-recipe`."
        alarms.append(Alarm(None, "bad", says, do))
    return in_order(alarms)


def in_order(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Bad ones first."""
    return sorted(alarms, key=lambda alarm: alarm.level != "bad")


def _workers(status: Status, history: History | RecentHistory | None) -> Iterator[Alarm]:
    path = _path(status)
    for worker in status["workers"]:
        name, module = " + ".join(worker["modules"]), worker["modules"][0]
        log = shlex.quote(str(Path(status["path"], MODULES, module, WORKER_LOG)))
        trouble = str(worker["trouble"] or "").rstrip(".")
        jobs = shlex.quote(str(Path(status["path"], JOBS)))
        if worker["state"] == "lost" and worker["pid"] is None:
            is_known = worker.get("job_state") != "unknown"
            why = worker.get("why") or ("its job has ended" if is_known else "the scheduler does not know its job")
            do = f"`modtrain launch {path}` submits it again; {jobs} has what its job printed."
            yield Alarm(module, "bad", f"{name} has never begun: {str(why).rstrip('.')}.", do)
        elif worker["state"] == "lost":
            job = f", job {worker['job']}" if worker["job"] else ""
            says = f"{name} died without a report ({worker['host']}, process {worker['pid']}{job})"
            hint = f"{log} may say why"
            if place := worker.get("trained_in"):  # it cannot be known whether it was killed before that
                says += f": it trained in {place}, and a run that is moved ends its workers"
                hint = f"{jobs} has what its job printed"
            again = "Its launcher restarts it" if status["launcher"] else f"`modtrain launch {path}` resumes it"
            yield Alarm(module, "bad", f"{says}.", f"{again} from its last checkpoint; {hint}.")
        elif worker["state"] == "failed":
            code = worker["exit_code"]
            do = DO_BY_EXIT_CODE.get(code, "See {log}; `modtrain launch {path}` tries again.")
            says = f"{name} failed: {trouble or f'exit code {code}'}."
            do = do.format(path=path, log=log, jobs=jobs)
            yield Alarm(module, "warn" if code in CONSEQUENCES else "bad", says, do)
        elif worker["state"] in ("running", "waiting", "resting") and trouble:  # else an earlier job reported it
            do = f"Free some space or repair the folder (`modtrain doctor {path}`); the worker keeps trying."
            yield Alarm(module, "bad", f"{name}: {trouble}.", do)
        elif words := worker.get("refusal"):
            says = f"{name} has left to be continued, and the scheduler refused the next job ({words.rstrip('.')})."
            do = f"`modtrain launch {path}` continues it. {DO_BY_REFUSAL}"
            yield Alarm(module, "bad", says, do)
        if worker["state"] in LIVE and (gpus := worker.get("gpus")) and worker.get("device") == "cpu":
            says = f"{name} was given {counted(gpus, 'GPU')} and sees none: it trains on the CPU."
            do = f"Check the directives in {jobs}, and that the PyTorch of the nodes supports their GPUs."
            yield Alarm(module, "bad", says, do)
        if worker["state"] == "waiting":
            yield from _waits(status, worker, history)


def _waits(status: Status, worker: Mapping[str, Any], history: History | RecentHistory | None) -> Iterator[Alarm]:
    """A wait that is long, or for a peer that will not publish."""
    peer, waited_s, name = str(worker["waiting_for"]), worker["waited_s"], " + ".join(worker["modules"])
    state = status["modules"].get(peer, {}).get("state", "unknown")
    rests = [status["modules"].get(name, {}).get("rests", False) for name in (peer, worker["modules"][0])]
    if state in ("lost", "failed") or (state == "stopped" and not status["stop"]):  # in any other state it may publish
        again = "Its launcher restarts" if status["launcher"] else f"`modtrain launch {_path(status)}` restarts"
        says = f"{name} waits for {peer}, which is {state}."
        yield Alarm(worker["modules"][0], "bad", says, f"{again} {peer}.")
        return
    versions = history.versions(peer) if history and peer in status["modules"] else ()
    usual_s = _interval_s([version for version in versions if version.full])
    if any(rests):  # it is as long as an earlier stage of the run
        return
    if waited_s is not None and waited_s > (WAIT_S if usual_s is None else max(60.0, WAIT_EPOCHS * usual_s)):
        says = f"{name} has waited {_time(waited_s)} for {peer}, which is {state}."
        do = f"See what {peer} does; a node of its own, or a larger max_staleness in a new run, makes waits shorter."
        yield Alarm(worker["modules"][0], "warn", says, do)


def _modules(status: Status) -> Iterator[Alarm]:
    for name, module in status["modules"].items():
        if module["damaged"]:
            version = module["version"]
            then = "no other version can be read" if version is None else f"readers use version {version}"
            anew = "; its worker publishes the next version" if module["state"] in LIVE else ""
            says = f"Version {module['damaged'][0]} of {name} is damaged; {then}."
            yield Alarm(name, "bad", says, f"Check the storage with `modtrain doctor {_path(status)}`{anew}.")
        for peer, used in module["peers"].items():
            state, behind = status["modules"].get(peer, {}).get("state"), used["behind_epochs"]
            is_over = module["state"] not in LIVE
            is_last = state in ("finished", "resting") and used["epoch"] == status["modules"][peer]["epoch"]
            if (is_over or state in LIVE) and behind >= OLD_EPOCHS and not is_last:
                verb = "trained last" if is_over else "trains"  # what was trained against old peers stays said
                says = f"{name} is at epoch {module['epoch']} and {verb} against {peer} of epoch {used['epoch']:g}."
                do = f"Give {peer} a faster node, or set max_staleness in a new run, so that {name} waits for it."
                yield Alarm(name, "warn", says, do)


def _overdue(status: Status, history: History | RecentHistory) -> Iterator[Alarm]:
    """A module that trains, and has published nothing for much longer than it used to take."""
    for name, module in status["modules"].items():
        worker, age_s = status["workers"][module["worker"]], module["age_s"]
        is_busy = module["rests"] or worker["trouble"] or worker.get("evaluating")
        if module["state"] != "running" or is_busy or age_s is None:
            continue
        usual_s = _interval_s(history.versions(name))
        if usual_s is not None and age_s > max(QUIET_S, QUIET_TIMES * usual_s):
            says = f"{name} has published nothing for {_time(age_s)}; it used to take {_time(usual_s)}."
            do = f"See whether its steps still grow (`modtrain status {_path(status)} --watch`), and its worker.log."
            yield Alarm(name, "warn", says, do)


def _curves(curves: Mapping[str, Sequence[float]]) -> Iterator[Alarm]:
    for name, losses in curves.items():
        if len(losses) < WINDOW + NEWEST:
            continue
        window = losses[-WINDOW:]
        if max(window) - min(window) <= FLAT * abs(statistics.median(window)):
            says = f"The loss of {name} has not changed for {WINDOW} lines of its curve; it is {window[-1]:.3g}."
            do = "No gradient reaches it: check its loss and its schedule in the recipe, and its peers' losses."
            yield Alarm(name, "bad", says, do)
        elif loser := beaten_opponent(name, curves):
            says = f"{name} has won: its loss is at {statistics.median(window):.2g}, while that of {loser} rises."
            yield Alarm(name, "warn", says, DO_WON.format(name=name, loser=loser))
        elif _shoots_up(losses):
            says = f"The loss of {name} shoots up: {window[-1]:.3g}, after {statistics.median(losses[:-NEWEST]):.3g}."
            do = "Lower its learning rate, or set `clip_norm`, in a new run; older checkpoints are intact."
            yield Alarm(name, "warn", says, do)


def _adversarial(status: Status, history: History | RecentHistory, modules: Iterable[str]) -> Iterator[Alarm]:
    for name in sorted(modules):
        scores = history.scores(name)
        if has_won(scores):
            says = (
                f"{name} has won: it has told every real sample from every fake one for {WINDOW} lines of its curve, "
                f"by {scores[-1].gap:.2g} now, and ever more clearly."
            )
            yield Alarm(name, "warn", says, DO_WON.format(name=name, loser="Its opponent"))
    if collapsed := collapse(history.evaluations(), is_finished=status["state"] == "finished"):
        do = (
            f"Look at the samples of earlier versions: `modtrain sample {_path(status)} --best`. In a new run exchange "
            "more often, regularise the discriminator, or lower the learning rates."
        )
        yield Alarm(None, "bad", f"The generator has collapsed: {collapsed}.", do)


def _shoots_up(losses: Sequence[float]) -> bool:
    """Whether the newest lines are above all before, and far above the window before them."""
    before, newest = losses[:-NEWEST], losses[-NEWEST:]
    if min(losses) < 0:
        return False
    return min(newest) > SHOT * statistics.median(before[-WINDOW:]) and min(newest) > max(before[:WINDOW])


def _interval_s(versions: Sequence[Checkpoint]) -> float | None:
    """The usual interval between two versions, by one writer's clock; None where there are too few."""
    pairs = list(itertools.pairwise(versions))[-INTERVALS:]
    gaps = [
        b.published_at - a.published_at for a, b in pairs if a.writer == b.writer and b.published_at > a.published_at
    ]
    return statistics.median(gaps) if len(gaps) >= 3 else None


def _path(status: Status) -> str:
    return shlex.quote(str(status["path"]))


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
