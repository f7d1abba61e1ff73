"""A local Slurm for tests: start and stop it, read its queue, change its nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "cluster" / "local-slurm"
OVER = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"})
FIELDS = ("JobArrayID", "State", "exit_code", "Reason", "NodeList", "RestartCnt", "Name")


class NoSlurm(Exception):
    """Slurm cannot be started on this machine; the text is the error of `up`."""


@dataclass(frozen=True, kw_only=True)
class Queued:
    """A job in the output of squeue; the `id` of an array task is like 12_3, `exit_code` is negative for a signal."""

    id: str
    name: str
    state: str
    reason: str
    node: str
    restarts: int
    exit_code: int

    @property
    def over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True)
class Slurm:
    """A running Slurm; all its files are in `folder`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which sbatch and the other commands use this Slurm."""
        return without_slurm() | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: object) -> str:
        """Output of a Slurm command; the test fails if it fails."""
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment, timeout=60)
        assert done.returncode == 0, f"{words} ended with {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def queue(self) -> dict[str, Queued]:
        """All jobs by id, including those that ended within five minutes; one entry for each task of an array."""
        columns = ",".join(f"{field}:|" for field in FIELDS)  # each ends with a bar, and none is cut
        output = self.run("squeue", "--array", "--states=all", "--noheader", "-O", columns)
        jobs = [read_job(line) for line in output.splitlines()]
        return {job.id: job for job in jobs}

    def until(self, job: str, wanted: Callable[[Queued], bool], *, timeout_s: float = 120) -> Queued:
        """Wait until the job satisfies `wanted`; the job."""
        deadline = time.monotonic() + timeout_s
        while not wanted(queued := self.queue()[job]):
            assert time.monotonic() < deadline, f"after {timeout_s} s it is still {queued}"
            time.sleep(0.1)
        return queued

    def until_running(self, job: str) -> Queued:
        """Wait until the job runs; the job."""
        return self.until(job, lambda queued: queued.state == "RUNNING")

    def until_over(self, job: str, *, timeout_s: float = 120) -> Queued:
        """Wait until the job has ended in any way; the job."""
        return self.until(job, lambda queued: queued.over, timeout_s=timeout_s)

    def set_node(self, node: str, state: str) -> None:
        """Set a node to DOWN, so that its jobs are lost, or to RESUME, so that it is used again."""
        self.run("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")

    def node_states(self) -> dict[str, str]:
        """State by node: idle, mixed, allocated, down ..."""
        output = self.run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T")
        return dict(line.split() for line in output.splitlines())

    def clear(self) -> None:
        """Cancel all jobs and resume all nodes, for the next test."""
        for node, state in self.node_states().items():
            if state.startswith(("down", "drain")):
                self.set_node(node, "RESUME")
        for job in self.queue().values():
            if not job.over:
                self.run("scancel", job.id)
        deadline = time.monotonic() + 60
        while set(self.node_states().values()) != {"idle"}:
            assert time.monotonic() < deadline, f"not idle after 60 s: {self.node_states()}"
            time.sleep(0.1)


def read_job(line: str) -> Queued:
    """Parse a line of `squeue -O`."""
    id_, state, status, reason, node, restarts, name = line.split("|", len(FIELDS) - 1)
    code = os.waitstatus_to_exitcode(int(status))
    name = name.removesuffix("|")
    return Queued(id=id_, name=name, state=state, reason=reason, node=node, restarts=int(restarts), exit_code=code)


def without_slurm() -> dict[str, str]:
    """Environment of this process without variables of another Slurm or of its jobs."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH_", "SQUEUE_"))}


def script(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `up` or `down` on a folder."""
    command = [str(SCRIPTS / name), "--dir", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=without_slurm())


@contextmanager
def short_folder() -> Iterator[Path]:
    """A new folder with a path that is short enough for sockets; it is not created."""
    parent = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    parent.chmod(0o755)
    try:
        yield parent / "s"
    finally:
        shutil.rmtree(parent)


@contextmanager
def local_slurm(*, nodes: int = 3) -> Iterator[Slurm]:
    """A Slurm that runs until the block ends; NoSlurm where it cannot be started."""
    with short_folder() as folder:
        up = script("up", folder, "--nodes", str(nodes))
        if up.returncode == 2:
            raise NoSlurm(up.stderr.strip())
        assert up.returncode == 0, up.stderr
        try:
            yield Slurm(folder)
        finally:
            down = script("down", folder)
            assert down.returncode == 0, down.stderr
