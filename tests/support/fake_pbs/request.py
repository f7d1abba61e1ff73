"""Options of `qsub`: its command line and the #PBS lines of a script, read and checked as by PBS Pro.

Only the options that modtrain and the scripts in `jobs` and `cluster` write are simulated; another option of the real
qsub ends with exit code 99. The command line wins over the script. Of two lines in a script the last wins, except for
`-l`, where the first does. Values that the client checks are refused with 2, those that the server checks with its
error number modulo 256.
"""

from __future__ import annotations

import getopt
import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .cluster import Cluster, Refused, not_simulated

LETTERS = "h" + "".join(f"{letter}:" for letter in "ANPSJMWjlmoqrv")
NOT_SIMULATED = "fIVXz" + "".join(f"{letter}:" for letter in "aCcekpRu")
USAGE = "usage: qsub [-A account_string] ... [script | -- command [arg1 ...]]\n       qsub --version"
BAD_VALUE, UNKNOWN_RESOURCE = 166, 187
RESOURCES = {
    "mem": r"\d+(b|[kmgtp]b?)",
    "walltime": r"\d+(:\d+){0,2}",
    **dict.fromkeys(("ncpus", "ngpus", "mpiprocs"), r"\d+"),
    **dict.fromkeys(("host", "vnode", "arch"), r"\S+"),
}


def _pattern(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


CHECKS: dict[str, Callable[[str], bool]] = {
    "A": bool,
    "j": _pattern(r"oe|n"),
    "m": _pattern(r"n|[abe]+"),
    "M": _pattern(r"[^\s#@,]+(@[^\s#@,]+)?(,[^\s#@,]+(@[^\s#@,]+)?)*"),
    "N": _pattern(r"[\w.+-]+"),
    "o": lambda value: value != "" and value.isprintable(),
    "P": _pattern(r"""[^/\[\]";:|<>+,?*]+"""),
    "r": _pattern("[yn]"),
    "S": lambda value: value.startswith("/"),
}


class Usage(Refused):
    """An option that qsub does not know, or a wrong one: it shows how it is used, with exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 2)


@dataclass(kw_only=True)
class Request:
    """What was asked for; `fixed` names what the command line set, which a script cannot change."""

    options: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)

    def take(self, arguments: list[str], *, script: bool) -> list[str]:
        """Take options from a command line, or from one #PBS line; returns what is left, the name of the script."""
        try:
            pairs, rest = getopt.gnu_getopt(arguments, LETTERS + NOT_SIMULATED)
        except getopt.GetoptError as error:
            reason = "option requires an argument" if "requires argument" in error.msg else "invalid option"
            raise Usage(f"{reason} -- '{error.opt[:1]}'") from error
        for option, value in pairs:
            letter = option[1]
            if letter in NOT_SIMULATED:
                raise not_simulated(f"qsub {option}")
            if letter == "l":
                self._take_resources(value, script=script)
            elif not script or letter not in self.fixed:
                self.options[letter] = value
                self.fixed |= set() if script else {letter}
        if not CHECKS["r"](self.options.get("r", "y")):
            raise Usage("illegal -r value")
        if "J" in self.options and self.options.get("r") == "n":
            raise Usage(" cannot submit non-rerunable Array Job")
        return rest

    def _take_resources(self, value: str, *, script: bool) -> None:
        for item in value.split(","):
            name, equal, asked = item.partition("=")
            if not name or not equal or not asked:
                raise Usage("illegal -l value")
            if not script or name not in self.resources:
                self.resources[name] = asked

    def read(self, script: str) -> None:
        """Take the directives of a script: those before its first line that does something."""
        for line in script.splitlines():
            if line.lstrip().startswith("#PBS"):
                self._directive(line.lstrip().removeprefix("#PBS"))
            elif line.strip() and not line.lstrip().startswith("#"):
                return

    def _directive(self, text: str) -> None:
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise Refused("unmatched quote", 1) from error
        try:
            rest = self.take(words, script=True)
        except Usage as error:
            raise Refused(f"{error}\nqsub: directive error: {' '.join(words)} ", 1) from error
        if rest:
            raise Refused(f"directive error: {' '.join(words)} ", 1)

    def check(self, cluster: Cluster) -> None:
        """Refuse the first value that is not allowed."""
        for letter, value in self.options.items():
            if letter == "N" and len(value) > 230:
                raise Refused("Job name is too long ", 2)
            if letter in CHECKS and not (value.isascii() and CHECKS[letter](value)):
                raise Refused(f"illegal -{letter} value", 2)
        if cluster.accounts and self.options.get("A") not in cluster.accounts:
            raise Refused("Invalid Account", 201)
        if self.options.get("q", cluster.queues[0]) not in cluster.queues:
            raise Refused("Unknown queue", 170)


def array(value: str) -> tuple[list[int], int | None]:
    """The indices of `-J X-Y[%max]`, and how many may run at once; one index alone is no array."""
    match = re.fullmatch(r"(\d+)-(\d+)(?:%(.*))?", value)
    if not match or int(match[1]) >= int(match[2]):
        raise Refused("illegal -J value", 2)
    if match[3] is not None and not re.fullmatch(r"0*[1-9]\d*", match[3]):
        raise Refused("Illegal attribute or resource value max_run_subjobs", BAD_VALUE)
    return list(range(int(match[1]), int(match[2]) + 1)), int(match[3]) if match[3] else None


def dependencies(value: str) -> list[list[str]]:
    """The dependencies of `-W depend=type:id:id,type:id` as [type, id, id, ...]."""
    name, _, listed = value.partition("=")
    if name != "depend":
        raise not_simulated(f"-W {name}")
    items = [item.split(":") for item in listed.split(",")]
    for kind, *jobs in items:
        known = kind in ("after", "afterok", "afternotok", "afterany")
        if not known or not jobs or not all(re.fullmatch(r"\d+(\[\])?(\.[\w.-]+)?", job) for job in jobs):
            raise Refused("illegal -W value", 2)
    return items


def variables(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of `-v NAME,NAME=value`. A quote or a backslash, which the real one mangles, is refused."""
    pairs = [item.partition("=") for item in text.split(",")]
    values = {name: value if equal else environment.get(name, "'") for name, equal, value in pairs}
    if not all(values) or any(letter in value for value in values.values() for letter in "'\"\\"):
        raise Refused("cannot send environment with the job", 1)
    return values


def resources(asked: dict[str, str], cluster: Cluster) -> tuple[list[dict[str, int]], dict[str, str]]:
    """Check `-l`; returns the chunks (ncpus, ngpus and mpiprocs of each) and the Resource_List."""
    whole = {name: value for name, value in asked.items() if name not in ("select", "place")}
    for name, value in whole.items():
        _check_resource(name, value, cluster, "Resource_List.")
        if name != "walltime":
            raise not_simulated(f"-l {name} without select")
    if asked.get("place", "free") not in ("free", "scatter"):
        raise not_simulated(f"-l place={asked['place']}")
    if "place" in asked and "select" not in asked:
        raise Refused('Cannot have "place" without "select"', 7)
    select = asked.get("select", "1:ncpus=1")
    chunks = _select(select, cluster)
    total = {"ncpus": str(sum(chunk["ncpus"] for chunk in chunks)), "nodect": str(len(chunks))}
    time = {"walltime": clock(seconds(whole["walltime"]))} if whole else {}
    return chunks, total | time | {"place": asked.get("place", "free"), "select": select}


def _check_resource(name: str, value: str, cluster: Cluster, where: str = "") -> None:
    if name not in RESOURCES and name not in cluster.resources:
        raise Refused(f"Unknown resource{' ' if where else ': '}{where}{name}", UNKNOWN_RESOURCE)
    if not re.fullmatch(RESOURCES.get(name, r"\S+"), value):
        raise Refused(f"Illegal attribute or resource value Resource_List.{name if where else 'select'}", BAD_VALUE)


def _select(text: str, cluster: Cluster) -> list[dict[str, int]]:
    """One dictionary a chunk of `N:name=value:name=value+...`."""
    chunks: list[dict[str, int]] = []
    for part in text.split("+"):
        first, *rest = part.split(":")
        count, pairs = (int(first), rest) if first.isdecimal() else (1, [first, *rest])
        chunk: dict[str, str] = {}
        for name, equal, value in (pair.partition("=") for pair in pairs):
            if not name or not equal or not value or not count:
                raise Refused("Illegal attribute or resource value Resource_List.select", BAD_VALUE)
            if name == "walltime":
                raise Refused(f'Resource invalid in "select" specification: {name}', 4)
            _check_resource(name, value, cluster)
            chunk[name] = value
        cpus = int(chunk.get("ncpus", 1))
        counts = {"ncpus": cpus, "ngpus": int(chunk.get("ngpus", 0))}
        chunks += [counts | {"mpiprocs": int(chunk.get("mpiprocs", min(cpus, 1)))}] * count
    return chunks


def seconds(text: str) -> int:
    """The seconds of `HH:MM:SS`, `MM:SS` or `SS`."""
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


def clock(spent_s: float) -> str:
    """Seconds as `HH:MM:SS`."""
    whole = math.ceil(spent_s)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"
