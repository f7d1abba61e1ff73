"""qstat: the states of jobs in PBS Pro's layouts: one line a job, or all attributes (`-f`).

An unknown job is an error on stderr and in the exit code; the others are shown. A finished job is shown only with `-x`,
the subjobs of an array only with `-t`.
"""

from __future__ import annotations

import getopt
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .cluster import HOST, ID_FORM, SERVER, Cluster, Job, Refused, State, Task, full, locked, not_simulated
from .request import clock
from .scheduling import vnodes

WIDTH = 78
Row = tuple[Job, str]
"""A job or an array (with the index ""), or one subjob."""


def main(home: Path, arguments: list[str]) -> None:
    """Print the jobs; the exit code is that of the last job that could not be shown."""
    try:
        pairs, identifiers = getopt.gnu_getopt(arguments, "fxtw")
    except getopt.GetoptError as error:
        raise not_simulated(f"qstat -{error.opt[:1]}") from error
    options = {option[1] for option, _ in pairs}
    has_history = Cluster.load(home).history
    if "x" in options and not has_history:
        sys.stderr.write("qstat: PBS is not configured to maintain job history\n" * len(identifiers or [""]))
        return
    with locked(home) as state:
        rows, errors = _rows(state, options, identifiers, has_history)
    sys.stdout.write("".join(_full(row, wide="w" in options) for row in rows) if "f" in options else _list(rows))
    sys.stdout.flush()
    for refusal in errors:
        sys.stderr.write(f"qstat: {refusal}\n")
    sys.exit(errors[-1].code if errors else 0)


def _rows(
    state: State, options: set[str], identifiers: list[str], has_history: bool
) -> tuple[list[Row], list[Refused]]:
    rows: list[Row] = []
    errors: list[Refused] = []
    for identifier in identifiers or [job.id() for job in state.jobs.values() if "x" in options or not job.over]:
        try:
            rows += _named(state, identifier, options, has_history)
        except Refused as error:
            errors.append(error)
    return rows, errors


def _named(state: State, identifier: str, options: set[str], has_history: bool) -> list[Row]:
    if not ID_FORM.fullmatch(identifier):
        raise Refused(f"Unknown queue {identifier}", 170)
    job, indices = state.find(identifier)
    if job.over and not has_history:
        raise Refused(f"Unknown Job Id {full(identifier)}", 153)
    if job.over and "x" not in options:
        reason = "Job has finished, use -x or -H to obtain historical job information"
        raise Refused(f"{full(identifier)} {reason}", 35)
    if indices:
        return [(job, index) for index in indices]
    return [(job, ""), *((job, index) for index in job.tasks if "t" in options and job.array)]


def _list(rows: list[Row]) -> str:
    head = f"{'Job id':17} {'Name':16} S Queue\n{'-' * 16}  {'-' * 16} - -----\n"
    lines = [f"{job.id(index):17} {job.name[:16]:16} {job.state(index)} {job.queue}\n" for job, index in rows]
    return head + "".join(lines) if rows else ""


def _full(row: Row, *, wide: bool) -> str:
    lines = [f"    {name} = {value}" for name, value in attributes(*row)]
    return "\n".join([f"Job Id: {row[0].id(row[1])}", *(lines if wide else map(_folded, lines))]) + "\n\n"


def _folded(line: str) -> str:
    """An attribute in lines of at most 79 columns; the next ones start with a tab."""
    pieces = [line[:WIDTH], *(line[start : start + WIDTH - 8] for start in range(WIDTH, len(line), WIDTH - 8))]
    return "\n\t".join(pieces)


def attributes(job: Job, index: str) -> Iterator[tuple[str, str]]:
    """The attributes of a job, of an array (index ""), or of a subjob, in PBS Pro's order."""
    task = job.tasks[index] if index or not job.array else None
    yield "Job_Name", job.name
    yield "job_state", job.state(index)
    yield "queue", job.queue
    yield "server", SERVER
    yield from job.attributes.items()
    if task and task.places:
        yield from _places(task)
    if job.waiting:
        yield "depend", ",".join(":".join([kind, *(f"{other}@{SERVER}" for other in ids)]) for kind, *ids in job.depend)
    yield "Hold_Types", "s" if job.waiting else "u" if job.user_hold else "n"
    yield "Join_Path", "oe" if job.joined else "n"
    yield "Output_Path", f"{HOST}:{job.output or job.directory}"
    yield "Rerunable", str(job.rerunable)
    yield from ((f"Resource_List.{name}", value) for name, value in sorted(job.resources.items()))
    yield "Variable_List", ",".join(f"{name}={value}" for name, value in job.variables.items())
    if comment := job.comment or (task.comment if task else ""):
        yield "comment", comment
    if task and task.run_count:
        yield "run_count", str(task.run_count)
    status = task.exit_status if task else job.exit_status if job.over else None
    if status is not None:
        yield "Exit_status", str(status)
    if job.array and not index:
        yield "array", "True"
        yield "array_indices_submitted", job.range
        yield "max_run_subjobs", str(job.limit or "")
    yield "project", job.project


def _places(task: Task) -> Iterator[tuple[str, str]]:
    until = task.ended_s if task.over else time.time()
    yield "resources_used.walltime", clock(max(until - task.started_s, 0))
    yield "exec_host", "+".join(f"{node}/{slot}*{ncpus}" for slot, (node, ncpus, _) in enumerate(task.places))
    yield "exec_vnode", vnodes(task.places)
