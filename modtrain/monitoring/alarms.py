"""Alarms: what a person should look at in a run, each in words with what to do.

An alarm that is often wrong is soon not read any more: each has a threshold with its reason, and where a curve could
mean two things nothing is said. Deliberately not here: what is the case (`status.py`), how it came to it
(`history.py`), and showing it.
"""

from __future__ import annotations

import itertools
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from modtrain.errors import CONSEQUENCES
from modtrain.storage.json_lines import number
from modtrain.storage.liveness import LIVE
from modtrain.storage.stop_request import blamed

WAIT_S = 300.0
"""A wait that is worth a word where nobody knows how long the peer takes for an epoch: nodes differ in speed."""
WAIT_EPOCHS = 3
"""Epochs of the peer that a wait may take: within the bound on staleness the usual one is less than one."""
OLD_EPOCHS = 3
"""How many epochs a peer may be behind while it trains: a frozen opponent that old is one huge gradient step."""
QUIET_TIMES, QUIET_S = 5, 60.0
"""A version is overdue after so many times the usual interval; an evaluation in between may take two or three."""
INTERVALS = 10
"""The newest intervals between two versions that say what is usual."""
WINDOW = 30
"""Lines of a curve that make a judgement, 20 steps each: a GAN's losses are noisy over less."""
FLOOR = 0.05
"""Of the highest level that a loss has had: below, for a whole window, a discriminator has nothing left to learn."""
RISE = 2.0
"""How many times its lowest level the opponent's loss has grown meanwhile; it alone makes a low loss a bad one."""
FLAT = 1e-6
"""Relative spread of a window below which a loss does not change at all; noise of batches is far above."""
SHOT = 10.0
"""How many times the window before the newest lines must be, to be no spike of a few batches."""
NEWEST = 3
"""Lines that a spike does not fill, and that tell where a curve begins: 60 steps."""

DO_BY_EXIT_CODE = {
    2: "Correct it, then launch the run again.",
    4: "Nothing is lost: the other worker goes on. See that only one launch of this run is alive.",
    5: "A run keeps its settings: begin another one. What is published of this one is sound.",
    6: "Free some space or mend the folder (`modtrain doctor {path}`), then `modtrain launch {path}`.",
    7: "See what its peer does; `modtrain launch {path}` starts both again.",
}


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One thing to look at: what is the case, and what to do."""

    module: str | None
    level: Literal["bad", "warn"]
    says: str
    do: str


class Told(Protocol):
    """What of a `History` is asked."""

    def losses(self, module: str) -> list[float]:
        """Those of the first lines of a module's curve, then those of the newest."""

    def versions(self, module: str) -> list[dict[str, Any]]:
        """Lines of `published.jsonl`."""


def alarms(found: Mapping[str, Any], history: Told | None = None) -> list[Alarm]:
    """What a person should look at in a run: `found` as `status` says it, and its history where that is known.

    The worst first.
    """
    said = [*_workers(found, history), *_modules(found)]
    if history is not None:
        curves = {module: history.losses(module) for module in found["modules"]}
        said += [*_overdue(found, history), *_curves(found, curves)]
    if found["stop"] and found["state"] == "running":
        says = f"A stop was asked for ({found['stop']}): the workers publish and leave."
        said.append(Alarm(module=None, level="warn", says=says, do=f"`modtrain launch {_path(found)}` goes on later."))
    return sorted(said, key=lambda alarm: alarm.level != "bad")


def _workers(found: Mapping[str, Any], history: Told | None) -> Iterator[Alarm]:
    for worker in found["workers"]:
        name, state, path = " + ".join(worker["modules"]), worker["state"], _path(found)
        log = shlex.quote(str(Path(found["path"], "modules", worker["modules"][0], "worker.log")))
        first, trouble = worker["modules"][0], str(worker["trouble"] or "").rstrip(".")
        if state == "lost":
            job = f", job {worker['job']}" if worker["job"] else ""
            says = f"{name} died without a word ({worker['host']}, process {worker['pid']}{job})."
            again = "Its launcher starts it again" if found.get("launcher") else f"`modtrain launch {path}` goes on"
            do = f"{again} from its last checkpoint; {log} may say why."
            yield Alarm(module=first, level="bad", says=says, do=do)
        elif state == "failed":
            code = worker.get("exit_code")
            known = DO_BY_EXIT_CODE.get(code, "")
            do = known.format(path=path) if known else f"See {log}; `modtrain launch {path}` tries again."
            level: Literal["bad", "warn"] = "warn" if code in CONSEQUENCES else "bad"
            yield Alarm(module=first, level=level, says=f"{name} failed: {trouble or f'exit code {code}'}.", do=do)
        elif state in ("training", "waiting") and trouble:  # of one that starts it is what an earlier job said
            do = f"Free some space or mend the folder (`modtrain doctor {path}`); it goes on trying meanwhile."
            yield Alarm(module=first, level="bad", says=f"{name}: {trouble}.", do=do)
        if state == "waiting":
            yield from _waits(found, worker, history)
    blame = blamed([worker["modules"] for worker in found["workers"]], found["stop"])
    if blame and not any(worker["state"] == "failed" for worker in found["workers"]):
        says = f"{blame[0]} failed: {blame[1].rstrip('.')}."
        do = f"{shlex.quote(str(Path(found['path'], 'jobs')))} has what its job printed; launch the run again to go on."
        yield Alarm(module=blame[0].partition("+")[0], level="bad", says=says, do=do)


def _waits(found: Mapping[str, Any], worker: Mapping[str, Any], history: Told | None) -> Iterator[Alarm]:
    """For whom, where it is for long; a peer that will not come makes it bad at once."""
    peer, waited_s = str(worker["waiting_for"]), number(worker.get("waited_s"))
    state = found["modules"].get(peer, {}).get("state", "unknown")
    name = " + ".join(worker["modules"])
    if state in ("lost", "failed") or (state == "stopped" and not found["stop"]):  # any other one may still come
        says = f"{name} waits for {peer}, which is {state}."
        do = f"{'Its launcher' if found.get('launcher') else f'`modtrain launch {_path(found)}`'} starts {peer} again."
        yield Alarm(module=worker["modules"][0], level="bad", says=says, do=do)
        return
    usual_s = _epoch_s(history.versions(peer)) if history and peer in found["modules"] else None
    if waited_s is not None and waited_s > (WAIT_S if usual_s is None else max(60.0, WAIT_EPOCHS * usual_s)):
        says = f"{name} has waited {_time(waited_s)} for {peer}, which is {state}."
        do = f"See what {peer} does; a node of its own, or a larger max_staleness in a new run, makes waits shorter."
        yield Alarm(module=worker["modules"][0], level="warn", says=says, do=do)


def _modules(found: Mapping[str, Any]) -> Iterator[Alarm]:
    for name, module in found["modules"].items():
        for version in module.get("damaged", [])[:1]:
            sound = module["version"]
            then = "nobody can read any other" if sound is None else f"readers go on with version {sound}"
            says = f"Version {version} of {name} is damaged; {then}."
            anew = "; its worker publishes the next one anew" if module["state"] in LIVE else ""
            do = f"Check the storage with `modtrain doctor {_path(found)}`{anew}."
            yield Alarm(module=name, level="bad", says=says, do=do)
        own = number(module["epoch"])
        for peer, used in module["peers"].items():
            its, state = number(used.get("epoch")), found["modules"].get(peer, {}).get("state")
            if module["state"] in LIVE and state in LIVE and None not in (own, its) and own - its >= OLD_EPOCHS:  # type: ignore[operator]
                says = f"{name} is at epoch {own:g} and trains against {peer} of epoch {its:g}."
                do = f"Give {peer} a faster node, or set max_staleness in a new run, so that {name} waits for it."
                yield Alarm(module=name, level="warn", says=says, do=do)


def _overdue(found: Mapping[str, Any], history: Told) -> Iterator[Alarm]:
    """A module that trains, and has published nothing for much longer than it used to take."""
    for name, module in found["modules"].items():
        worker, age_s = found["workers"][module["worker"]], number(module.get("age_s"))
        usual_s = _interval_s(history.versions(name))
        if module["state"] != "training" or worker["trouble"] or age_s is None or usual_s is None:
            continue
        if age_s > max(QUIET_S, QUIET_TIMES * usual_s):
            says = f"{name} has published nothing for {_time(age_s)}; it used to take {_time(usual_s)}."
            do = f"See whether its steps still grow (`modtrain status {_path(found)} --watch`), and its worker.log."
            yield Alarm(module=name, level="warn", says=says, do=do)


def _curves(found: Mapping[str, Any], curves: Mapping[str, Sequence[float]]) -> Iterator[Alarm]:
    for name, losses in curves.items():
        if len(losses) < WINDOW + NEWEST:
            continue
        window = losses[-WINDOW:]
        risen = next((peer for peer, its in curves.items() if peer != name and _has_risen(its)), None)
        if max(window) - min(window) <= FLAT * abs(statistics.median(window)):
            says = f"The loss of {name} has not changed for {WINDOW} lines of its curve; it is {window[-1]:.3g}."
            do = "No gradient reaches it: look at its loss and its schedule in the recipe, and at its peers' losses."
            yield Alarm(module=name, level="bad", says=says, do=do)
        elif risen and _is_at_floor(losses):
            says = f"{name} has won: its loss is at {statistics.median(window):.2g}, while that of {risen} rises."
            do = (
                f"{risen} learns little from an opponent that is always right: lower the learning rate of {name}, give "
                "it fewer updates, or regularise it (spectral normalisation, a gradient penalty), in a new run."
            )
            yield Alarm(module=name, level="warn", says=says, do=do)
        elif _shoots_up(losses):
            says = f"The loss of {name} shoots up: {window[-1]:.3g}, after {statistics.median(losses[:-NEWEST]):.3g}."
            do = "Lower its learning rate, or clip its gradients, in a new run; older checkpoints are still sound."
            yield Alarm(module=name, level="warn", says=says, do=do)


def _is_at_floor(losses: Sequence[float]) -> bool:
    """Through the whole window; of a loss that may be negative nobody knows the floor."""
    highest = max(_levels(losses), default=0.0)
    return min(losses) >= 0 and max(losses[-WINDOW:]) <= FLOOR * highest


def _has_risen(losses: Sequence[float]) -> bool:
    """From its lowest level so far, and it is about as high as it ever was since."""
    if min(losses, default=-1.0) < 0:
        return False
    levels = [statistics.median(losses[:NEWEST]), *_levels(losses)]  # it may have lost within its first window
    lowest = min(range(len(levels)), key=lambda place: levels[place])
    now = levels[-1]
    return lowest < len(levels) - 1 and now >= RISE * levels[lowest] and now >= 0.8 * max(levels[lowest:])


def _levels(losses: Sequence[float]) -> list[float]:
    """The medians of windows, the last one at the end."""
    ends = range(len(losses), WINDOW - 1, -WINDOW)
    return [statistics.median(losses[end - WINDOW : end]) for end in reversed(ends)]


def _shoots_up(losses: Sequence[float]) -> bool:
    """Above all that was, and far above the window before: also a loss that had become small is then bad again."""
    before, newest = losses[:-NEWEST], losses[-NEWEST:]
    if min(losses) < 0:
        return False
    return min(newest) > SHOT * statistics.median(before[-WINDOW:]) and min(newest) > max(before[:WINDOW])


def _interval_s(versions: Sequence[Mapping[str, Any]]) -> float | None:
    """The usual one between two versions, by one writer's clock; None where there are too few."""
    pairs = list(itertools.pairwise(versions))[-INTERVALS:]
    gaps = [b["published_at"] - a["published_at"] for a, b in pairs if a.get("writer") == b.get("writer")]
    gaps = [gap for gap in gaps if gap > 0]
    return statistics.median(gaps) if len(gaps) >= 3 else None


def _epoch_s(versions: Sequence[Mapping[str, Any]]) -> float | None:
    return _interval_s([version for version in versions if version.get("full")])


def _path(found: Mapping[str, Any]) -> str:
    return shlex.quote(str(found["path"]))


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
