"""Jobs of PBS, by `qsub`, `qstat` and `qdel`, in two dialects: PBS Pro (OpenPBS) and Torque.

The server's job history is not needed: the exit code of a job is in its journal, and a job that `qstat` calls unknown
or finished is over. Any other answer without a job that was asked for is no answer.
"""

from __future__ import annotations

import functools
import math
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modtrain.errors import BackendSilent, InputError
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState, Resources
from modtrain.scheduling.backends.batch import BatchBackend, job_name, missing_command, one_line, run
from modtrain.scheduling.backends.journal import Journal
from modtrain.storage import filesystem
from modtrain.storage.run_snapshot import JobPhase

MAX_NAME_LENGTH = {"pbspro": 200, "torque": 15}
RUNNING, ENDED = "BRESU", "FXC"
"""Letters of `job_state`: F finished in any way, X an ended task, C Torque's completed. Every other one is pending."""
UNKNOWN, FINISHED = 153, 35
"""Exit codes of qstat where one of the jobs is unknown or finished; it prints the others all the same."""
GONE = re.compile(r"unknown job ?id|job has finished", re.IGNORECASE)
"""What it says about each of them."""
NO_HISTORY = "not configured to maintain job history"
"""What it says, with exit code 0 and no jobs, to option -x where the server has `job_history_enable` off."""
DISCARD_OUTPUT = ("-j", "oe", "-o", "/dev/null")
"""Options of qsub for a script in a folder whose name PBS cannot read; Torque's commands on Slurm need them here."""
TASK = re.compile(r"(\d+)_\d+")
"""Our id of an array's task with Torque's commands on Slurm, which know only the array's id."""


class PbsBackend(BatchBackend):
    """One job per worker. A job that leaves before its time limit submits its successor."""

    marker = "#PBS"
    template = "pbs.sh.j2"
    submit_command = ("qsub",)
    cancel_command = ("qdel",)
    unreachable = ("annot connect to", "ommunication failure", "Unable to contact")
    after_options = ("-W", "depend=afterany:{}")
    server_variables = ("PBS_DEFAULT", "PBS_SERVER")
    id_line = re.compile(r"([0-9]+(?:\[\])?(?:\.[A-Za-z0-9._-]+)?)")

    def __init__(self, options: BackendOptions) -> None:
        """InputError for job options that this dialect does not have."""
        super().__init__(options)
        self.dialect = self.profile.dialect or detect_dialect(shutil.which("qsub"))
        self.array_option = "-J " if self.dialect == "pbspro" else "-t "
        if self.profile.exclude:
            raise InputError("PBS cannot exclude nodes: leave out `exclude`, or request a feature with `constraint`.")
        if self.profile.qos and self.dialect == "pbspro":
            raise InputError(
                "PBS Pro has no quality of service: leave out `qos`, or name a `queue`. Where the site has defined a "
                f"resource called qos, use --directive='-l qos={self.profile.qos}'."
            )

    def directives(self, job: Job) -> Iterator[str]:
        """Of one worker. Its script opens the log by itself, as PBS does not accept every file name."""
        profile = self.profile
        yield f"-N {job_name(job.name, job.log.parent, MAX_NAME_LENGTH[self.dialect])}"
        yield "-j oe"
        yield f"-o {_file(job.log)}"
        yield "-r y"
        yield f"-l {self._resources(job.resources)}"
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

    def submit_options(self, script: Path) -> tuple[str, ...]:
        """For a path that PBS cannot read the output before the script opens its log is discarded."""
        return () if _plain(script) else DISCARD_OUTPUT

    def _resources(self, resources: Resources) -> str:
        """One node with its cores, GPUs and memory, in the syntax of the dialect."""
        profile, feature = self.profile, self.profile.constraint
        memory = f"mem={math.ceil(profile.memory_gb * 1024)}mb" if profile.memory_gb else None
        gpus = f"gpus={profile.gpus}" if profile.gpus else None
        if self.dialect == "torque":
            nodes = ":".join(filter(None, ["nodes=1", f"ppn={resources.cpus}", gpus, feature]))
            return ",".join(filter(None, [nodes, memory]))
        feature = f"{feature}=True" if feature and "=" not in feature else feature
        return ":".join(filter(None, ["select=1", f"ncpus={resources.cpus}", memory, gpus and f"n{gpus}", feature]))

    def cancelled_by(self, id: str) -> list[str]:
        """Torque's commands on Slurm can only cancel a whole array; a job that continues a task has its own id."""
        task = TASK.fullmatch(id.rpartition("@")[2])
        links = super().cancelled_by(id)
        return [task[1], *links[1:]] if task else links

    def explain(self, journal: Journal, state: JobState) -> JobState:
        """A job that ended before it began says on which jobs it depended."""
        is_begun = state.live or journal.has_begun or not journal.links
        if is_begun or (dependency := _dependency(journal.path)) is None:
            return state
        words = f" ({state.reason.rstrip('.')})" if state.reason else ""
        why = f"its job ended before it began{words}; what it depends on, {dependency}, is unknown or has failed"
        return replace(state, reason=why)

    def query(self, ids: Sequence[str]) -> dict[str, JobState]:
        """States by one `qstat` for all jobs; it reports each unknown job on stderr and prints the others."""
        arrays = {id: task[1] for id in ids if (task := TASK.fullmatch(id))}
        jobs = [arrays.get(id, id) for id in ids]
        if self.dialect == "pbspro":
            jobs = [re.sub(r"\[\d+\]", "[]", id) for id in jobs]
        states = self._ask(list(dict.fromkeys(jobs)))
        return states | {id: states[array] for id, array in arrays.items() if array in states}

    def _ask(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """States of jobs and arrays, with the tasks of these; BackendSilent where some may be missing by mistake."""
        options = ["-x", "-t"] if self.dialect == "pbspro" else []  # -x: finished jobs, -t: the tasks of an array
        answer = run(["qstat", "-f", *options, *jobs])
        if NO_HISTORY in answer.stderr:
            answer = run(["qstat", "-f", *options[1:], *jobs])
        states = parse(answer.stdout)
        lines = answer.stderr.splitlines()
        gone = " ".join(line for line in lines if GONE.search(line))
        words = [line for line in lines if not GONE.search(line)]
        missing = [job for job in jobs if job not in states and job not in gone]
        if missing and (words or answer.returncode not in (0, UNKNOWN, FINISHED)):
            said = one_line("\n".join(words)) or one_line(answer.stdout) or f"exit code {answer.returncode}"
            raise BackendSilent(f"qstat does not answer: {said}")
        return states


@functools.cache
def detect_dialect(qsub: str | None) -> str:
    """The dialect of the `qsub` at this path, from its answer to `--version`; InputError where it is neither."""
    if qsub is None:
        raise missing_command("qsub", " and --dialect pbspro or --dialect torque")
    answer = run([qsub, "--version"])
    text = " ".join((answer.stdout + answer.stderr).split())
    if "pbs_version" in text:
        return "pbspro"
    # "Version: 6.1.2 Commit: ..." of Torque; its commands on Slurm do not know the option and print their usage.
    if re.match(r"version:? *\d", text, re.IGNORECASE) or "[-pe shm task_cnt]" in text:
        return "torque"
    raise InputError(
        f"Cannot tell the PBS dialect from `qsub --version` ({textwrap.shorten(text, 80) or 'no output'}): add "
        "--dialect pbspro or --dialect torque."
    )


def parse(text: str) -> dict[str, JobState]:
    """The jobs of `qstat -f`, by id."""
    states = {}
    for block in re.split(r"^Job Id:", _unfolded(text), flags=re.MULTILINE)[1:]:
        id, *lines = block.strip().splitlines()
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(" = ") for line in lines)}
        letter = fields.get("job_state", "Q")
        phase: JobPhase = "running" if letter in RUNNING else "ended" if letter in ENDED else "pending"
        code = fields.get("exit_status", "")
        has_code = phase == "ended" and code.lstrip("-").isdecimal()
        reason = fields.get("exec_host", "") if phase == "running" else fields.get("comment", "")
        reason = _hold(id.strip(), fields) if letter == "H" else reason
        states[id.strip()] = JobState(phase=phase, exit_code=_exit_code(int(code)) if has_code else None, reason=reason)
    return states


def _hold(id: str, fields: Mapping[str, str]) -> str:
    """Why a job is held: the server gives no comment."""
    if dependency := fields.get("depend"):
        return f"it waits for other jobs ({dependency})"
    holds = fields.get("hold_types", "")
    names = {"u": "you", "o": "an operator", "p": "an operator", "s": "the system"}
    by = next((name for letter, name in names.items() if letter in holds), "the server")
    release = f"; `qrls {id}` releases it" if by == "you" else ""
    comment = f" ({fields['comment']})" if fields.get("comment") else ""
    return f"it is held by {by} (Hold_Types = {holds}){comment}{release}"


def _dependency(journal: Path) -> str | None:
    """What the script of a job depends on."""
    lines = filesystem.read_lines(journal.with_suffix(".sh"))
    return next((line.partition("=")[2] for line in lines if line.startswith("#PBS -W depend=")), None)


def _unfolded(text: str) -> str:
    """Joins long values, continued on the next line after a tab. Torque's commands on Slurm begin fields with one."""
    return text.replace("\n\t", "") if re.search(r"^ +\S+ = ", text, re.MULTILINE) else text


def _exit_code(status: int) -> int | None:
    """From `Exit_status`: 256 + N is signal N; below 0 the server did not run the job to its end."""
    return None if status < 0 else 256 - status if status > 256 else status


def _clock(seconds: int) -> str:
    """HH:MM:SS; hours may exceed 24."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _file(log: Path) -> str:
    """File for output before the script opens its log, overwritten by PBS; discarded where PBS cannot read the path."""
    return str(log.with_suffix(".out")) if _plain(log) else "/dev/null"


def _plain(path: Path) -> bool:
    return re.fullmatch(r"[A-Za-z0-9/._+-]+", str(path)) is not None


backend = PbsBackend
"""Loaded by `--backend pbs`."""
