"""The contract of a backend: it starts, watches and cancels commands, and never carries data.

A backend is one file that ends with `backend = <its class>`; the class is called with `BackendOptions`. What a command
has achieved is read from the run's folder, not from the backend.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modtrain.scheduling.profile import Profile
from modtrain.storage.run_snapshot import JobPhase


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one job asks for, at most."""

    cpus: int = 1
    gpus: float = 0.0
    """Used by backends that count GPUs, on nodes that have any; may be a fraction."""
    concurrent_jobs: int = 0
    """Jobs that are to run at the same time, where that is more than are submitted in one call."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command to run on some node."""

    name: str
    """Unique among live jobs; a batch scheduler shows it shortened."""
    command: tuple[str, ...]
    """Program and arguments, passed on without a shell's interpretation."""
    log: Path
    """File to which standard output and standard error are appended; one per job."""
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables added to the environment of the node."""


@dataclass(frozen=True, kw_only=True)
class Array(Job):
    """Jobs that differ in one number: each runs the command with `--task N`. `log` is the folder of their logs."""

    tasks: Sequence[int]
    max_running: int | None
    """Tasks that run at the same time, at most; None for no limit."""
    group_size: int = 1
    """Consecutive tasks that are submitted in the same array, however it is split."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """State of one job at the time of a `Backend.status` call.

    | phase   | meaning                                                                     | live | exit_code         |
    |---------|-----------------------------------------------------------------------------|------|-------------------|
    | pending | accepted and without a process: queued, held, requeued, or being restarted  | yes  | None              |
    | running | its command, or the job script around it, has a process                     | yes  | None              |
    | ended   | over, and the backend does not start it again                               | no   | code, -N for      |
    |         |                                                                             |      | signal N, or None |
    | unknown | the backend has no such job: never submitted, of another host or cluster,   | no   | None              |
    |         | or forgotten                                                                |      |                   |

    The exit code of an ended job is None where the backend did not observe it.
    """

    phase: JobPhase
    exit_code: int | None = None
    reason: str = ""
    """For display: why the scheduler has not started the job, or the nodes on which it runs."""

    @property
    def live(self) -> bool:
        """Whether the job runs or will run."""
        return self.phase in ("pending", "running")


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Options of the command line that are for the backend."""

    address: str | None = None
    """Address of a cluster, for backends that join one."""
    profile: Profile = field(default_factory=Profile)
    """Job options of the cluster."""


class Backend(Protocol):
    """Starts, watches and cancels jobs. Every method takes a list, so that one call to the scheduler serves all jobs.

    An id is a string that any process with the same options can use later. It names the job for good: a job that its
    backend requeues, restarts or continues in another one keeps its first id.
    """

    unattended: bool
    """Whether jobs need no launcher: they restart killed commands, and a launch is complete when they are submitted."""
    poll_s: float
    """Seconds between two `status` calls."""

    def check(self, device: str) -> None:
        """Raise InputError where no job can be submitted from this machine. Called before anything is written.

        Also where the jobs would run on this machine and it has no such `device`.
        """

    def cores(self, jobs: int) -> int:
        """CPU cores for each of `jobs` jobs that run at the same time, at least 1."""

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Submit the jobs and return their ids in the same order, without waiting until they run.

        InputError where a job is refused or can never be placed; BackendSilent where the scheduler does not answer.
        """

    def status(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """State of each job, by id; every id gets an answer, `unknown` where the backend has no such job.

        BackendSilent where the scheduler does not answer: the jobs may be in any state.
        """

    def cancel(self, ids: Sequence[str]) -> None:
        """Kill the jobs, wait a limited time until they are gone, and free what they held.

        Ids of ended or unknown jobs are ignored.
        """


class ScriptBackend(Backend, Protocol):
    """A batch scheduler: each job is a script, and similar jobs can form an array. `submit` takes all jobs or none."""

    def scripts(self, jobs: Sequence[Job]) -> list[Path]:
        """Write the job scripts without submitting them; their paths in order."""

    def arrays(self, array: Array) -> list[Path]:
        """Write the scripts of an array, split at the site's limit, without submitting them."""

    def submit_array(self, array: Array) -> dict[int, str]:
        """Submit an array; the job id by task number, without the tasks that did not fit into the site's limits."""


def check_device(device: str) -> None:
    """InputError where this machine has no such device."""
    from modtrain.training.learner import choose_device  # imports torch, as the recipe of the run has done

    choose_device(device)


def python_path() -> dict[str, str]:
    """`PYTHONPATH` with this process's import path as absolute paths, independent of the working folder.

    Entries that every Python of this installation has by default are left out.
    """
    installation = tuple(os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix))
    inherited = [Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    # An editable install adds the name of an import hook to sys.path, which is not a path.
    paths = [Path(entry).absolute() for entry in filter(os.path.exists, sys.path)]
    own = [str(path) for path in paths if path in inherited or not str(path).startswith(installation)]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(own))}
