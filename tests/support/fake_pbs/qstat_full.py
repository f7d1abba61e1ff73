"""What `qstat -f` knows of a job: its attributes in PBS Pro's order, as text."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator

from .cluster import HOST, SERVER, Job, Task
from .rules import clock
from .scheduling import vnodes


def attributes(job: Job, index: str) -> list[tuple[str, str]]:
    """The attributes of a job, of an array (index ""), or of a subjob; times are in seconds since 1970."""
    task = job.tasks[index] if index or not job.array else None
    return [
        *_head(job, index, task),
        *_where(job, index, task),
        *((f"Resource_List.{name}", value) for name, value in sorted(job.resources.items())),
        *_tail(job, index, task),
    ]


def _head(job: Job, index: str, task: Task | None) -> Iterator[tuple[str, str]]:
    yield "Job_Name", job.name
    yield "Job_Owner", job.owner
    if task and task.run_count:
        until = task.ended_s if task.over else time.time()
        yield "resources_used.cpupercent", "0"
        yield "resources_used.cput", "00:00:00"
        yield "resources_used.mem", "0kb"
        yield "resources_used.ncpus", str(sum(ncpus for _, ncpus, _ in task.places))
        yield "resources_used.vmem", "0kb"
        yield "resources_used.walltime", clock(int(max(until - task.started_s, 0)))
    yield "job_state", job.state(index)
    yield "queue", job.queue
    yield "server", SERVER
    if "Account_Name" in job.attributes:
        yield "Account_Name", job.attributes["Account_Name"]
    yield "Checkpoint", job.attributes["Checkpoint"]
    yield "ctime", str(job.created_s)
    if job.depend and not job.over:
        yield "depend", ",".join(":".join([kind, *(f"{other}@{SERVER}" for other in ids)]) for kind, *ids in job.depend)


def _where(job: Job, index: str, task: Task | None) -> Iterator[tuple[str, str]]:
    yield "Error_Path", f"{HOST}:{job.error or _default(job, 'e', index)}"
    if task and task.run_count and task.places:
        hosts = [
            f"{node}/{slot}{f'*{ncpus}' if ncpus != 1 else ''}" for slot, (node, ncpus, _) in enumerate(task.places)
        ]
        yield "exec_host", "+".join(hosts)
        yield "exec_vnode", vnodes(task.places)
    yield "Hold_Types", "s" if job.waiting else "u" if job.user_hold else "n"
    for name in ("Join_Path", "Keep_Files", "Mail_Points", "Mail_Users"):
        if name in job.attributes:
            yield name, job.attributes[name]
    yield "mtime", str((task and (task.ended_s or task.started_s)) or job.created_s)
    yield "Output_Path", f"{HOST}:{job.output or _default(job, 'o', index)}"
    yield "Priority", job.attributes["Priority"]
    yield "qtime", str(job.created_s)
    yield "Rerunable", str(job.rerunable)


def _default(job: Job, kind: str, index: str) -> str:
    subjob = f".{index or '^array_index^'}" if job.array else ""
    return f"{job.directory}/{job.name}.{kind}{job.number}{subjob}"


def _tail(job: Job, index: str, task: Task | None) -> Iterator[tuple[str, str]]:
    if task and task.started_s:
        yield "stime", str(task.started_s)
    if task and task.session:
        yield "session_id", str(task.session)
    yield "substate", str(task.substate if task else 10)
    escaped = [f"{name}={value}".replace("\\", "\\\\").replace(",", "\\,") for name, value in job.variables.items()]
    yield "Variable_List", ",".join(escaped)
    comment = job.comment or (task.comment if task else "")
    if comment:
        yield "comment", comment
    yield "etime", str(job.created_s)
    yield "umask", f"{job.umask:o}"
    if task and task.run_count:
        yield "run_count", str(task.run_count)
    status = task.exit_status if task else job.exit_status if job.over else None
    if status is not None:
        yield "Exit_status", str(status)
    yield "Submit_arguments", shlex.join(job.arguments)
    if job.array and not index:
        yield from _array(job)
    if index:
        yield "array_id", job.id()
        yield "array_index", index
    yield "project", job.attributes["project"]


def _array(job: Job) -> Iterator[tuple[str, str]]:
    letters = [task.state for task in job.tasks.values()]
    counts = {"Queued": "QH", "Running": "R", "Exiting": "E", "Expired": "FX"}
    yield "array", "True"
    yield (
        "array_state_count",
        " ".join(f"{name}:{sum(map(kind.count, letters))}" for name, kind in counts.items()) + " ",
    )
    yield "array_indices_submitted", job.range
    remaining = ",".join(index for index, task in job.tasks.items() if task.state in "QH")
    yield "array_indices_remaining", remaining or "-"
    if job.limit is not None:
        yield "max_run_subjobs", str(job.limit)
