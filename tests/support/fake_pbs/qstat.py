"""qstat: the states of jobs in PBS Pro's layouts: one line a job, all attributes (`-f`), or JSON (`-f -F json`).

An unknown job costs its own line on stderr and the exit code, never the others' answer. A finished job is shown only
with `-x` (or `-H`).
"""

from __future__ import annotations

import getopt
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from .cluster import ID_FORM, SERVER, VERSION, Cluster, Job, Refused, State, full, locked, not_simulated
from .qstat_full import attributes

LETTERS = "ainpqrstwxu:fGHJMQEBW:T1F:D:"
PLAYED = set("aiprstwxufHJEF")
USAGE = (
    "usage: \nqstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]\n"
    "qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]\n"
    "\t[ job_identifier... | destination... ]\nqstat --version"
)
WIDTH = 78
Row = tuple[Job, str]
"""A job or an array (with the index ""), or one subjob."""


def main(home: Path, arguments: list[str]) -> None:
    """Print what was asked for; the exit code is that of the last job that could not be shown."""
    try:
        pairs, operands = getopt.gnu_getopt(arguments, LETTERS)
    except getopt.GetoptError as error:
        raise Refused(f"invalid option -- '{error.opt[:1]}'\n{USAGE}", 2) from error
    asked = {option[1]: value for option, value in pairs}
    if missing := asked.keys() - PLAYED:
        raise not_simulated(f"qstat -{min(missing)}")
    _check(asked)
    with locked(home) as state:
        rows, errors = _rows(state, Cluster.load(home), asked, operands)
    sys.stdout.write(_text(rows, asked))
    sys.stdout.flush()
    for refusal in errors:
        sys.stderr.write(f"qstat: {refusal}\n")
    sys.exit(errors[-1].code if errors else 0)


def _check(asked: dict[str, str]) -> None:
    if "F" in asked and "f" not in asked:
        raise Refused(f"conflicting options.\n{USAGE}", 2)
    if "F" in asked and asked["F"].lower() != "json":
        raise not_simulated(f"qstat -F {asked['F']}")
    if len(asked.keys() & set("airH")) > 1:
        raise Refused(f"conflicting options.\n{USAGE}", 2)


def _rows(
    state: State, cluster: Cluster, asked: dict[str, str], operands: list[str]
) -> tuple[list[Row], list[Refused]]:
    past = bool(asked.keys() & {"x", "H"})
    rows: list[Row] = []
    errors: list[Refused] = []
    for operand in operands:
        try:
            if ID_FORM.fullmatch(operand):
                rows += _named(state, operand, past, "t" in asked)
            elif operand.partition("@")[0] in ("", *cluster.queues):
                rows += _every(state, past, "t" in asked)
            else:
                raise Refused(f"Unknown queue {operand}", 170)
        except Refused as error:
            errors.append(error)
    if not operands:
        rows = _every(state, past, "t" in asked)
    return [row for row in rows if _wanted(row, asked, named=bool(operands))], errors


def _named(state: State, identifier: str, past: bool, subjobs: bool) -> list[Row]:
    job, indices = state.find(identifier)
    if job.over and not past:
        said = f"{full(identifier)} Job has finished, use -x or -H to obtain historical job information"
        raise Refused(said, 35)
    if indices:
        return [(job, index) for index in indices]
    return _with_subjobs(job, subjobs)


def _every(state: State, past: bool, subjobs: bool) -> list[Row]:
    return [row for job in state.jobs.values() if past or not job.over for row in _with_subjobs(job, subjobs)]


def _with_subjobs(job: Job, subjobs: bool) -> list[Row]:
    return [(job, ""), *((job, index) for index in job.tasks if subjobs and job.array)]


def _wanted(row: Row, asked: dict[str, str], named: bool) -> bool:
    job, index = row
    if "J" in asked and (not job.array or (bool(index) != ("t" in asked))):
        return False
    if "u" in asked and job.owner.partition("@")[0] not in asked["u"].split(","):
        return False
    letters = {"i": "EHQTW", "r": "RSB", "H": "FMX"}
    chosen = next((letters[option] for option in "irH" if option in asked), "")
    return named or not chosen or job.state(index) in chosen


def _text(rows: list[Row], asked: dict[str, str]) -> str:
    if "F" in asked:
        return _json(rows)
    if "f" in asked:
        return "".join(_full(row, wide="w" in asked) for row in rows)
    if not rows:
        return ""
    alternate = bool(asked.keys() & set("aiHrsu"))
    return _alternate(rows, "w" in asked, "s" in asked) if alternate else _plain(rows, "w" in asked)


def _plain(rows: list[Row], wide: bool) -> str:
    a, b, c, d = (30, 15, 15, 15) if wide else (17, 16, 16, 16)
    head = f"{'Job id':{a}} {'Name':{b}} {'User':{c}}  Time Use S Queue\n"
    rule = f"{'-' * (a - 1):{a}} {'-' * b} {'-' * c}  -------- - {'-' * (d if wide else 5)}\n"
    lines = []
    for job, index in rows:
        cells = (_cut(job.id(index), a), _cut(job.name, b), _cut(job.owner.partition("@")[0], c))
        begun = job.tasks[index].run_count if not job.array or index else 0
        used = "00:00:00" if begun else "0"
        lines.append(
            f"{cells[0]:{a}} {cells[1]:{b}} {cells[2]:{c}}  {used:>8} {job.state(index)} {_cut(job.queue, d):{d}}\n"
        )
    return head + rule + "".join(lines)


def _alternate(rows: list[Row], wide: bool, comments: bool) -> str:
    a, b, c, d, e, f, g = (30, 15, 15, 15, 8, 4, 5) if wide else (15, 8, 8, 10, 6, 3, 3)
    names = ("Job ID", "Username", "Queue", "Jobname", "SessID", "NDS", "TSK")
    head = " ".join(f"{name:{width}}" for name, width in zip(names, (a, b, c, d, e, f, g), strict=True))
    rule = " ".join("-" * width for width in (a, b, c, d, e, f, g))
    above = f"{'':{len(head) + 1}}{'Req' + chr(39) + 'd':7}{'Req' + chr(39) + 'd':8}Elap\n"
    out = f"\n{SERVER}: \n{above}{head} Memory Time  S Time\n{rule} ------ ----- - -----\n"
    for job, index in rows:
        values = dict(attributes(job, index))
        shown = [_cut(text, width) for text, width in ((job.id(index), a), (job.owner.partition("@")[0], b))]
        shown += [_cut(job.queue, c), _cut(job.name, d)]
        line = " ".join(f"{text:{width}}" for text, width in zip(shown, (a, b, c, d), strict=True))
        sizes = [values.get("session_id", "--"), job.resources["nodect"], job.resources["ncpus"]]
        line += "".join(f" {_cut(text, width):>{width}}" for text, width in zip(sizes, (e, f, g), strict=True))
        elapsed = values.get("resources_used.walltime", "--")[:5]
        asked_time = job.resources.get("walltime", "--")[:5]
        line += f" {job.resources.get('mem', '--'):>6} {asked_time:>5} {job.state(index)} {elapsed:>5}"
        out += f"{line}\n" + (f"   {values['comment']}\n" if comments and "comment" in values else "")
    return out


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "*"


def _full(row: Row, wide: bool) -> str:
    lines = [f"Job Id: {row[0].id(row[1])}"]
    for name, value in attributes(*row):
        value = time.ctime(float(value)) if name in ("ctime", "etime", "mtime", "qtime", "stime") else value
        lines.append(f"    {name} = {value}" if wide else folded(name, value))
    return "\n".join(lines) + "\n\n"


def folded(name: str, value: str) -> str:
    """An attribute in lines of at most 79 columns, broken at commas if possible; the next ones start with a tab."""
    out, column, first = f"    {name} = ", len(name) + 7, True
    items = [item for item in value.split(",") if item]
    for place, item in enumerate(items):
        if len(item) + column < WIDTH:
            out, column = out + item, column + len(item)
        else:
            if not first:
                out, column = f"{out}\n\t", 9
            for letter in item:
                out, column = out + letter, column + 1
                if column > WIDTH:
                    out, column = f"{out}\n\t", 8
        if place < len(items) - 1:
            out, first = f"{out},", False
    return out


def _json(rows: list[Row]) -> str:
    """The answer as JSON: no "Jobs" where there is none, and what looks like a number is one."""
    answer: dict[str, Any] = {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": SERVER}
    for row in rows:
        answer.setdefault("Jobs", {})[row[0].id(row[1])] = _object(row)
    return json.dumps(answer, indent=4, separators=(",", ":")) + "\n"


def _object(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in attributes(*row):
        group, dot, part = name.partition(".")
        if name in ("ctime", "etime", "mtime", "qtime", "stime"):
            found[name] = time.ctime(float(value))
        elif name == "Variable_List":
            found[name] = {key: _number(text) for key, text in row[0].variables.items()}
        elif dot:
            found.setdefault(group, {})[part] = _number(value)
        else:
            found[name] = _number(value)
    return found


def _number(text: str) -> Any:
    return json.loads(text) if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", text) else text
