"""What batch schedulers share: a job is a script beside its log, with one command to submit it and one to ask about it.

Each script keeps a journal beside its log (`journal.py`). Directives, commands and states are in `slurm.py` and
`pbs.py`; the text of a script is in `job_script.py` and `templates/`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modtrain.errors import BackendSilent, InputError, ModtrainError
from modtrain.scheduling.backends.base import Array, BackendOptions, Job, JobState
from modtrain.scheduling.backends.journal import Journal
from modtrain.scheduling.job_script import Script, render
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import GIVEN_GPUS
from modtrain.storage.layout import JOURNAL_SUFFIX

log = logging.getLogger(__name__)

CANCEL_S = 90.0
"""Longest wait for a cancelled job to end: sites allow 30 s between SIGTERM and SIGKILL."""
JOURNAL_S = 10.0
"""Longest wait after that for the last line of its journal."""
COMMAND_S = 60.0
"""Longest wait for an answer of the scheduler."""
USER_VARIABLES = ("SQUEUE_", "SCANCEL_", "SBATCH_", "SLURM_TIME_FORMAT", "SLURM_CLUSTERS", "SLURM_ARRAY_", "PBS_ARRAY")
"""Prefixes of variables with which a user, or a job in which a launch runs, changes what a scheduler's commands do."""
OTHER_VARIABLES = ("PBS_DPREFIX", "PBS_JOBID", "MODTRAIN_INDEX", "MODTRAIN_LEAVE_AFTER")
"""Further ones, which would be passed on to the job or have its directives ignored."""


class BatchBackend:
    """A scheduler by its commands. The id of a job is `<journal>@<scheduler's id>`."""

    unattended = True
    marker: str
    """Prefix of a directive in a script."""
    template: str
    submit_command: tuple[str, ...]
    cancel_command: tuple[str, ...]
    unreachable: tuple[str, ...]
    """Parts of the submitting command's message where it cannot reach its server."""
    after_options: tuple[str, ...]
    """Of the submitting command, which replace a script's own dependency: the job waits for the end of job `{}`."""
    server_variables: tuple[str, ...] = ()
    """Variables that choose a server, which a job has to choose as well."""
    id_line: re.Pattern[str]
    """The line with the id of a submitted job (its first group): a site's wrapper may print others."""
    array_option: str
    """Of a directive that makes a script an array."""

    def __init__(self, options: BackendOptions) -> None:
        """Check the options; the scheduler is not asked yet. InputError for what no batch scheduler takes."""
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
        """Value of `--backend`."""
        return self.template.partition(".")[0]

    def directives(self, job: Job) -> Iterator[str]:
        """Directives of a job or of each task of an array, without the marker."""
        raise NotImplementedError

    def query(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """States of the jobs with these scheduler's ids, by one call; those that it does not know are left out."""
        raise NotImplementedError

    def submit_options(self, script: Path) -> tuple[str, ...]:
        """Options of the submitting command for a script at this path."""
        return ()

    def kept_variables(self, script: Path) -> Sequence[str]:
        """Those of `USER_VARIABLES` that the submitting command may see."""
        return ()

    def explain(self, journal: Journal, state: JobState) -> JobState:
        """The state with a reason that the scheduler does not give."""
        return state

    def cancelled_by(self, id: str) -> list[str]:
        """Arguments of the cancelling command that end a job and every job that continues it."""
        return Journal(id).links

    def check(self, device: str) -> None:
        """InputError where the submitting command is missing or the site's template is wrong."""
        sample = Job(name="sample", command=("true",), log=Path("/sample.log"))
        render(self._script(sample), self.template)
        if shutil.which(self.submit_command[0]) is None:
            raise missing_command(self.submit_command[0])

    def cores(self, jobs: int) -> int:
        """Cores of each worker as the profile sets them, else 1."""
        return self.profile.cpus or 1

    def scripts(self, jobs: Sequence[Job]) -> list[Path]:
        return [self._write(self._script(job)) for job in jobs]

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        """All or none; InputError with the scheduler's message where it refuses one."""
        ids: list[str] = []
        submitted: list[str] = []
        try:
            for job, script in zip(jobs, self.scripts(jobs), strict=True):
                ids.append(_id(self._submit_chain(script, _journal(job.log), submitted), _journal(job.log)))
        except BaseException:
            self._withdraw(submitted)
            raise
        return ids

    def arrays(self, array: Array) -> list[Path]:
        return [self._write(script) for script in self._array_scripts(array)]

    def submit_array(self, array: Array) -> dict[int, str]:
        """Submit an array; the id of each task that was accepted, as a site may limit how many jobs are queued.

        InputError where the scheduler refuses the first part.
        """
        ids: dict[int, str] = {}
        submitted: list[str] = []
        for script in self._array_scripts(array):
            # A limit of running tasks counts within one array, so each further array waits for the end of the last one.
            try:
                after = self._after(submitted[-1]) if submitted and array.max_running else []
                submitted.append(self._submit(self._write(script), *after))
            except ModtrainError as error:
                if not ids:
                    raise
                log.warning("Submitted %d of %d tasks; submit the rest later. %s", len(ids), len(array.tasks), error)
                return ids
            except BaseException:
                self._withdraw(submitted)
                raise
            ids |= _task_ids(script, submitted[-1])
        return ids

    def _withdraw(self, submitted: Sequence[str]) -> None:
        """Cancel jobs of which no record exists yet, while the reason is raised: a failure is only logged."""
        if not submitted:
            return
        try:
            answer = run([*self.cancel_command, *submitted])
            problem = one_line(answer.stderr) or f"exit code {answer.returncode}" if answer.returncode else ""
        except ModtrainError as error:
            problem = str(error)
        if problem:
            ids, command = " ".join(submitted), self.cancel_command[0]
            log.warning("Jobs may still be queued: `%s %s` failed: %s", command, ids, problem)

    def status(self, ids: Sequence[str]) -> dict[str, JobState]:
        """The state of each job or of the one that continues it; how it ended is read from its journal."""
        queried: dict[str, None] = {}
        states: Mapping[str, JobState] = {}
        while True:
            journals = {id: Journal(id) for id in dict.fromkeys(ids)}
            links = dict.fromkeys(link for journal in journals.values() for link in journal.links)
            if links.keys() <= queried.keys():  # no job was continued in another one since the query
                return {id: self.explain(journal, journal.state(states)) for id, journal in journals.items()}
            queried, states = links, self.query(list(links))

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel the jobs, including those that were submitted meanwhile to continue them, and wait for their end.

        BackendSilent with the words of the scheduler where they do not end.
        """
        cancelled: set[str] = set()
        live: dict[str, JobState] = {}
        words = ""

        def all_gone() -> bool | None:
            nonlocal live, words
            live = {id: state for id, state in self.status(ids).items() if state.live}
            # A job that is pending again was just being requeued by its own script: cancel it once more.
            again = {arg for id, state in live.items() if state.phase == "pending" for arg in self.cancelled_by(id)}
            new = [arg for id in live for arg in self.cancelled_by(id) if arg in again or arg not in cancelled]
            if new:
                cancelled.update(new)
                words = one_line(run([*self.cancel_command, *dict.fromkeys(new)]).stderr) or words
            return None if live else True

        if filesystem.wait_until(all_gone, timeout_s=CANCEL_S) is None:
            jobs = ", ".join(link for id in live for link in Journal(id).links[-1:])
            said = f" It said: {words.rstrip('.')}." if words else ""
            command = self.cancel_command[0]
            raise BackendSilent(f"After {CANCEL_S:.0f} s {command} has not ended {jobs}.{said} Try again later.")
        if cancelled:  # some schedulers report a job as completed while its processes still run
            filesystem.wait_until(lambda: all(Journal(id).closed for id in ids) or None, timeout_s=JOURNAL_S)

    def _script(self, job: Job) -> Script:
        path = job.log.with_suffix(".sh")
        program = shutil.which(self.submit_command[0])
        return Script(
            about=f"{job.name}: one worker of a modtrain run.",
            submit=f"cd {shlex.quote(str(path.parent))} && {shlex.join(self._submission(path))}",
            path=path,
            log=job.log,
            journal=_journal(job.log),
            marker=self.marker,
            directives=[*_without(self.directives(job), self.profile.leave_out), *self.profile.directives],
            command=[self.profile.python or job.command[0], *job.command[1:]],
            environment={**job.environment, **self._own_variables()},
            tools=Path(program).parent if program else None,
            umask=f"{_umask():04o}",
            profile=self.profile,
        )

    def _own_variables(self) -> dict[str, str]:
        """Variables by which a job finds the server of this process, and knows how many GPUs it was given."""
        server = {name: os.environ[name] for name in self.server_variables if name in os.environ}
        return server | ({GIVEN_GPUS: str(self.profile.gpus)} if self.profile.gpus else {})

    def _array_scripts(self, array: Array) -> Iterator[Script]:
        if self.profile.chain > 1:
            raise InputError("--chain is not for arrays; take --array-limit 0, which submits plain jobs.")
        size = self.profile.array_limit // array.group_size * array.group_size
        existing = sum(1 for name in filesystem.names(array.log) if name.endswith(".sh"))
        about = f"{array.name}: tasks of a modtrain sweep, each one worker of one of its trials."
        for part, start in enumerate(range(0, len(array.tasks), size)):
            tasks = array.tasks[start : start + size]
            script = self._script(replace(array, log=array.log / f"array-{existing + part}.log"))
            limit = f"%{array.max_running}" if array.max_running else ""
            directive = [f"{self.array_option}0-{len(tasks) - 1}{limit}"] if len(tasks) > 1 else []
            directives = [*script.directives, *directive]
            yield replace(script, about=about, directives=directives, tasks=tasks, log=array.log)

    def _after(self, id: str) -> list[str]:
        return [option.format(id) for option in self.after_options]

    def _write(self, script: Script) -> Path:
        script.path.parent.mkdir(parents=True, exist_ok=True)
        filesystem.replace_file(script.path, render(script, self.template).encode())
        return script.path

    def _submit_chain(self, script: Path, journal: Path, submitted: list[str]) -> str:
        """Submit a job and the profile's `chain` after it; the id of the first. All ids are added to `submitted`."""
        first = last = self._submit(script)
        submitted.append(first)
        for _ in range(self.profile.chain - 1):
            following = self._submit(script, *self._after(last))
            submitted.append(following)
            filesystem.append_line(journal, f"continued {last} {following} 0")
            last = following
        return first

    def _submission(self, script: Path, *options: str) -> list[str]:
        """The command, by the script's name alone: Torque's commands on Slurm paste it into a line of a shell."""
        return [*self.submit_command, *self.submit_options(script), *options, script.name]

    def _submit(self, script: Path, *options: str) -> str:
        """Submit a script and return the scheduler's id."""
        answer = run(self._submission(script, *options), folder=script.parent, keep=self.kept_variables(script))
        if answer.returncode or not (answer.stdout + answer.stderr).strip():
            message = one_line(answer.stderr or answer.stdout) or "it gave no reason"
            error = BackendSilent if any(part in message for part in self.unreachable) else InputError
            raise error(f"{self.submit_command[0]} refused {script}: {message.rstrip('.')}.")
        ids = [id for line in answer.stdout.splitlines() if (id := self.id_line.fullmatch(line.strip()))]
        if len(ids) != 1:
            said = " ".join((answer.stdout + answer.stderr).split())
            raise InputError(
                f"{self.submit_command[0]} did not answer with the id of a job, but with {said!r}. The job may be "
                f"queued: remove it, and put the scheduler's own {self.submit_command[0]} first in PATH."
            )
        return ids[0][1]


def run(
    command: Sequence[str], folder: Path | None = None, keep: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a scheduler's command in `folder`, whatever its exit code, without the user's variables except `keep`.

    InputError where it is not installed here, BackendSilent where it does not return within `COMMAND_S`.
    """
    left_out = {name for name in os.environ if name.startswith(USER_VARIABLES) or name in OTHER_VARIABLES}
    environment = {name: value for name, value in os.environ.items() if name not in left_out or name in keep}
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_S,
            cwd=folder,
            env=environment | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise missing_command(command[0]) from None
    except subprocess.TimeoutExpired:
        raise BackendSilent(f"{command[0]} did not answer within {COMMAND_S:.0f} s; try again later.") from None


def one_line(text: str) -> str:
    """Words of a command as one line; what it repeats, as for each of several jobs, appears once."""
    return " ".join(dict.fromkeys(" ".join(line.split()) for line in text.splitlines() if line.strip()))


def missing_command(command: str, options: str = "") -> InputError:
    """The error for a scheduler's command that this machine does not have."""
    return InputError(
        f"{command} is not on this machine: submit from a login node of the cluster, or add --dry-run{options} to "
        "write the job scripts only."
    )


def job_name(name: str, folder: Path, max_length: int) -> str:
    """A name that every scheduler accepts: letters, digits and `._-`, and a hash that makes it unique to `folder`."""
    mark = hashlib.sha256(f"{folder}\0{name}".encode()).hexdigest()[:4]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")
    plain = plain if plain[:1].isalpha() else f"m{plain}"
    return f"{plain[: max_length - 5]}-{mark}"


def _without(directives: Iterable[str], left_out: Sequence[str]) -> list[str]:
    """The directives that do not begin with an entry of `left_out` (`--mem`, `-l walltime`), compared word by word."""

    def words(text: str) -> list[str]:
        return [word for word in re.split(r"[\s=]+", text) if word]

    prefixes = [words(entry) for entry in left_out]
    return [line for line in directives if not any(words(line)[: len(prefix)] == prefix for prefix in prefixes)]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _task_ids(script: Script, id: str) -> dict[int, str]:
    """The id of each task of a submitted array: `8812_3` of Slurm, `1234[3].server` of the array `1234[].server`.

    A single task is a plain job.
    """
    ids = {}
    for index, task in enumerate(script.tasks):
        own = id if len(script.tasks) == 1 else id.replace("[]", f"[{index}]") if "[]" in id else f"{id}_{index}"
        ids[task] = _id(own, _journal(script.log / f"{task}.log"))
    return ids


def _journal(log: Path) -> Path:
    return log.with_suffix(JOURNAL_SUFFIX).absolute()


def _id(job: str, journal: Path) -> str:
    return f"{journal}@{job}"
