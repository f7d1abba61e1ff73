"""qsub: put a job into the queue, or refuse it with the error of the real qsub."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from .cluster import HOST, SERVER, Cluster, Job, Refused, State, Task, locked
from .request import USAGE, Request, Usage, array, dependencies, resources, seconds, variables
from .scheduling import schedule

PASSED_ON = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TZ")
ATTRIBUTES = {"A": "Account_Name", "m": "Mail_Points", "M": "Mail_Users"}
"""Options that are shown as attributes of a job, by their letters."""


def main(home: Path, arguments: list[str]) -> None:
    """Submit a job and print its id."""
    try:
        _submit(home, arguments)
    except Usage as error:
        raise Refused(f"{error}\n{USAGE}", 2) from error


def _submit(home: Path, arguments: list[str]) -> None:
    request = Request()
    rest = request.take(arguments, script=False)
    if len(rest) > 1:
        raise Usage("one script only")
    name, script = _script(rest[0] if rest else "-")
    request.read(script)
    request.options.setdefault("N", name)
    cluster = Cluster.load(home)
    job = _job(request, cluster)
    if not cluster.flatuid and os.environ.get("PBS_ENVIRONMENT") == "PBS_BATCH":
        raise Refused("Bad UID for job execution", 175)
    with locked(home) as state:
        _register(state, job)
        copy = home / "spool" / f"{job.number}.SC"
        copy.write_text(script)
        copy.chmod(0o700)
        schedule(home, state)
    sys.stdout.write(f"{job.id()}\n")


def _script(path: str) -> tuple[str, str]:
    """Default name of the job, and the text of its script."""
    if path == "-":
        return "STDIN", sys.stdin.read()
    try:
        return Path(path).name, Path(path).read_text()
    except OSError as error:
        raise Refused(f"script file:: {error.strerror}", 1) from error


def _job(request: Request, cluster: Cluster) -> Job:
    asked = request.options
    request.check(cluster)
    indices, limit = array(asked["J"]) if "J" in asked else ([], None)
    queue = asked.get("q", cluster.queues[0])
    default = {"walltime": cluster.limits[queue]} if queue in cluster.limits else {}
    chunks, listed = resources(default | request.resources, cluster)
    return Job(
        number=0,
        name=asked["N"],
        queue=queue,
        attributes={name: asked[letter] for letter, name in ATTRIBUTES.items() if letter in asked},
        project=asked.get("P", "_pbs_project_default"),
        joined=asked.get("j") == "oe",
        resources=listed,
        chunks=chunks,
        walltime_s=seconds(listed["walltime"]) if "walltime" in listed else None,
        variables=_variables(asked),
        directory=str(Path.cwd()),
        output=str(Path.cwd() / asked["o"]) if "o" in asked else "",
        shell=asked.get("S", ""),
        rerunable=asked.get("r", "y") == "y",
        depend=dependencies(asked["W"]) if "W" in asked else [],
        created_s=time.time(),
        range=asked.get("J", "").partition("%")[0],
        limit=limit,
        user_hold="h" in asked,
        tasks={str(index): Task() for index in indices} or {"": Task()},
    )


def _variables(asked: dict[str, str]) -> dict[str, str]:
    """Variables that qsub sends: some of the caller's under other names, and those of -v."""
    own = {f"PBS_O_{name}": os.environ[name] for name in PASSED_ON if name in os.environ}
    own |= {"PBS_O_WORKDIR": str(Path.cwd()), "PBS_O_SYSTEM": "Linux", "PBS_O_HOST": HOST}
    return own | (variables(asked["v"], os.environ) if "v" in asked else {})


def _register(state: State, job: Job) -> None:
    """Number the job, and hold it if it depends on others."""
    job.number = state.next
    state.next += 1
    job.depend = [[kind, *(_full(other) for other in others)] for kind, *others in job.depend]
    job.waiting = bool(job.depend)
    state.jobs[job.number] = job


def _full(identifier: str) -> str:
    return identifier if identifier.endswith(f".{SERVER}") else f"{identifier}.{SERVER}"
