"""What PBS Pro (2020 to 2024) allows as the value of each option of qsub, and what it says of any other value.

The checks follow the reference guide and what the commands do: client-side ones say `illegal -N value` and leave with
2, server-side ones leave with their PBS error number modulo 256.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from .cluster import Cluster, Refused, not_simulated

BAD_VALUE = 166
UNKNOWN_RESOURCE = 187
SIZE = re.compile(r"\d+(b|w|[kmgtp][bw]?)?", re.IGNORECASE)
TIME = re.compile(r"\d+(:\d+){0,2}(\.\d+)?")
COUNT = re.compile(r"\d+")
ITEM = re.compile(r"[^\s#@,]+(@[^\s#@,]+)?")
SIZES = {"mem", "vmem", "pmem", "pvmem", "file"}
TIMES = {"walltime", "cput", "pcput", "min_walltime", "max_walltime", "soft_walltime"}
COUNTS = {"ncpus", "mpiprocs", "ompthreads", "ngpus", "naccelerators", "nchunk"}
NAMES = {"host", "vnode", "arch", "software", "aoe", "accelerator", "accelerator_model"}
HOST_LEVEL = COUNTS | NAMES - {"software"} | {"mem", "vmem"}
"""What a chunk may ask for; the rest is for the whole job."""
DEPENDENCIES = ("after", "afterok", "afternotok", "afterany")
OTHER_DEPENDENCIES = ("on", "before", "beforeok", "beforenotok", "beforeany", "runone", "synccount", "syncwith")


def illegal(letter: str) -> Refused:
    """What qsub says of a value that it checks itself."""
    return Refused(f"illegal -{letter} value", 2)


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _keep(value: str) -> bool:
    kept = set(value)
    return bool(kept) and kept <= set("oedn") and not ("n" in kept and kept & set("oe")) and kept != {"d"}


def at_list(value: str) -> bool:
    """A list of `user` or `user@host`, without a comma at its end."""
    return all(ITEM.fullmatch(item.strip()) for item in value.split(","))


CHECKS: dict[str, Callable[[str], bool]] = {
    "c": _matches(r"[nscw]|[cw]=\d+"),
    "e": lambda value: value != "" and value.isascii() and value.isprintable(),
    "j": _matches(r"oe|eo|n"),
    "k": _keep,
    "m": _matches(r"n|(?!j$)[abej]+"),
    "M": at_list,
    "N": _matches(r"[\w.+-]+"),
    "o": lambda value: value != "" and value.isascii() and value.isprintable(),
    "p": lambda value: re.fullmatch(r"[+-]?\d+", value) is not None and -1024 <= int(value) <= 1023,
    "P": _matches(r"""[^/\[\]";:|<>+,?*]+"""),
    "R": _matches(r"[oe]+"),
    "S": lambda value: value.startswith("/") and at_list(value),
}


def check_options(options: dict[str, str], cluster: Cluster) -> None:
    """Refuse the first value that is not allowed."""
    for letter, value in options.items():
        if letter == "N" and len(value) > 230:
            raise Refused("Job name is too long ", 2)
        if letter in CHECKS and not (value.isascii() and CHECKS[letter](value)):
            raise illegal(letter)
    if "j" in options.get("m", "") and "J" not in options:
        raise Refused("mail option 'j' can not be used without array job", 1)
    if cluster.accounts and options.get("A") not in cluster.accounts:
        raise Refused("Invalid Account", 201)
    if not options.get("A", "x"):
        raise illegal("A")


def queue(destination: str, cluster: Cluster) -> str:
    """The queue of `-q queue[@server]`; without one, the first of the cluster."""
    name, _, server = destination.partition("@")
    if server not in ("", "fakepbs"):
        raise Refused(f"cannot connect to server {server} (errno=15010)", 162)
    if name and name not in cluster.queues:
        raise Refused("Unknown queue", 170)
    return name or cluster.queues[0]


def array(value: str, cluster: Cluster) -> tuple[list[int], int | None]:
    """The indices of `-J X-Y[:Z][%max]`, and how many may run at once; one index alone is no array."""
    match = re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?:%(.*))?", value)
    if not match or int(match[1]) >= int(match[2]) or int(match[3] or 1) < 1:
        raise illegal("J")
    if match[4] is not None and not (COUNT.fullmatch(match[4]) and int(match[4]) > 0):
        raise Refused("Illegal attribute or resource value max_run_subjobs", BAD_VALUE)
    indices = list(range(int(match[1]), int(match[2]) + 1, int(match[3] or 1)))
    if len(indices) > cluster.max_array_size:
        raise Refused("Array job exceeds server or queue size limit", 3)
    return indices, int(match[4]) if match[4] else None


def attributes(values: dict[str, str]) -> list[list[str]]:
    """Check `-W`; returns its dependencies as [type, id, id, ...]."""
    for name, value in values.items():
        if name == "umask":
            if not re.fullmatch(r"[0-7]{1,4}", value) or int(value, 8) > 0o777:
                raise illegal("W")
        elif name == "group_list":
            if not at_list(value):
                raise illegal("W")
        elif name == "sandbox":
            if value.upper() not in ("HOME", "O_WORKDIR", "PRIVATE"):
                raise illegal("W")
        elif name in ("block", "stagein", "stageout", "interactive", "run_count", "max_run_subjobs"):
            raise not_simulated(f"-W {name}")
        elif name != "depend":
            raise Refused(f"Undefined attribute  {name}", 154)
    return [_dependency(item.strip()) for item in values["depend"].split(",")] if "depend" in values else []


def _dependency(item: str) -> list[str]:
    kind, *jobs = item.split(":")
    if kind in OTHER_DEPENDENCIES:
        raise not_simulated(f"-W depend={kind}")
    if kind not in DEPENDENCIES or not jobs or not all(re.fullmatch(r"\d+(\[.*\])?(\.[\w.-]+)?", job) for job in jobs):
        raise illegal("W")
    if any("[" in job and "[]" not in job for job in jobs):
        raise Refused("cannot have dependancy on subjob or range\nqsub: illegal -W value", 2)
    return [kind, *jobs]


def resources(asked: dict[str, str], cluster: Cluster) -> tuple[list[dict[str, int]], str, dict[str, str]]:
    """Check `-l`; returns the chunks (ncpus, ngpus, mpiprocs, each), the placement, and the Resource_List."""
    whole = {name: value for name, value in asked.items() if name not in ("select", "place", "nodes")}
    for name, value in whole.items():
        _value(name, value, cluster)
    old = next((name for name in whole if name in HOST_LEVEL), None)
    if "nodes" in asked and asked.keys() & {"select", "place"}:
        raise Refused("Cannot be used with select or place Resource_List.nodes", 6)
    if old and asked.keys() & {"select", "place", "nodes"}:
        raise Refused(f'"-lresource=" cannot be used with "select" or "place", resource is: {old}', 5)
    if "place" in asked and "select" not in asked:
        raise Refused('Cannot have "place" without "select"', 7)
    place = _place(asked.get("place", "free" if "select" in asked else "scatter" if "nodes" in asked else "pack"))
    select = asked.get("select") or _old_form(asked.get("nodes", ""), whole, cluster)
    specifications = _select(select, cluster)
    listed = _listed(specifications) | {name: value for name, value in whole.items() if name not in HOST_LEVEL}
    listed |= {"nodes": asked["nodes"]} if "nodes" in asked else {}
    listed |= {name: clock(seconds(listed[name])) for name in listed.keys() & TIMES}
    return [_chunk(chunk) for chunk in specifications], place, listed | {"place": place, "select": select}


def _value(name: str, value: str, cluster: Cluster, where: str = "Resource_List.") -> None:
    """Refuse an unknown resource, and a value that is none of its kind."""
    forms = {**dict.fromkeys(SIZES, SIZE), **dict.fromkeys(TIMES, TIME), **dict.fromkeys(COUNTS, COUNT)}
    if name not in forms and name not in NAMES and name not in cluster.resources:
        raise Refused(f"Unknown resource{' ' if where else ': '}{where}{name}", UNKNOWN_RESOURCE)
    form = forms.get(name, re.compile(r"\S+"))
    if not form.fullmatch(value):
        raise Refused(f"Illegal attribute or resource value Resource_List.{name if where else 'select'}", BAD_VALUE)


def _select(text: str, cluster: Cluster) -> list[dict[str, str]]:
    """One dictionary a chunk of `N:name=value:name=value+...`."""
    chunks: list[dict[str, str]] = []
    bad = Refused("Illegal attribute or resource value Resource_List.select", BAD_VALUE)
    for part in text.split("+"):
        first, *rest = part.split(":")
        count, pairs = (int(first), rest) if COUNT.fullmatch(first) else (1, [first, *rest])
        chunk: dict[str, str] = {}
        for pair in pairs:
            name, equal, value = pair.partition("=")
            if not name or not equal or not value:
                raise bad
            if name in (SIZES | TIMES | {"software", "nodect"}) - HOST_LEVEL:
                raise Refused(f'Resource invalid in "select" specification: {name}', 4)
            if name in chunk:
                raise Refused(
                    f"duplicated resource within a section of a select specification, resource is: {name}", 12
                )
            _value(name, value, cluster, where="")
            chunk[name] = value
        if count < 1:
            raise bad
        chunks += [chunk] * count
    return chunks


def _old_form(nodes: str, whole: dict[str, str], cluster: Cluster) -> str:
    """The select of `-l nodes=N:ppn=C`, or of `-l ncpus=C,mem=...` for the whole job, as the server converts it."""
    if not nodes:
        named = [f"{name}={value}" for name, value in whole.items() if name in HOST_LEVEL]
        return ":".join(["1", *(named if "ncpus" in whole else ["ncpus=1", *named])])
    parts = []
    for part in nodes.split("+"):
        match = re.fullmatch(r"(\d+)((?::\w+(?:=\w+)?)*)", part)
        if not match:
            raise Refused("Illegal attribute or resource value Resource_List.nodes", BAD_VALUE)
        properties = dict(item.partition("=")[::2] for item in match[2].split(":")[1:])
        for name in properties.keys() - {"ppn", "ncpus", "mem"}:
            raise Refused(f"Unknown resource: {name}", UNKNOWN_RESOURCE)
        cpus = properties.get("ppn") or properties.get("ncpus") or "1"
        parts.append(f"{match[1]}:ncpus={cpus}:mpiprocs={cpus}")
    return "+".join(parts)


def _place(text: str) -> str:
    words = text.split(":")
    kinds = [
        [word for word in words if word in ("free", "pack", "scatter", "vscatter")],
        [word for word in words if word in ("excl", "shared", "exclhost")],
        [word for word in words if re.fullmatch(r"group=\w+", word)],
    ]
    if sum(map(len, kinds)) != len(words) or max(map(len, kinds)) > 1:
        raise Refused("Illegal attribute or resource value Resource_List.place", BAD_VALUE)
    return text


def _chunk(chunk: dict[str, str]) -> dict[str, int]:
    cpus = int(chunk.get("ncpus", 1))
    return {"ncpus": cpus, "ngpus": int(chunk.get("ngpus", 0)), "mpiprocs": int(chunk.get("mpiprocs", min(cpus, 1)))}


def _listed(chunks: list[dict[str, str]]) -> dict[str, str]:
    """What `Resource_List` says of the chunks together."""
    memory = [bytes_of(chunk["mem"]) for chunk in chunks if "mem" in chunk]
    gpus = [int(chunk["ngpus"]) for chunk in chunks if "ngpus" in chunk]
    total = {"mem": size(sum(memory))} if memory else {}
    total |= {"ncpus": str(sum(int(chunk.get("ncpus", 1)) for chunk in chunks))}
    total |= {"ngpus": str(sum(gpus))} if gpus else {}
    return total | {"nodect": str(len(chunks))}


def bytes_of(text: str) -> int:
    """The bytes of `16gb`, `512mb`, `1000` and so on; a word has eight."""
    match = re.fullmatch(r"(\d+)([kmgtp]?)([bw]?)", text.lower())
    assert match
    unit: int = 1024 ** " kmgtp".index(match[2] or " ")
    return int(match[1]) * unit * (8 if match[3] == "w" else 1)


def size(count: int) -> str:
    """Bytes as PBS writes them: the largest unit that divides them."""
    unit = max(power for power in range(6) if count % 1024**power == 0) if count else 0
    return f"{count // 1024**unit}{' kmgtp'[unit].strip()}b"


def seconds(text: str) -> float:
    """The seconds of `HH:MM:SS`, `MM:SS` or `SS[.ms]`."""
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def clock(spent_s: float) -> str:
    """Seconds as `HH:MM:SS`."""
    whole = math.ceil(spent_s)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"
