"""Which jobs may start, and what the end of a job means for the others: the scheduler of the fake PBS Pro.

First come, first served: a job that does not fit now keeps the ones behind it waiting, unless it never
fits. An array does not keep others waiting for its own limit. Everything here runs under the lock of the state; there
is no process that schedules: what changes the state calls `schedule`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .cluster import Cluster, Job, Refused, State, Task

ROOT = Path(__file__).parents[3]
WAKE = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
"""What a supervisor waits for; blocked before it is started, so that none gets lost while it starts."""
DELETE, NODE_FAILED, TAKEN_DOWN = signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2
BEGIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from tests.support.fake_pbs.command import main; main()"


def command(home: Path, name: str) -> list[str]:
    """How one of the fake's programs is started: isolated from the environment, its variables and its folder."""
    return [sys.executable, "-IS", "-c", BEGIN, str(ROOT), str(home), name]


def schedule(home: Path, state: State) -> None:
    """Settle the dependencies and start what may start."""
    if state.closed:
        return
    while _settle(state):
        pass
    cluster = Cluster.load(home)
    for job in [job for job in state.jobs.values() if not job.held and not job.over]:
        if not _start_tasks(home, state, cluster, job):
            return


def _start_tasks(home: Path, state: State, cluster: Cluster, job: Job) -> bool:
    """Start what there is room for; whether the next job may start."""
    running = sum(task.state in "RE" for task in job.tasks.values())
    for index, task in job.tasks.items():
        if task.state != "Q":
            continue
        if job.limit is not None and running >= job.limit:
            return True
        if _placed(job, cluster, {}) is None:
            task.comment = "Can Never Run: Insufficient amount of resource: ncpus"
            return True
        places = _placed(job, cluster, _used(state))
        if places is None:
            task.comment = "Not Running: Not enough free nodes available"
            return False
        _start(home, job, index, task, places)
        running += 1
    return True


def _used(state: State) -> dict[str, list[int]]:
    """The CPUs and GPUs in use, a node."""
    used: dict[str, list[int]] = {}
    for job in state.jobs.values():
        for task in job.tasks.values():
            for node, ncpus, ngpus in task.places if task.state in "RE" else []:
                taken = used.setdefault(node, [0, 0])
                taken[0] += ncpus
                taken[1] += ngpus
    return used


def _placed(job: Job, cluster: Cluster, used: dict[str, list[int]]) -> list[list[Any]] | None:
    """A node for each chunk, or None; `place=scatter` takes another one for each."""
    free = {
        node: [cluster.ncpus - used.get(node, [0, 0])[0], cluster.ngpus - used.get(node, [0, 0])[1]]
        for node in (f"n{number}" for number in range(1, cluster.nodes + 1))
    }
    return _fill(job, free, scatter=job.resources["place"] == "scatter")


def _fill(job: Job, free: dict[str, list[int]], scatter: bool) -> list[list[Any]] | None:
    places: list[list[Any]] = []
    for chunk in job.chunks:
        need = (chunk["ncpus"], chunk["ngpus"])
        node = next((node for node, left in free.items() if left[0] >= need[0] and left[1] >= need[1]), None)
        if node is None:
            return None
        places.append([node, *need])
        if scatter:
            del free[node]
        else:
            free[node] = [free[node][0] - need[0], free[node][1] - need[1]]
    return places


def _start(home: Path, job: Job, index: str, task: Task, places: list[list[Any]]) -> None:
    now = time.time()
    when = time.strftime("%a %b %d at %H:%M", time.localtime(now))
    task.state, task.places, task.started_s = "R", places, now
    task.run_count += 1
    task.comment = f"Job run at {when} on {vnodes(places)}"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)
    try:
        with (home / "supervisors.log").open("ab") as log:
            started = subprocess.Popen(
                [*command(home, "supervisor"), str(job.number), index],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={},
                start_new_session=True,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    started.returncode = 0  # it outlives this process, which does not wait for it
    task.supervisor = started.pid


def vnodes(places: list[list[Any]]) -> str:
    """Such as `(n1:ncpus=2)+(n2:ncpus=2:ngpus=1)`."""
    return "+".join(f"({node}:ncpus={ncpus}{f':ngpus={ngpus}' if ngpus else ''})" for node, ncpus, ngpus in places)


def delete(job: Job, index: str) -> None:
    """qdel of one task: a running one gets a signal, one that waits is over at once."""
    task = job.tasks[index]
    if task.over:
        return
    task.deleted = True
    if task.state in "RE":
        tell(task, DELETE)
        return
    task.state, task.ended_s = ("X" if job.array else "F"), time.time()
    task.comment = f"{task.comment or 'Not Running'} and terminated"


def tell(task: Task, what: signal.Signals) -> None:
    """Signal the supervisor of a running task."""
    if task.supervisor:
        with contextlib.suppress(ProcessLookupError):
            os.kill(task.supervisor, what)


def _settle(state: State) -> bool:
    """Release or abort every job that waits for others and need not any more; whether anything changed."""
    changed = False
    for job in state.jobs.values():
        if not job.waiting or job.over:
            continue
        verdicts = [_verdict(state, kind, other) for kind, *others in job.depend for other in others]
        broken = next((verdict for verdict in verdicts if isinstance(verdict, str)), None)
        if broken is not None:
            _abort(job, broken)
        elif all(verdicts):
            job.waiting = False
        changed |= broken is not None or all(verdicts)
    return changed


def _verdict(state: State, kind: str, identifier: str) -> bool | str:
    """Whether a dependency has come true; a text says that it never will."""
    try:
        other, _ = state.find(identifier)
    except Refused:
        return f"Dependency request for job rejected by {identifier}"
    if kind == "after" and other.begun:
        return True
    if not other.over:
        return False
    deleted = any(task.deleted for task in other.tasks.values())
    well = other.exit_status == 0 and not deleted
    wanted = {"after": False, "afterok": well, "afternotok": not well, "afterany": True}[kind]
    return True if wanted and other.begun else f"Job deleted as result of dependency on job {identifier}"


def _abort(job: Job, why: str) -> None:
    job.waiting = False
    job.comment = why
    for task in job.tasks.values():
        task.state, task.comment = ("X" if job.array else "F"), why
        task.deleted, task.ended_s = True, time.time()
