"""State of the fake PBS Pro: the cluster and its jobs, in one file that is changed under a lock.

Only the standard library is used, so that a command starts in hundredths of a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SERVER = "fakepbs"
VERSION = "23.06.06"
FIRST_NUMBER = 100
HOST = socket.gethostname()
ID = re.compile(rf"(\d+)(?:\[(\d*)\])?(?:\.{SERVER})?")
ID_FORM = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?")


class Refused(Exception):
    """A refused command, with the message and exit code of the real one."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Gone(Exception):
    """The fake was taken down; its programs exit."""


def not_simulated(what: str) -> Refused:
    """The error for what PBS Pro has and the fake lacks: a test must not pass on a guess."""
    return Refused(f"the fake PBS Pro does not simulate {what}", 99)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The shape of a fake cluster; an empty `accounts` accepts every account."""

    nodes: int = 3
    ncpus: int = 2
    ngpus: int = 1
    queues: tuple[str, ...] = ("workq",)
    limits: dict[str, str] = field(default_factory=dict)
    """The walltime that a queue gives to jobs which ask for none (`resources_default.walltime`)."""
    accounts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    kill_delay_s: float = 10.0
    history: bool = True
    """`job_history_enable`, which a fresh server has off: jobs that are over are then unknown."""
    flatuid: bool = True
    """Whether jobs may submit jobs; off on a fresh server, where only its own host may."""
    answers: bool = True
    """Whether the server is there."""

    def save(self, home: Path) -> None:
        """Write the cluster into the fake's folder, where every command reads it."""
        (home / "cluster.new").write_text(json.dumps(asdict(self)))
        (home / "cluster.new").rename(home / "cluster.json")

    @classmethod
    def load(cls, home: Path) -> Cluster:
        """Read the cluster of the fake in this folder."""
        values: dict[str, Any] = json.loads((home / "cluster.json").read_text())
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values)


@dataclass(kw_only=True)
class Task:
    """A job that runs, or one subjob of an array."""

    state: str = "Q"
    run_count: int = 0
    exit_status: int | None = None
    supervisor: int = 0
    session: int = 0
    places: list[list[Any]] = field(default_factory=list)
    """One [node, ncpus, ngpus] a chunk, while it runs and afterwards."""
    started_s: float = 0.0
    ended_s: float = 0.0
    comment: str = ""
    deleted: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in "FX"


@dataclass(kw_only=True)
class Job:
    """A submitted job and its tasks: one with the key "", or one for each index of an array."""

    number: int
    name: str
    queue: str
    attributes: dict[str, str]
    project: str
    joined: bool
    resources: dict[str, str]
    chunks: list[dict[str, int]]
    walltime_s: float | None
    variables: dict[str, str]
    directory: str
    output: str
    shell: str
    rerunable: bool
    depend: list[list[str]]
    created_s: float
    range: str = ""
    limit: int | None = None
    user_hold: bool = False
    waiting: bool = False
    """Held by a dependency."""
    comment: str = ""
    tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def array(self) -> bool:
        """Whether it was submitted with -J."""
        return bool(self.range)

    @property
    def over(self) -> bool:
        """Whether every task has ended."""
        return all(task.over for task in self.tasks.values())

    @property
    def begun(self) -> bool:
        """Whether any task was ever started."""
        return any(task.run_count for task in self.tasks.values())

    @property
    def held(self) -> bool:
        """Whether it may not start, by -h or by a dependency."""
        return self.user_hold or self.waiting

    @property
    def exit_status(self) -> int | None:
        """Exit status; that of an array is 0 if all its subjobs succeeded, 1 if one failed, 2 if one was deleted."""
        statuses = [task.exit_status for task in self.tasks.values()]
        if not self.array:
            return statuses[0]
        if any(task.deleted for task in self.tasks.values()):
            return 2
        return int(any(statuses)) if self.over else None

    def state(self, index: str = "") -> str:
        """The letter of the job, of the array, or of one subjob."""
        if self.array and index:
            letter = self.tasks[index].state
            return "F" if letter == "X" and self.over else "H" if letter == "Q" and self.held else letter
        if self.over:
            return "F"
        if self.held and not self.begun:
            return "H"
        if self.array:
            return "B" if self.begun else "Q"
        return self.tasks[""].state

    def id(self, index: str = "") -> str:
        """Such as `100.fakepbs`, `100[].fakepbs`, `100[3].fakepbs`."""
        return f"{self.number}[{index}].{SERVER}" if self.array else f"{self.number}.{SERVER}"


@dataclass(kw_only=True)
class State:
    """All jobs, and the next number."""

    next: int = FIRST_NUMBER
    closed: bool = False
    jobs: dict[int, Job] = field(default_factory=dict)

    def find(self, identifier: str) -> tuple[Job, list[str]]:
        """The job, and the index of the subjob that the identifier names (none: the job or the whole array).

        An unknown one is refused as by every PBS command.
        """
        match = ID.fullmatch(identifier)
        job = self.jobs.get(int(match[1])) if match else None
        if match is None or job is None or job.array != (match[2] is not None):
            raise Refused(f"Unknown Job Id {full(identifier)}", 153)
        if match[2] and match[2] not in job.tasks:
            raise Refused(f"Unknown Job Id {full(identifier)}", 153)
        return job, [match[2]] if match[2] else []


def full(identifier: str) -> str:
    """The identifier with the server's name, which is optional on the command line."""
    return identifier if "." in identifier else f"{identifier}.{SERVER}"


@contextlib.contextmanager
def locked(home: Path) -> Iterator[State]:
    """The state under the lock, saved at the end; Gone if the folder of the fake is removed."""
    try:
        lock = os.open(home / "lock", os.O_RDWR)
    except OSError as error:
        raise Gone from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            before = (home / "state.json").read_text()
        except OSError as error:
            raise Gone from error
        state = _loads(before)
        yield state
        after = _dumps(state)
        if after != before:
            _replace(home, after)
    finally:
        os.close(lock)


def create(home: Path, cluster: Cluster) -> None:
    """Lay out the folder of a new fake."""
    for name in ("bin", "home", "spool", "tmp", "aux"):
        (home / name).mkdir(parents=True)
    cluster.save(home)
    profile = f"PATH={shlex.quote(str(home / 'bin'))}:$PATH\n"
    if modules := os.environ.get("PYTHONPATH"):  # a login sets it, so that commands in jobs are forked as well
        profile += f"export PYTHONPATH={shlex.quote(modules)}\n"
    (home / "home" / ".bash_profile").write_text(profile)
    (home / "owner").write_text(str(os.getpid()))
    (home / "lock").touch()
    (home / "calls.log").touch()
    _replace(home, _dumps(State()))


def stands(home: Path) -> bool:
    """Whether the folder of the fake and the process that created it exist."""
    try:
        os.kill(int((home / "owner").read_text()), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _replace(home: Path, text: str) -> None:
    try:
        (home / "state.new").write_text(text)
        (home / "state.new").rename(home / "state.json")
    except FileNotFoundError as error:
        raise Gone from error


def _dumps(state: State) -> str:
    return json.dumps(vars(state), default=vars)


def _loads(text: str) -> State:
    values = json.loads(text)
    jobs = {int(number): _job(job) for number, job in values.pop("jobs").items()}
    return State(**values, jobs=jobs)


def _job(values: dict[str, Any]) -> Job:
    tasks = {index: Task(**task) for index, task in values.pop("tasks").items()}
    return Job(**values, tasks=tasks)
