"""Jobs of Slurm, by `sbatch`, `squeue` and `scancel`.

`sacct` is not used, as many sites do not have it: the exit code of a job is in its journal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from modtrain.errors import BackendSilent, Preempted
from modtrain.scheduling.backends.base import Array, Job, JobState
from modtrain.scheduling.backends.batch import BatchBackend, job_name, one_line, run
from modtrain.storage.run_snapshot import JobPhase

MAX_NAME_LENGTH = 120
PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
EXTERNAL_ENDS = frozenset({"BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"})
"""Ends that the worker did not cause, so that it can be resumed."""
ENDED = EXTERNAL_ENDS | {"COMPLETED", "FAILED", "LAUNCH_FAILED", "OUT_OF_MEMORY", "RECONFIG_FAIL"}
"""In every other state (RUNNING, COMPLETING, SUSPENDED, ...) a job has processes."""
HEADER = "JOBID|"
"""Begin of the first line of squeue in our format; an answer without it is none, as a wrapper may print other lines."""


DEFAULTS = {
    "--account": "-A",
    "--partition": "-p",
    "--qos": "-q",
    "--constraint": "-C",
    "--reservation": "",
    "--wckey": "",
}
"""Options of sbatch that a user may set by variables, such as SBATCH_ACCOUNT, where a script has no such directive."""


class SlurmBackend(BatchBackend):
    """One job per worker. A job that leaves before its time limit is requeued by its own script."""

    marker = "#SBATCH"
    template = "slurm.sh.j2"
    submit_command = ("sbatch", "--parsable")
    cancel_command = ("scancel",)
    unreachable = (
        "Unable to contact slurm controller",
        "Socket timed out",
        "Could not establish a configuration source",
    )
    after_options = ("--dependency=afterany:{}",)
    id_line = re.compile(r"([0-9]+)(?:;\S+)?")  # with the name of the cluster where there are several
    array_option = "--array="

    def directives(self, job: Job) -> Iterator[str]:
        """Of one worker: a second job of the same name, unless it is a task, waits for the first (singleton)."""
        profile = self.profile
        yield f"--job-name={job_name(job.name, job.log.parent, MAX_NAME_LENGTH)}"
        yield f"--output={_file(job.log)}"
        yield "--open-mode=append"
        yield "--nodes=1"
        yield "--ntasks=1"
        yield f"--cpus-per-task={job.resources.cpus}"
        yield "--requeue"
        dependency = profile.dependency or ""
        # `?` separates alternatives, which cannot be combined with a further condition.
        singleton = ["singleton"] if not isinstance(job, Array) and "?" not in dependency else []
        for option, value in {
            "--dependency": ",".join([*singleton, *([dependency] if dependency else [])]) or None,
            "--partition": profile.queue,
            "--account": profile.account,
            "--qos": profile.qos,
            "--reservation": profile.reservation,
            "--time": profile.walltime,
            "--mem": None if profile.memory_gb is None else f"{math.ceil(profile.memory_gb * 1024)}M",
            "--gres": f"gpu:{profile.gpus}" if profile.gpus else None,
            "--constraint": profile.constraint,
            "--exclude": profile.exclude,
            "--mail-user": profile.mail,
            "--mail-type": profile.mail_on or ("END,FAIL" if profile.mail else None),
        }.items():
            if value is not None:
                yield f"{option}={_word(value)}"
        if profile.limit_s is None:  # else the script computes its deadline
            yield f"--signal=B:USR2@{min(int(profile.publish_before_s), 65535)}"

    def kept_variables(self, script: Path) -> Sequence[str]:
        """A user's defaults of what the script does not set; they would have priority over its directives."""
        directives = re.findall(r"^#SBATCH (--?[A-Za-z]+)", script.read_text(), re.MULTILINE)
        return [f"SBATCH_{long[2:].upper()}" for long, short in DEFAULTS.items() if not {long, short} & {*directives}]

    def query(self, ids: Sequence[str]) -> dict[str, JobState]:
        """States by one `squeue` for all jobs of this user."""
        answer = run(["squeue", "--me", "--array", "--states=all", "--format=%i|%T|%N|%r"])
        lines = [line.strip() for line in answer.stdout.splitlines()]
        if answer.returncode or not any(line.startswith(HEADER) for line in lines):
            raise BackendSilent(f"squeue does not answer: {one_line(answer.stderr or answer.stdout) or 'no output'}")
        states = {}
        wanted = set(ids)
        for id, state, nodes, reason in (line.split("|", 3) for line in lines if line.count("|") >= 3):
            if id in wanted:
                phase: JobPhase = "pending" if state in PENDING else "ended" if state in ENDED else "running"
                code = 0 if state == "COMPLETED" else Preempted.exit_code if state in EXTERNAL_ENDS else None
                states[id] = JobState(phase=phase, exit_code=code, reason=nodes or reason)
        return states


def _file(path: Path) -> str:
    """A path as the value of a directive: Slurm expands `%` (unless the path has a backslash) and reads quotes.

    A directive cannot hold a line break. The output is then discarded until the script opens its log by itself.
    """
    text = str(path) if str(path).isprintable() else "/dev/null"
    literal = text.replace("\\", "\\\\") if "\\" in text else text.replace("%", "%%")
    return _quoted(literal)


def _word(text: str) -> str:
    """A value of a directive: an unquoted `#` would begin a comment."""
    return _quoted(text) if re.search(r"[\s\"'\\#]", text) else text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


backend = SlurmBackend
"""Loaded by `--backend slurm`."""
