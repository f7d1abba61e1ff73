"""What batch schedulers share: a job is a script beside its log, submitted by one command and asked about by another.

A script keeps a journal beside its log: when its worker started and ended, and which job goes on with it. It says how
a job ended long after the scheduler has forgotten, and finds the job that continues one. Deliberately not here:
directives, commands and states (`slurm.py`, `pbs.py`), and the script's text (`jobscript.py`).
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modtrain.errors import BackendSilent, InputError, ModtrainError
from modtrain.scheduling.backends.base import Array, BackendOptions, Job, JobState, Resources
from modtrain.scheduling.backends.journal import Journal
from modtrain.scheduling.job_script import Script, render, without
from modtrain.storage import filesystem

log = logging.getLogger(__name__)

TASTE = ("SQUEUE_", "SCANCEL_", "SLURM_TIME_FORMAT")
"""Variables by which a person has a scheduler's commands show or ask things otherwise."""
ANSWER_S = 60.0
CANCEL_S = 90.0
"""How long a cancelled job may take to be gone: sites give it 30 s between SIGTERM and SIGKILL."""
CLOSE_S = 10.0
"""How long after that its script may take to write its last line."""


class BatchBackend:
    """A scheduler by its commands. An id is `<journal>@<scheduler's id>`: it tells its job from everywhere."""

    restarts = True
    unattended = True
    marker: str
    """What begins a directive in a script."""
    template: str
    submit_command: tuple[str, ...]
    cancel_command: tuple[str, ...]
    silence: tuple[str, ...] = ()
    """What the submitting command says where nobody answers it."""

    def __init__(self, options: BackendOptions) -> None:
        """Nothing is asked of the scheduler before it is needed."""
        self.profile = options.profile
        self.poll_s = options.profile.poll_s
        if options.address:
            raise InputError(f"--address {options.address} is not for {self.name}: its commands know their cluster.")
        if self.profile.backend not in (None, self.name):
            raise InputError(f"The profile is for --backend {self.profile.backend}, not {self.name}.")
        limit_s, before_s = self.profile.limit_s, self.profile.publish_before_s
        if limit_s is not None and limit_s <= before_s:
            raise InputError(
                f"walltime {self.profile.walltime} leaves no time to train: workers leave {before_s:g} s before it. "
                "Ask for more, or lower publish_before_s."
            )

    @property
    def name(self) -> str:
        """As `--backend` takes it."""
        return self.template.partition(".")[0]

    def directives(self, name: str, log: Path, resources: Resources, *, alone: bool) -> Iterator[str]:
        """What the scheduler is told about a job, without the marker; `alone` where no other of its name may run."""
        raise NotImplementedError

    def array_directive(self, last: int, at_once: int | None) -> str:
        """What makes a script an array of the indices 0 to `last`."""
        raise NotImplementedError

    def task_id(self, id: str, index: int) -> str:
        """The scheduler's id of one task of an array."""
        raise NotImplementedError

    def after(self, id: str) -> list[str]:
        """Options of the submitting command that make a job wait for the end of another one."""
        raise NotImplementedError

    def ask(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """What the scheduler knows of these jobs of its, asked once; those that it does not know are left out."""
        raise NotImplementedError

    def cancelled_by(self, id: str) -> list[str]:
        """The scheduler's ids that end a job, whichever of them it has now."""
        return Journal(id).links

    def check(self) -> None:
        """The scheduler's command must be here, and the site's template be sound."""
        sample = Job(name="sample", command=("true",), log=Path("/sample.log"))
        render(self._script(sample), f"{self.name}.sh.j2", self.profile.template)
        if shutil.which(self.submit_command[0]) is None:
            raise _not_here(self.submit_command[0])

    def cores(self, jobs: int) -> int:
        """What the profile says."""
        return self.profile.cpus or 1

    def scripts(self, jobs: Sequence[Job]) -> list[Path]:
        """Write a script beside each job's log."""
        return [self._write(self._script(job)) for job in jobs]

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """Submit a script for each job, all or none; InputError with the scheduler's words where it takes one not."""
        ids: list[str] = []
        taken: list[str] = []
        try:
            for job, script in zip(jobs, self.scripts(jobs), strict=True):
                ids.append(_id(self._submit_chain(script, _journal(job.log), taken), _journal(job.log)))
        except BaseException:
            if taken:
                run([*self.cancel_command, *taken])
            raise
        return ids

    def arrays(self, array: Array) -> list[Path]:
        """Write the scripts of an array, split at the site's limit."""
        return [self._write(script) for script in self._array_scripts(array)]

    def submit_array(self, array: Array) -> dict[int, str]:
        """Submit an array; the id of each task that was taken: a site may not let in all of a large one at once."""
        ids: dict[int, str] = {}
        id = ""
        for script in self._array_scripts(array):
            # A limit counts in one array alone: with one, the next array begins when this one is through.
            try:
                id = self._submit(self._write(script), *(self.after(id) if id and array.at_once else []))
            except ModtrainError as error:
                if not ids:
                    raise
                log.warning("Only %d of %d tasks are submitted; go on later. %s", len(ids), len(array.tasks), error)
                return ids
            except BaseException:
                self.cancel(list(ids.values()))  # nobody would find them again
                raise
            alone = len(script.tasks) == 1
            found = {task: id if alone else self.task_id(id, index) for index, task in enumerate(script.tasks)}
            ids |= {task: _id(its, _journal(array.folder / f"{task}.log")) for task, its in found.items()}
        return ids

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """The state of each job or of the one that goes on with it; how it ended by its journal."""
        asked: dict[str, None] = {}
        states: Mapping[str, JobState] = {}
        while True:
            journals = {id: Journal(id) for id in dict.fromkeys(ids)}
            links = dict.fromkeys(link for journal in journals.values() for link in journal.links)
            if links.keys() <= asked.keys():  # read after the scheduler was asked: nobody went on meanwhile
                return {id: journal.state(states) for id, journal in journals.items()}
            asked, states = links, self.ask(list(links))

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel the jobs, and those that they may just have submitted to go on with them, and see them gone."""

        def gone() -> bool | None:
            live = {id: state for id, state in self.status(ids).items() if state.live}
            # Again where one waits though it was told: its own script was just requeueing it.
            again = told - {name for id, s in live.items() if s.phase == "pending" for name in self.cancelled_by(id)}
            new = [name for id in live for name in self.cancelled_by(id) if name not in again]
            if new:
                told.update(new)
                run([*self.cancel_command, *dict.fromkeys(new)])
            return None if live else True

        told: set[str] = set()
        filesystem.wait_until(gone, timeout_s=CANCEL_S)
        # Some schedulers call a job completed while its processes still live.
        filesystem.wait_until(lambda: all(Journal(id).closed for id in ids if told) or None, timeout_s=CLOSE_S)

    def _script(self, job: Job, *, alone: bool = True) -> Script:
        path = job.log.with_suffix(".sh")
        return Script(
            about=f"{job.name}: one worker of a modtrain run.",
            submit=shlex.join([*self.submit_command, str(path)]),
            path=path,
            log=job.log,
            journal=_journal(job.log),
            marker=self.marker,
            directives=self._told(self.directives(job.name, job.log, job.resources, alone=alone)),
            command=self._by_python(job.command),
            environment=dict(job.environment),
            tools=Path(found).parent if (found := shutil.which(self.submit_command[0])) else None,
            umask=f"{_umask():04o}",
            prologue=self.profile.prologue,
            epilogue=self.profile.epilogue,
            limit_s=self.profile.limit_s,
            publish_before_s=math.ceil(self.profile.publish_before_s),
            chain=self.profile.chain,
        )

    def _array_scripts(self, array: Array) -> Iterator[Script]:
        if self.profile.chain > 1:
            raise InputError("--chain is not for arrays; take --array-limit 0, which submits plain jobs.")
        size = self.profile.array_limit // array.together * array.together
        taken = sum(1 for name in filesystem.names(array.folder) if name.endswith(".sh"))
        for part, start in enumerate(range(0, len(array.tasks), size)):
            tasks = array.tasks[start : start + size]
            log = array.folder / f"array-{taken + part}.log"
            plain = self._script(
                Job(
                    name=array.name,
                    command=array.command,
                    log=log,
                    resources=array.resources,
                    environment=array.environment,
                ),
                alone=False,
            )
            told = list(plain.directives)
            told += [self.array_directive(len(tasks) - 1, array.at_once)] if len(tasks) > 1 else []
            about = f"{array.name}: tasks of a modtrain sweep, each one worker of one of its trials."
            yield replace(plain, about=about, directives=told, tasks=tasks, log=array.folder)

    def _told(self, directives: Iterable[str]) -> list[str]:
        """Less what the site does not take, and with what it wants besides."""
        return [*without(directives, self.profile.leave_out), *self.profile.directives]

    def _by_python(self, command: Sequence[str]) -> list[str]:
        return [self.profile.python or command[0], *command[1:]]

    def _write(self, script: Script) -> Path:
        script.path.parent.mkdir(parents=True, exist_ok=True)
        own = self.profile.template
        filesystem.replace_file(script.path, render(script, f"{self.name}.sh.j2", own).encode())
        return script.path

    def _submit_chain(self, script: Path, journal: Path, taken: list[str]) -> str:
        """Submit a job, and those that the profile wants to follow it; the id of the first. `taken` gets all."""
        first = last = self._submit(script)
        taken.append(first)
        for _ in range(self.profile.chain - 1):
            following = self._submit(script, *self.after(last))
            taken.append(following)
            filesystem.append_line(journal, f"continued {last} {following} 0")
            last = following
        return first

    def _submit(self, script: Path, *more: str) -> str:
        # By its plain name alone: Torque's commands on Slurm paste what they are given into a line of a shell.
        found = run([*self.submit_command, *more, script.name], folder=script.parent)
        said = found.stdout.strip().splitlines()
        if found.returncode or not said:
            words = " ".join((found.stderr or found.stdout).split()) or "it gave no reason"
            error = BackendSilent if any(sign in words for sign in self.silence) else InputError
            raise error(f"{self.submit_command[0]} did not take {script}: {words.rstrip('.')}.")
        return said[-1].strip().partition(";")[0]  # Slurm puts the cluster behind it where there are several


def run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A scheduler's command; InputError where it is not installed here, BackendSilent where it hangs."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(TASTE)} | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=ANSWER_S, cwd=folder, env=plain
        )
    except FileNotFoundError:
        raise _not_here(command[0]) from None
    except subprocess.TimeoutExpired:
        raise BackendSilent(f"{command[0]} did not answer within {ANSWER_S:.0f} s; try again later.") from None


def _not_here(command: str) -> InputError:
    return InputError(
        f"{command} is not on this machine: submit from a login node of the cluster, or take --dry-run to get the job "
        "scripts."
    )


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _journal(log: Path) -> Path:
    return log.with_suffix(".journal").absolute()


def _id(job: str, journal: Path) -> str:
    return f"{journal}@{job}"
