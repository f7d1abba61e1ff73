"""Jobs of Slurm, by `sbatch`, `squeue` and `scancel`.

Deliberately not here: `sacct`, which many sites do not have; how a job ended stands in its journal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from modtrain.errors import BackendSilent, Preempted
from modtrain.scheduling.backends.base import JobState, Phase, Resources
from modtrain.scheduling.backends.batch import BatchBackend, run
from modtrain.scheduling.job_script import job_name

LONGEST_NAME = 120
PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REVOKED",
        "TIMEOUT",
    }
)
"""Every other state (RUNNING, COMPLETING, SUSPENDED, ...) is a job that still has processes."""
TAKEN_AWAY = frozenset({"BOOT_FAIL", "CANCELLED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"})
"""Ends that are no fault of the worker: it can go on, whether or not it had the time to say how it ended."""


class SlurmBackend(BatchBackend):
    """One job a worker. A job that leaves before its time limit is requeued by its own script."""

    marker = "#SBATCH"
    template = "slurm.sh.j2"
    submit_command = ("sbatch", "--parsable")
    cancel_command = ("scancel",)
    silence = ("Unable to contact slurm controller", "Socket timed out")

    def directives(self, name: str, log: Path, resources: Resources, *, alone: bool) -> Iterator[str]:
        """Of one worker. A second job of the same name waits for the end of the first (singleton)."""
        profile = self.profile
        yield f"--job-name={job_name(name, log.parent, LONGEST_NAME)}"
        yield f"--output={_file(log)}"
        yield "--open-mode=append"
        yield "--nodes=1"
        yield "--ntasks=1"
        yield f"--cpus-per-task={resources.cpus}"
        yield "--requeue"
        first = profile.dependency or ""
        waits = [*(["singleton"] if alone and "?" not in first else []), *([first] if first else [])]  # ?: one of them
        for option, value in {
            "--dependency": ",".join(waits) or None,
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
        if profile.limit_s is None:  # else the script knows its deadline
            yield f"--signal=B:USR2@{min(int(profile.publish_before_s), 65535)}"

    def array_directive(self, last: int, at_once: int | None) -> str:
        """`--array=0-15%4`."""
        return f"--array=0-{last}" + (f"%{at_once}" if at_once else "")

    def task_id(self, id: str, index: int) -> str:
        """`8812_3`."""
        return f"{id}_{index}"

    def after(self, id: str) -> list[str]:
        """`--dependency=afterany:8812`, over the script's own."""
        return [f"--dependency=afterany:{id}"]

    def ask(self, ids: Sequence[str]) -> dict[str, JobState]:
        """One `squeue` for all jobs of this user."""
        found = run(["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%N|%r"])
        if found.returncode:
            raise BackendSilent(f"squeue does not answer: {' '.join(found.stderr.split())}")
        states = {}
        wanted = set(ids)
        for line in found.stdout.splitlines():
            id, state, nodes, reason = line.strip().split("|", 3)
            if id in wanted:
                phase: Phase = "pending" if state in PENDING else "ended" if state in ENDED else "running"
                code = 0 if state == "COMPLETED" else Preempted.exit_code if state in TAKEN_AWAY else None
                states[id] = JobState(phase=phase, exit_code=code, why=nodes or reason)
        return states


def _file(path: Path) -> str:
    """A path as a directive takes it: Slurm expands `%` (not beside a backslash) and reads quotes.

    A line break cannot be told; the script writes to its log by itself, so what comes before that is lost.
    """
    text = str(path) if str(path).isprintable() else "/dev/null"
    literal = text.replace("\\", "\\\\") if "\\" in text else text.replace("%", "%%")
    return _quoted(literal)


def _word(text: str) -> str:
    """A value as a directive takes it: a `#` would begin a comment."""
    return _quoted(text) if re.search(r"[\s\"'\\#]", text) else text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


backend = SlurmBackend
"""What `--backend slurm` means."""
