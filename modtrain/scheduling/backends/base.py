"""What a backend is: it starts, watches and cancels commands. It carries a command, never data.

A backend is one file with `backend = <its class>`; the class is built from `BackendOptions`. Deliberately not here: any
base class, and what the commands do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from modtrain.errors import FINAL_EXIT_CODES, Preempted
from modtrain.scheduling.profile import Profile

RESTARTS = 16
"""How often in a row a command that dies soon after its start is started again."""
QUICK_DEATH_S = 60.0
"""A command that lived longer than this is no part of such a row."""
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one job asks for, at most."""

    cpus: int = 1
    gpus: float = 0.0
    """Taken where there are any."""
    beside: int = 0
    """How many jobs are to run at the same time, where there are more than those that are submitted together."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command to run on some node."""

    name: str
    command: tuple[str, ...]
    log: Path
    """Takes what the command prints, appended. No two jobs share one."""
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the command's environment has besides that of its node."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """Many jobs that differ in a number: the command is given `--task N`."""

    name: str
    command: tuple[str, ...]
    tasks: Sequence[int]
    at_once: int | None
    """How many run at the same time, at most."""
    together: int = 1
    """So many tasks in a row belong together: they are never split."""
    folder: Path
    """Takes the scripts, and a log for each task."""
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)


Phase = Literal["pending", "running", "ended", "unknown"]


@dataclass(frozen=True, kw_only=True)
class JobState:
    """Where a job is. `exit_code` is negative for the signal that ended it, None while unknown."""

    phase: Phase
    exit_code: int | None = None
    why: str = ""
    """The scheduler's reason, or where it runs, for people."""

    @property
    def live(self) -> bool:
        """Whether the job runs or will run."""
        return self.phase in ("pending", "running")


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """What the command line says to a backend."""

    address: str | None = None
    """Of a cluster, where the backend has one."""
    keep: bool = False
    """Jobs outlive this process."""
    profile: Profile = field(default_factory=Profile)
    """What a cluster wants to be told about every job."""


class Backend(Protocol):
    """Lists throughout, so that arrays and one status call for everything stay possible."""

    restarts: bool
    """Whether the backend itself starts a killed job again."""
    unattended: bool
    """Whether nobody has to watch: a launch is over when its jobs are submitted."""
    poll_s: float
    """Seconds between two questions for the status of jobs."""

    def check(self) -> None:
        """InputError where no job could be submitted from here: asked before anything is written."""

    def cores(self, jobs: int) -> int:
        """CPU cores that each of so many jobs can have, at least 1."""

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Start the jobs; their ids, in order. InputError where they can never be placed."""

    def status(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """Where each job is, asked once for all; `unknown` for an id that the backend does not know.

        BackendSilent where nobody answers: that says nothing about the jobs.
        """

    def cancel(self, ids: Sequence[str]) -> None:
        """End the jobs now and free what they held; one that is over or unknown is no error."""


class ScriptBackend(Backend, Protocol):
    """A batch scheduler: a job is a script, and many like ones are an array."""

    def scripts(self, jobs: Sequence[Job]) -> list[Path]:
        """Write the jobs' scripts and submit nothing."""

    def arrays(self, array: Array) -> list[Path]:
        """Write an array's scripts, as many as the site's limit makes necessary, and submit nothing."""

    def submit_array(self, array: Array) -> dict[int, str]:
        """Submit an array; the id of each task."""


class Deaths:
    """Counts how often in a row a command died soon after its start, and says how long to pause before the next."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def pause_s(self, lived_s: float) -> float | None:
        """Seconds to wait before the command is started again, doubling; None to give up."""
        self.in_a_row = self.in_a_row + 1 if lived_s < QUICK_DEATH_S else 1
        if self.in_a_row > RESTARTS:
            return None
        return 0.0 if self.in_a_row == 1 else min(2.0 ** (self.in_a_row - 2), LONGEST_PAUSE_S)


def wants_restart(exit_code: int | None) -> bool:
    """Whether a command that ended so should be started again: killed by a signal, or told to leave and continue.

    A shell in between reports a signal as 128 + its number.
    """
    if exit_code is None or exit_code < 0 or exit_code == Preempted.exit_code:
        return True
    return exit_code > 128 and exit_code not in FINAL_EXIT_CODES


def python_path() -> dict[str, str]:
    """The environment that gives another Python the import path of this one, whatever its working folder is.

    Left out is what every Python of this installation has by itself.
    """
    installed = tuple(os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix))
    inherited = [Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    there = filter(os.path.exists, sys.path)  # an editable install adds the name of a hook, which is no path
    found = [Path(entry).absolute() for entry in there]
    ours = [str(entry) for entry in found if entry in inherited or not str(entry).startswith(installed)]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(ours))}
