"""Jobs of PBS, by `qsub`, `qstat` and `qdel`, in two dialects: PBS Pro (OpenPBS) and Torque.

Deliberately not here: the history of a server. How a job ended stands in its journal.
"""

from __future__ import annotations

import functools
import math
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from modtrain.errors import BackendSilent, InputError
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState, Phase, Resources
from modtrain.scheduling.backends.batch import BatchBackend, run
from modtrain.scheduling.job_script import Script, job_name

LONGEST_NAME = {"pbspro": 200, "torque": 15}
RUNNING, ENDED = "BRESU", "FXC"
"""States: F is finished, however it ended, X a task that is over, C Torque's completed. Every other one is waiting."""
UNKNOWN, FINISHED = 153, 35
"""What qstat ends with where a job is not there, or not any more; it tells of the others all the same."""
NOWHERE = ("-j", "oe", "-o", "/dev/null")
"""Of qsub, for a script in a folder of an odd name. Torque's commands on Slurm heed no line of a script about this."""
TASK = re.compile(r"(\d+)_\d+")
"""A task of an array of Torque's commands on Slurm: they know it by the id of the whole."""


class PbsBackend(BatchBackend):
    """One job a worker. A job that leaves before its time limit submits its successor."""

    marker = "#PBS"
    template = "pbs.sh.j2"
    submit_command = ("qsub",)
    cancel_command = ("qdel",)
    silence = ("annot connect to", "ommunication failure", "Unable to contact")

    def __init__(self, options: BackendOptions) -> None:
        """InputError for what PBS cannot be asked."""
        super().__init__(options)
        self.dialect = self.profile.dialect or detected(shutil.which("qsub"))
        if self.profile.exclude:
            raise InputError("PBS cannot exclude nodes: leave `exclude` out, or ask for a feature with `constraint`.")
        if self.profile.qos and self.dialect == "pbspro":
            raise InputError(
                "PBS Pro has no quality of service: leave `qos` out, or ask for a `queue`; where the site has made a "
                f"resource of that name, take --directive='-l qos={self.profile.qos}'."
            )

    def directives(self, name: str, log: Path, resources: Resources, *, alone: bool) -> Iterator[str]:
        """Of one worker. What it prints goes to its log by the script itself: PBS takes no odd names."""
        profile = self.profile
        yield f"-N {job_name(name, log.parent, LONGEST_NAME[self.dialect])}"
        yield "-j oe"
        yield f"-o {_file(log)}"
        yield "-r y"
        yield f"-l {self._place(resources)}"
        if profile.walltime is not None:
            yield f"-l walltime={_clock(profile.limit_s or 0)}"
        # In PBS Pro a reservation is a queue; Torque's scheduler (Moab, Maui) takes it beside one.
        queue = profile.reservation if self.dialect == "pbspro" else None
        for option, value in {
            "-q ": queue or profile.queue,
            "-A ": profile.account,
            "-W depend=": profile.dependency,
            "-l qos=": profile.qos,
            "-l advres=": None if queue else profile.reservation,
            "-M ": profile.mail,
            "-m ": profile.mail_on or ("ae" if profile.mail else None),
        }.items():
            if value is not None:
                yield f"{option}{value}"

    def _script(self, job: Job, *, alone: bool = True) -> Script:
        script = super()._script(job, alone=alone)
        # Torque's commands on Slurm run what they are given as a line of a shell: no odd name is to be among it.
        odd = f"cd {shlex.quote(str(script.path.parent))} && {shlex.join(['qsub', *NOWHERE, script.path.name])}"
        return script if _plain(script.path) else replace(script, submit=odd)

    def _submit(self, script: Path, *more: str) -> str:
        return super()._submit(script, *(() if _plain(script) else NOWHERE), *more)

    def _place(self, resources: Resources) -> str:
        """One node with its cores, GPUs and memory, as each dialect spells it."""
        profile = self.profile
        if self.dialect == "pbspro":
            memory = f"mem={math.ceil(profile.memory_gb * 1024)}mb" if profile.memory_gb else None
            gpus = f"ngpus={profile.gpus}" if profile.gpus else None
            feature = f"{profile.constraint}=True" if profile.constraint and "=" not in profile.constraint else None
            parts = ["select=1", f"ncpus={resources.cpus}", memory, gpus, feature or profile.constraint]
            return ":".join(part for part in parts if part)
        gpus = f"gpus={profile.gpus}" if profile.gpus else None
        nodes = ":".join(part for part in ("nodes=1", f"ppn={resources.cpus}", gpus, profile.constraint) if part)
        return nodes + (f",mem={math.ceil(profile.memory_gb * 1024)}mb" if profile.memory_gb else "")

    def array_directive(self, last: int, at_once: int | None) -> str:
        """`-J 0-15%4` of PBS Pro, `-t 0-15%4` of Torque."""
        option = "-J" if self.dialect == "pbspro" else "-t"
        return f"{option} 0-{last}" + (f"%{at_once}" if at_once else "")

    def task_id(self, id: str, index: int) -> str:
        """`1234[3].server` of the array `1234[].server`; Torque's commands on Slurm say `1234` for the whole."""
        return id.replace("[]", f"[{index}]") if "[]" in id else f"{id}_{index}"

    def after(self, id: str) -> list[str]:
        """`-W depend=afterany:1234.server`, over the script's own."""
        return ["-W", f"depend=afterany:{id}"]

    def cancelled_by(self, id: str) -> list[str]:
        """Torque's commands on Slurm can only end an array as a whole; a job that goes on with a task is its own."""
        task = TASK.fullmatch(id.rpartition("@")[2])
        links = super().cancelled_by(id)
        return [task[1], *links[1:]] if task else links

    def ask(self, ids: Sequence[str]) -> dict[str, JobState]:
        """One `qstat` for all jobs. It complains about each that it does not know, and tells of the others."""
        whole = {id: task[1] for id in ids if (task := TASK.fullmatch(id))}
        asked = [whole.get(id, id) for id in ids]
        history = []
        if self.dialect == "pbspro":  # -t: the tasks of an array, too
            history, asked = ["-x", "-t"], [re.sub(r"\[\d+\]", "[]", id) for id in asked]
        found = run(["qstat", "-f", *history, *dict.fromkeys(asked)])
        if found.returncode not in (0, UNKNOWN, FINISHED):
            raise BackendSilent(f"qstat does not answer: {' '.join(found.stderr.split())}")
        states = parse(found.stdout)
        return states | {id: states[its] for id, its in whole.items() if its in states}


@functools.cache
def detected(qsub: str | None) -> str:
    """The dialect that a `qsub` speaks, by what it answers to `--version`."""
    if qsub is None:
        raise InputError(
            "qsub is not on this machine: submit from a login node of the cluster, or say which PBS it is for, "
            "--dialect pbspro or --dialect torque, and take --dry-run to get the job scripts."
        )
    said = run([qsub, "--version"])
    words = " ".join((said.stdout + said.stderr).split())
    if "pbs_version" in words:
        return "pbspro"
    # "Version: 6.1.2 Commit: ..." of Torque; its commands on Slurm do not know the option, and show how they are used.
    if re.match(r"version:? *\d", words, re.IGNORECASE) or "[-pe shm task_cnt]" in words:
        return "torque"
    raise InputError(
        f"qsub does not say which PBS it is of ({words[:80] or 'no word'}): give --dialect pbspro or --dialect torque."
    )


def parse(text: str) -> dict[str, JobState]:
    """The jobs of `qstat -f`, by id."""
    states = {}
    for block in re.split(r"^Job Id:", _unfolded(text), flags=re.MULTILINE)[1:]:
        id, *lines = block.strip().splitlines()
        told = {name.strip().lower(): value.strip() for name, _, value in (line.partition(" = ") for line in lines)}
        letter = told.get("job_state", "Q")
        phase: Phase = "running" if letter in RUNNING else "ended" if letter in ENDED else "pending"
        code = told.get("exit_status", "")
        over = phase == "ended" and code.lstrip("-").isdecimal()
        why = told.get("exec_host", "") if phase == "running" else told.get("comment", "")
        states[id.strip()] = JobState(phase=phase, exit_code=_exit_code(int(code)) if over else None, why=why)
    return states


def _unfolded(text: str) -> str:
    """Long values go on in the next line after a tab; Torque's commands on Slurm fold none and begin fields with it."""
    return text.replace("\n\t", "") if re.search(r"^ +\S+ = ", text, re.MULTILINE) else text


def _exit_code(status: int) -> int | None:
    """Of a job's shell: 256 and more is a signal, below 0 the server never ran it to an end."""
    return None if status < 0 else 256 - status if status > 256 else status


def _clock(seconds: int) -> str:
    """HH:MM:SS, hours beyond 24 included."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _file(log: Path) -> str:
    """Where PBS puts its own words, over what is there: beside the log, if the path is one that it can read."""
    return str(log.with_suffix(".out")) if _plain(log) else "/dev/null"


def _plain(path: Path) -> bool:
    return re.fullmatch(r"[A-Za-z0-9/._+-]+", str(path)) is not None


backend = PbsBackend
"""What `--backend pbs` means."""
