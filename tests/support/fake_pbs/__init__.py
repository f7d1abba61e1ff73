"""A fake PBS Pro for tests: `qsub`, `qstat` and `qdel` that check their arguments and run the scripts.

Its state is one file, and each running job has a small process beside it. It has the options that modtrain writes and
reads; any other option of the real commands is refused with exit code 99. It follows the manual pages of OpenPBS 20 to
23, and the output and exit codes of its commands.

    with fake_pbs(tmp_path / "pbs") as pbs:
        subprocess.run(["qsub", "job.sh"], env=os.environ | pbs.env)
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .cluster import Cluster, Job, State, Task, create, locked
from .scheduling import NODE_FAILED, TAKEN_DOWN, command, tell

__all__ = ["Cluster", "FakePbs", "fake_pbs"]

PROGRAMS = ("qsub", "qstat", "qdel")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FakePbs:
    """A running fake PBS: its settings, its state, and its faults."""

    home: Path
    cluster: Cluster

    @property
    def env(self) -> dict[str, str]:
        """Variables with which its programs are found; jobs have them already."""
        return {"PATH": f"{self.home / 'bin'}:{os.environ.get('PATH', os.defpath)}"}

    def calls(self, name: str = "") -> list[list[str]]:
        """Every call so far as [program, argument, ...], also by jobs; of one program, if it is named."""
        calls = [json.loads(line) for line in (self.home / "calls.log").read_text().splitlines()]
        return [call for call in calls if name in ("", call[0])]

    def run(self, name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program with `text` as its input, in the parent of the fake's folder."""
        return subprocess.run(
            [name, *arguments],
            executable=self.home / "bin" / name,
            input=text,
            capture_output=True,
            text=True,
            cwd=self.home.parent,
            env=os.environ | self.env,
        )

    def submit(self, text: str, *options: str) -> str:
        """Submit a script; the id of the job. ValueError where it is refused."""
        answer = self.run("qsub", *options, text=text)
        if answer.returncode:
            raise ValueError(answer.stderr)
        return answer.stdout.strip()

    def shown(self, identifier: str) -> dict[str, str]:
        """Attributes of a job in the output of `qstat -xfw`."""
        lines = self.run("qstat", "-xfw", identifier).stdout.splitlines()
        return dict(line.strip().partition(" = ")[::2] for line in lines[1:] if " = " in line)

    @contextlib.contextmanager
    def changed(self, **settings: Any) -> Iterator[None]:
        """Within this block the cluster has other settings, such as `history=False`."""
        replace(self.cluster, **settings).save(self.home)
        try:
            yield
        finally:
            self.cluster.save(self.home)

    def job(self, identifier: str) -> Job:
        """The record of a job."""
        with locked(self.home) as state:
            return state.find(identifier)[0]

    def state(self, identifier: str) -> str:
        """The letter that `qstat -x` shows."""
        with locked(self.home) as state:
            job, indices = state.find(identifier)
            return job.state(indices[0] if indices else "")

    def wait(self, identifier: str, states: str = "F", timeout_s: float = 60) -> str:
        """Wait until a job is in one of these states; the state."""
        return _until(lambda: self.state(identifier), lambda letter: letter in states, timeout_s, identifier)

    def fail_node(self, identifier: str, timeout_s: float = 30) -> None:
        """Fail the node of a running job: the job is killed, and queued again if it is rerunable (`-r y`)."""
        with locked(self.home) as state:
            job, indices = state.find(identifier)
            task = job.tasks[indices[0] if indices else ""]
            if task.state != "R":
                raise ValueError(f"{identifier} runs on no node: it is in state {task.state}.")
            before = (task.supervisor, task.run_count)
            tell(task, NODE_FAILED)
        _until(
            lambda: self.job(identifier).tasks[indices[0] if indices else ""],
            lambda task: (task.supervisor, task.run_count) != before,
            timeout_s,
            identifier,
        )


def _until(read: Callable[[], T], wanted: Callable[[T], bool], timeout_s: float, what: str) -> T:
    deadline = time.monotonic() + timeout_s
    while not wanted(value := read()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout_s:g} s for {what}; it is now {value!r}.")
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def fake_pbs(folder: Path, cluster: Cluster | None = None) -> Iterator[FakePbs]:
    """A fake PBS Pro in a new folder; at the end all its processes are ended."""
    home, cluster = folder.resolve(), cluster or Cluster()
    create(home, cluster)
    for name in PROGRAMS:
        program = home / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command(home, name))} "$@"\n')
        program.chmod(0o755)
    try:
        yield FakePbs(home=home, cluster=cluster)
    finally:
        _take_down(home)


def _take_down(home: Path) -> None:
    """Close the queue and end all processes, including those that left their session."""
    with locked(home) as state:
        state.closed = True
        for task in _running(state):
            tell(task, TAKEN_DOWN)
    deadline = time.monotonic() + 5
    while _marked(f"\0{home}\0supervisor\0", "cmdline") and time.monotonic() < deadline:
        time.sleep(0.02)
    while left := {*_marked(f"\0{home}\0", "cmdline"), *_marked(f"PBS_NODEFILE={home}/aux/", "environ")}:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # processes started meanwhile are in the next search


def _running(state: State) -> list[Task]:
    return [task for job in state.jobs.values() for task in job.tasks.values() if task.state in "RE"]


def _marked(mark: str, where: str) -> list[int]:
    """Processes with this mark in their command line or environment."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark.encode() in (entry / where).read_bytes():
                    pids.append(int(entry.name))
    return pids
