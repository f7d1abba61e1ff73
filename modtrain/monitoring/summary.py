"""Glance: what one line about a run or a sweep says, kept current by reading only what changed.

A run that is over costs a stat of each file that could tell of a new life. A live one's heartbeats are opened anew each
time: a network file system may go on showing an old `stat` for a minute. Links are not followed. Deliberately not here:
which runs there are (`catalog.py`), and everything that a run's history tells (`history.py`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from modtrain.monitoring.alarms import alarms
from modtrain.monitoring.status import told
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.json_lines import number
from modtrain.storage.liveness import LIVE, OVER, PATIENCE_S, Pulse
from modtrain.storage.manifest import STOP_FILE, said_in_stop
from modtrain.storage.published_log import newest_line
from modtrain.storage.recent import Recent
from modtrain.storage.run import Run
from modtrain.storage.whole import newest_whole
from modtrain.sweeps.sweep import Sweep
from modtrain.sweeps.trial import ENDED, PRUNED, Judged, is_complete, result_of, value_of

Signature = tuple[int, int, int, int]
"""Tells whether a file is the one that was read: of what kind, when changed, how long, which inode."""
ABSENT: Signature = (0, 0, 0, 0)

RECENT_S = 10.0
"""Seconds between two looks at the curves of a run."""
MOST_ALARMS = 5
"""Of its trials that a sweep repeats."""

Row = dict[str, Any]


class Glance:
    """One run as a line of a list."""

    def __init__(self, run: Run, path: str, *, patience_s: float = PATIENCE_S) -> None:
        """`path` is where it lies below the root, for whoever shows it. Nothing is read yet."""
        self.run, self.path = run, path
        self.pulse = Pulse(patience_s=patience_s)
        self.row: dict[str, Any] = {}
        """As of the last look; the ages of the checkpoints are to be added by `with_ages`."""
        self.newest: dict[str, Checkpoint | None] = dict.fromkeys(run.modules)
        self._damaged: dict[str, list[int]] = {}
        self._unchecked: set[str] = set()
        self.judged = Judged(run.path / "evaluation" / "metrics.jsonl")
        self._recent: Recent | None = None
        self._recent_at = float("-inf")
        self._seen: dict[str, Signature] = {}
        self._stop: str | None = None
        self._states: dict[str, str] = {}
        self._ranking: tuple[str | None, bool] = (None, True)

    def look(
        self, *, stop_is_there: bool, ranking: tuple[str | None, bool] = (None, True), closely: bool = True
    ) -> bool:
        """Bring the row up to date; True where it says something else now.

        `ranking` is the metric that a sweep ranks this trial by, and whether more of it is better. Looked
        at `closely`, the newest versions are checked, and the ends of a live run's curves are read now and then.
        """
        heard = [self._hear(module) for module in self.run.modules]
        states = self.pulse.states()
        judged = self._is_plain("evaluation", "metrics.jsonl") and self.judged.look()
        if stop_is_there or self._stop is not None:
            heard.append(self._hear_stop(stop_is_there))
        same = self.row and states == self._states and ranking == self._ranking and not judged and not any(heard)
        if same and not set(states.values()) & set(LIVE) and not (closely and self._unchecked):
            return False
        for module in self.run.modules:
            self._read_newest(module)
        if closely:
            self._check()
        self._read_recent(closely, live=bool(set(states.values()) & set(LIVE)))
        self._states, self._ranking = states, ranking
        before, self.row = self.row, self._row(states)
        return before != self.row

    def with_ages(self) -> dict[str, Any]:
        """The row with how old each module's newest version is now."""
        modules = [{**told, "age_s": self._age_s(told["name"])} for told in self.row["modules"]]
        return {**self.row, "modules": modules}

    def result(self, metric: str) -> float | None:
        """The newest value of a metric, as a sweep ranks its trials: of the evaluation, or `module.scalar`."""
        nobody = not set(self._states.values()) & set(LIVE)
        over = set(self._states.values()) == {"finished"} or (nobody and is_complete(self.newest.values()))
        return result_of(self.run, metric, self.judged.newest, self.judged.epochs, self.newest.get, over=over)

    def _hear(self, module: str) -> bool:
        """Whether the heartbeat is another one."""
        key = f"modules/{module}/heartbeat.json"
        path = f"{self.run.path}/{key}"
        found = signature(path)
        known = self._states.get(module) in (*OVER, "lost", "not started")
        if known and found == self._seen.get(key):
            return False
        self._seen[key] = found
        before = self.pulse.beat(module)
        self.pulse.hear(module, self.run.heartbeat(module) if self._is_plain(*key.split("/")) else {})
        return self.pulse.beat(module) != before

    def _read_newest(self, module: str) -> None:
        key = f"modules/{module}/published.jsonl"
        found = signature(f"{self.run.path}/{key}")
        if found == self._seen.get(key, ABSENT) or not self._is_plain(*key.split("/")):
            return
        self._seen[key] = found
        self.newest[module] = newest_line(self.run.path / key, module) or self.newest[module]
        self._unchecked.add(module)

    def _check(self) -> None:
        """Whether the newest versions are whole; where one is not, readers go on with the newest that is."""
        for module in sorted(self._unchecked):
            with contextlib.suppress(OSError):  # storage that does not answer is asked again at the next look
                whole, self._damaged[module] = newest_whole(self.run.store(module))
                self.newest[module] = whole if self._damaged[module] else self.newest[module]
                self._unchecked.discard(module)

    def _read_recent(self, may_read: bool, *, live: bool) -> None:
        """The curves of a run that is over have no news; what is in memory of them goes."""
        if not live:
            self._recent = None
        elif may_read and time.monotonic() - self._recent_at >= RECENT_S:
            files = [("modules", m, file) for m in self.run.modules for file in ("metrics.jsonl", "published.jsonl")]
            self._recent_at = time.monotonic()
            if all(self._is_plain(*file) or not os.path.lexists(self.run.path.joinpath(*file)) for file in files):
                self._recent = self._recent or Recent(self.run)
                self._recent.look()

    def _is_plain(self, *parts: str) -> bool:
        return is_plain(str(self.run.path), parts)

    def _hear_stop(self, is_there: bool) -> bool:
        """Whether somebody has asked for a stop, has another reason now, or has taken it back."""
        before, found = self._stop, signature(f"{self.run.path}/{STOP_FILE}") if is_there else ABSENT
        if found == self._seen.get(STOP_FILE):
            return False
        self._seen[STOP_FILE], self._stop = found, None
        with contextlib.suppress(OSError):
            self._stop = said_in_stop(self.run.path) if found != ABSENT else None
        return self._stop != before

    def _row(self, states: Mapping[str, str]) -> dict[str, Any]:
        beats = {module: self.pulse.beat(module) for module in self.run.modules}
        found = told(self.run, beats, states, self.newest, self._stop, self._damaged)
        state = self._state(found)
        live = [w for w in found["workers"] if w["state"] in LIVE]
        left = [value for w in live if (value := number(w["left_s"])) is not None]
        if set(states.values()) & {"lost", "failed"}:
            left = []  # the others wait for it, for nobody knows how long
        modules = [
            {"name": name, "state": m["state"], "version": m["version"], "epoch": m["epoch"], "step": m["step"]}
            for name, m in found["modules"].items()
        ]
        return {
            "kind": "run",
            "path": self.path,
            "name": self.run.name,
            "recipe": self.run.spec.recipe,
            "state": state,
            "progress": 1.0 if state == "finished" else min(map(_progress, found["modules"].values())),
            "epoch": min(int(number(m["epoch"]) or 0) for m in found["modules"].values()),
            "epochs": self.run.spec.epochs,
            "left_s": max(left, default=None),
            "modules": modules,
            "metric": self.best(),
            "alarms": [vars(alarm) for alarm in alarms(found, self._recent)],
            "created_at": self.run.spec.created_at,
            "problem": None,
        }

    def _state(self, found: Mapping[str, Any]) -> str:
        """As a run; as a trial it may have been pruned, or have begun with nobody working at it yet."""
        stop = found["stop"] or ""
        if stop.startswith(PRUNED) and found["state"] not in ("finished", "running"):
            return "pruned"
        if not stop and {m["state"] for m in found["modules"].values()} == {"not started"}:
            return "queued" if found["state"] == "running" else "waiting"
        return str(found["state"])

    def best(self) -> dict[str, Any] | None:
        """The best value of the run's metric over all evaluations: the highest one, the lowest where less is better.

        Metric and direction are the sweep's for a trial, else the first metric of the newest evaluation, in the order
        in which the recipe lists them, and what the recipe says. A scalar of training (`module.scalar`) has only its
        newest value.
        """
        name, maximize = self._ranking
        if name is None:
            name = next(iter(self.judged.newest), None)
            maximize = name not in self.run.spec.lower_is_better
        if name is None:
            return None
        lowest, highest = self.judged.range.get(name, (None, None))
        value = highest if maximize else lowest
        value = value_of(self.run, name, self.judged.newest, self.newest.get) if value is None else value
        return None if value is None else {"name": name, "value": value}

    def _age_s(self, module: str) -> float | None:
        """By the worker's own clock, and by ours since we saw its heartbeat; by the wall where nobody works any more.

        So no two machines' clocks are compared where it matters, which is while the worker lives.
        """
        checkpoint, beat = self.newest[module], self.pulse.beat(module)
        if checkpoint is None:
            return None
        at, published_at = number(beat.get("at")), number(checkpoint.published_at)
        if published_at is None:
            return None
        if at is not None and self._states.get(module) in LIVE:
            return max(0.0, at - published_at) + (self.pulse.silent_s(module) or 0.0)
        return max(0.0, time.time() - published_at)


def signature(path: str) -> Signature:
    """Of a file, not followed where it is a link; the same for all that are not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return ABSENT
    return found.st_mode, found.st_mtime_ns, found.st_size, found.st_ino


def is_plain(folder: str, parts: Iterable[str]) -> bool:
    """Whether a path below a folder leads through plain folders to a plain file: no link, no pipe, no device."""
    *above, file = parts
    for name in above:
        folder = f"{folder}/{name}"
        if not stat.S_ISDIR(signature(folder)[0]):
            return False
    return stat.S_ISREG(signature(f"{folder}/{file}")[0])


def _progress(module: Mapping[str, Any]) -> float:
    """Of one module: by its steps where its worker said how many there are, else by epochs."""
    step, steps = number(module["step"]), number(module["steps"])
    done = step / steps if step is not None and steps else (number(module["epoch"]) or 0) / module["epochs"]
    return min(1.0, max(0.0, done))


def sweep_row(
    sweep: Sweep, path: str, rows: Mapping[int, Row], results: Mapping[int, float | None], *, stopped: bool
) -> Row:
    """A sweep as one line, of the rows and results of its trials that have begun.

    Its metric is that of its best trial now, as `modtrain sweep-status` ranks them.
    """
    counts = Counter("failed" if row["problem"] else row["state"] for row in rows.values())
    counts["waiting"] += max(0, sweep.spec.trials - len(rows))
    done = sum(1.0 if row["problem"] or row["state"] in ENDED else row["progress"] or 0.0 for row in rows.values())
    return {
        "kind": "sweep",
        "path": path,
        "name": sweep.name,
        "recipe": sweep.spec.config["recipe"],
        "state": _state_of(counts, stopped=stopped),
        "trials": sweep.spec.trials,
        "counts": {state: count for state, count in counts.items() if count},
        "progress": min(1.0, done / sweep.spec.trials),
        "metric": _best(sweep, results),
        "alarms": _repeated(sweep, rows.values()),
        "created_at": sweep.spec.created_at,
        "problem": None,
    }


def _repeated(sweep: Sweep, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """What is bad with its trials."""
    said = [f"{row['name']}: {alarm['says']}" for row in rows for alarm in row["alarms"] if alarm["level"] == "bad"]
    do = f"See `modtrain sweep-status {sweep.path}`."
    alarms = [{"module": None, "level": "bad", "says": sentence, "do": do} for sentence in said]
    more = [{**alarms[0], "says": f"{len(said) - MOST_ALARMS} more of its trials."}] if len(said) > MOST_ALARMS else []
    return alarms[:MOST_ALARMS] + more


def _state_of(counts: Mapping[str, int], *, stopped: bool) -> str:
    for state in ("running", "queued"):
        if counts.get(state):
            return state
    if sum(counts.values()) == sum(counts.get(state, 0) for state in ENDED):
        return "finished" if counts.get("finished") else "failed"
    return "stopped" if stopped or counts.get("stopped") else "waiting"


def _best(sweep: Sweep, results: Mapping[int, float | None]) -> Row | None:
    sign = -1 if sweep.spec.maximize else 1
    found = [(sign * value, number) for number, value in results.items() if value is not None]
    return {"name": sweep.spec.metric, "value": sign * min(found)[0], "trial": min(found)[1]} if found else None
