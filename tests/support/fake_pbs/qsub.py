"""qsub: a command line and a script become a job in the queue, or a refusal like the real one's."""

from __future__ import annotations

import os
import pwd
import re
import sys
import time
from pathlib import Path

from . import options, rules
from .cluster import HOST, SERVER, Cluster, Job, Refused, State, Task, locked
from .options import Request, Usage
from .scheduling import schedule

PASSED_ON = ("HOME", "LANG", "LOGNAME", "PATH", "MAIL", "SHELL", "TZ")
NAMED = {"A": "Account_Name", "j": "Join_Path", "k": "Keep_Files", "m": "Mail_Points", "M": "Mail_Users"}
DEFAULTS = {"c": "u", "j": "n", "k": "n", "m": "a", "p": "0", "P": "_pbs_project_default"}


def main(home: Path, arguments: list[str]) -> None:
    """Submit, and print the id of the job."""
    try:
        _submit(home, arguments)
    except Usage as error:
        raise Refused(f"{error}\n{options.USAGE}", 2) from error


def _submit(home: Path, arguments: list[str]) -> None:
    request = Request()
    rest = request.take(arguments, script=False)
    if len(rest) > 1:
        raise Usage("one script only")
    name, script = _script(rest[0] if rest else "-")
    prefix = request.options.get("C", os.environ.get("PBS_DPREFIX", "#PBS"))
    request.read(script, prefix)
    options.refuse_what_is_not_simulated(request)
    request.options.setdefault("N", name)
    job = _job(request, Cluster.load(home), arguments)
    with locked(home) as state:
        _register(state, job)
        copy = home / "spool" / f"{job.number}.SC"
        copy.write_text(script)
        copy.chmod(0o700)
        schedule(home, state)
    if "z" not in request.options:
        sys.stdout.write(f"{job.id()}\n")


def _script(path: str) -> tuple[str, str]:
    """The name that the job has by default, and the text of its script as it is now."""
    if path == "-":
        return "STDIN", sys.stdin.read()
    try:
        if not Path(path).is_file() and Path(path).exists():
            raise Refused("script not a file", 1)
        return Path(path).name, Path(path).read_text()
    except OSError as error:
        raise Refused(f"script file:: {error.strerror}", 1) from error


def _job(request: Request, cluster: Cluster, arguments: list[str]) -> Job:
    asked = request.options
    rules.check_options(asked, cluster)
    indices, limit = rules.array(asked["J"], cluster) if "J" in asked else ([], None)
    depend = rules.attributes(request.attributes)
    queue = rules.queue(asked.get("q", ""), cluster)
    default = {"walltime": cluster.limits[queue]} if queue in cluster.limits else {}
    chunks, place, resources = rules.resources(default | request.resources, cluster)
    user = pwd.getpwuid(os.getuid()).pw_name
    chosen = DEFAULTS | asked
    return Job(
        number=0,
        name=asked["N"],
        queue=queue,
        owner=f"{user}@{HOST}",
        attributes={long: chosen[letter] for letter, long in NAMED.items() if letter in chosen}
        | {"Checkpoint": chosen["c"], "Priority": str(int(chosen["p"])), "project": chosen["P"]}
        | ({"group_list": request.attributes["group_list"]} if "group_list" in request.attributes else {})
        | ({"Remove_Files": asked["R"]} if "R" in asked else {}),
        resources=resources,
        chunks=chunks,
        placement=place,
        walltime_s=rules.seconds(resources["walltime"]) if "walltime" in resources else None,
        variables=_variables(asked),
        directory=str(Path.cwd()),
        output=_path(asked.get("o", "")),
        error=_path(asked.get("e", "")),
        umask=int(request.attributes.get("umask", "077"), 8),
        shell=asked.get("S", "").partition("@")[0],
        rerunable=asked.get("r", "y") == "y",
        depend=depend,
        arguments=arguments,
        created_s=time.time(),
        range=re.sub("%.*", "", asked.get("J", "")),
        limit=limit,
        user_hold="h" in asked,
        tasks={str(index): Task() for index in indices} or {"": Task()},
    )


def _variables(asked: dict[str, str]) -> dict[str, str]:
    """What qsub sends along: some of the caller's variables under other names, and those of -v and -V."""
    own = {f"PBS_O_{name}": os.environ[name] for name in PASSED_ON if name in os.environ}
    own |= {"PBS_O_WORKDIR": str(Path.cwd()), "PBS_O_SYSTEM": "Linux", "PBS_O_HOST": HOST}
    every = {name: value for name, value in os.environ.items() if not name.startswith("PBS_O_")}
    named = options.variables(asked["v"], os.environ) if "v" in asked else {}
    return own | (every if "V" in asked else {}) | named


def _path(path: str) -> str:
    """The absolute path of `-o [host:]path`; a folder keeps the slash that says so."""
    host, colon, rest = path.partition(":")
    if colon and re.fullmatch(r"[\w.-]+", host):
        return rest if rest.startswith("/") else f"~/{rest}"
    if not path:
        return ""
    whole = Path.cwd() / path
    return f"{whole}/" if path.endswith("/") or whole.is_dir() else str(whole)


def _register(state: State, job: Job) -> None:
    """Give the job its number, and hold it where it must wait for others."""
    job.number = state.next
    state.next += 1
    job.variables["PBS_O_QUEUE"] = job.queue
    job.depend = [[kind, *(_known(other) for other in others)] for kind, *others in job.depend]
    job.waiting = bool(job.depend)
    state.jobs[job.number] = job


def _known(identifier: str) -> str:
    return identifier if identifier.endswith(f".{SERVER}") else f"{identifier}.{SERVER}"
