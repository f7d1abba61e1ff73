"""A process beside each running job: starts its script, enforces its walltime, signals it, copies its output back.

It stands for MoM, on nodes that are all this machine. A login shell in $HOME runs a copy of the script, with
no variables but PBS's own and those of -v. SIGTERM goes to every process of the job's session.
When the script's own process has ended, what it left running is killed at once.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .cluster import Cluster, Gone, Job, Task, locked, stands
from .scheduling import DELETE, NODE_FAILED, TAKEN_DOWN, WAKE, schedule

WALLTIME_EXCEEDED = -29
"""JOB_EXEC_KILL_WALLTIME; before version 19 it was 271, as for any job that SIGTERM ended."""
NODE_LOST = -20
LOOK_S = 1.0
"""Seconds between checks whether the fake still exists."""


def main(home: Path, arguments: list[str]) -> None:
    """Run one task to its end, then start waiting jobs."""
    number, index = int(arguments[0]), arguments[1]
    with contextlib.suppress(Gone):
        with locked(home) as state:
            job = state.jobs.get(number)
            if job is None or state.closed or not stands(home):
                return
            run = Run(home=home, job=job, index=index, kill_delay_s=Cluster.load(home).kill_delay_s)
            os.umask(0o077)
            run.start()
            job.tasks[index].session = run.child.pid
        run.watch()
        if run.ended_by != "taken down":
            _finish(run)


@dataclass(kw_only=True)
class Run:
    """One start of one task."""

    home: Path
    job: Job
    index: str
    kill_delay_s: float
    ended_by: str = ""

    @property
    def id(self) -> str:
        """The id of the job in its own environment."""
        return self.job.id(self.index)

    def start(self) -> None:
        """Start the script in a session of its own."""
        environment = _environment(self)
        script = str(self.home / "spool" / f"{self.job.number}.SC")
        given = [self.job.shell, script] if self.job.shell else [script]
        out, err = self.streams()
        with out, err:
            self.child = subprocess.Popen(
                ["bash", "-l", "-c", 'exec "$@"', "bash", *given],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=environment["HOME"],
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, []),
            )
        self.began = time.monotonic()

    def streams(self) -> tuple[BinaryIO, BinaryIO]:
        """The files in the spool that its output goes to while it runs; one if they are joined."""
        return spooled(self, "OU").open("ab"), spooled(self, "OU" if self.job.joined else "ER").open("ab")

    def watch(self) -> None:
        """Wait for the end; terminate the job at its walltime or on request."""
        limit, kill_at = self.job.walltime_s, float("inf")
        while self.child.poll() is None:
            spent = time.monotonic() - self.began
            if limit is not None and spent >= limit and not self.ended_by:
                self._write_error(f"=>> PBS: job killed: walltime {int(spent)} exceeded limit {int(limit)}\n")
                kill_at = self._terminate("walltime")
            if time.monotonic() >= kill_at:
                signal_session(self.child.pid, signal.SIGKILL)
            due = min(kill_at - time.monotonic(), LOOK_S)
            due = due if limit is None or self.ended_by else min(due, limit - spent)
            request = signal.sigtimedwait(WAKE, max(due, 0.01))
            if request and request.si_signo == DELETE and not self.ended_by:
                kill_at = self._terminate("deleted")
            elif request and request.si_signo in (NODE_FAILED, TAKEN_DOWN):
                self._kill("node" if request.si_signo == NODE_FAILED else "taken down")
            elif not stands(self.home):
                self._kill("taken down")
        signal_session(self.child.pid, signal.SIGKILL)

    def _terminate(self, why: str) -> float:
        self.ended_by = why
        signal_session(self.child.pid, signal.SIGTERM)
        return time.monotonic() + self.kill_delay_s

    def _kill(self, why: str) -> None:
        self.ended_by = why
        signal_session(self.child.pid, signal.SIGKILL)

    def _write_error(self, text: str) -> None:
        with self.streams()[1] as stream:
            stream.write(text.encode())


def signal_session(session: int, what: signal.Signals) -> None:
    """Signal every process of a session, its leader first.

    In the other order a shell could see its child die and exit with 143 before the signal reaches it. The real PBS has
    no order, so that a job ended by SIGTERM may have the status 143 there instead of 271.
    """
    for pid in sorted(_session(session), key=lambda pid: (pid != session, pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def _session(session: int) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry.name)) == session:
                pids.append(int(entry.name))
    return pids


def _environment(run: Run) -> dict[str, str]:
    """Environment of a job: a bare login, the variables of PBS, and those that qsub sent."""
    job, home, user = run.job, run.home, pwd.getpwuid(os.getuid()).pw_name
    places = job.tasks[run.index].places
    nodes, scratch = home / "aux" / run.id, home / "tmp" / f"pbs.{run.id}"
    scratch.mkdir(exist_ok=True)
    ranks = [place[0] for place, chunk in zip(places, job.chunks, strict=True) for _ in range(chunk["mpiprocs"])]
    nodes.write_text("".join(f"{node}\n" for node in ranks))
    cpus = str(places[0][1])
    bare = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    pbs = {
        "HOME": str(home / "home"),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "ENVIRONMENT": "BATCH",
        "NCPUS": cpus,
        "OMP_NUM_THREADS": cpus,
        "TMPDIR": str(scratch),
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBDIR": str(home / "home"),
        "PBS_JOBID": run.id,
        "PBS_JOBNAME": job.name,
        "PBS_MOMPORT": "15003",
        "PBS_NODEFILE": str(nodes),
        "PBS_NODENUM": "0",
        "PBS_QUEUE": job.queue,
        "PBS_TASKNUM": "1",
    }
    subjob = {"PBS_ARRAY_INDEX": run.index, "PBS_ARRAY_ID": job.id()} if job.array else {}
    return bare | job.variables | pbs | subjob


def spooled(run: Run, suffix: str) -> Path:
    """File of one stream in the spool."""
    return run.home / "spool" / f"{run.id}.{suffix}"


def destination(run: Run, suffix: str) -> Path:
    """Final file of a stream: `-o`, or a default name in the folder that the job was submitted from."""
    job = run.job
    if suffix == "OU" and job.output:
        return Path(job.output, f"{run.id}.OU") if Path(job.output).is_dir() else Path(job.output)
    subjob = f".{run.index}" if job.array else ""
    return Path(job.directory, f"{job.name}.{'o' if suffix == 'OU' else 'e'}{job.number}{subjob}")


def _finish(run: Run) -> None:
    """Copy the output back, record the end of the job, and start waiting jobs."""
    again = run.ended_by == "node" and run.job.rerunable
    with locked(run.home) as state:
        if run.job.number in state.jobs:
            state.jobs[run.job.number].tasks[run.index].state = "E"
    for suffix in ("OU", "ER"):
        source = spooled(run, suffix)
        if source.exists() and not again:
            with contextlib.suppress(OSError):  # the real PBS then leaves it on the node
                shutil.copyfile(source, destination(run, suffix))
        source.unlink(missing_ok=True)
    shutil.rmtree(run.home / "tmp" / f"pbs.{run.id}", ignore_errors=True)
    with locked(run.home) as state:
        job = state.jobs.get(run.job.number)
        if job is not None:
            _settle(run, job, job.tasks[run.index], again)
        schedule(run.home, state)


def _settle(run: Run, job: Job, task: Task, again: bool) -> None:
    task.ended_s, task.supervisor, task.session = time.time(), 0, 0
    if again and not task.deleted:
        task.state, task.comment = "Q", "Not Running: Requeued, execution node down"
        return
    code = run.child.returncode
    task.exit_status = code if code >= 0 else 256 - code
    task.state = "X" if job.array else "F"
    ending = "finished" if task.exit_status == 0 else "failed"
    if run.ended_by == "walltime":
        task.exit_status, ending = WALLTIME_EXCEEDED, "exceeded resource walltime"
    elif run.ended_by == "deleted" or task.deleted:
        ending = "terminated"
    elif run.ended_by == "node":
        task.exit_status, ending = NODE_LOST, "failed: execution node down"
    task.comment += f" and {ending}"
