"""qdel: ends running jobs, removes waiting ones; takes jobs, arrays, one subjob and ranges of subjobs."""

from __future__ import annotations

import getopt
import sys
from pathlib import Path

from .cluster import ID_FORM, Refused, State, full, locked
from .scheduling import delete, schedule

USAGE = "usage:\n\tqdel [-W force|suppress_email=X] [-x] job_identifier...\n\tqdel --version"


def main(home: Path, arguments: list[str]) -> None:
    """Delete every job named; what went wrong is said for each, and the last error is the exit code."""
    try:
        options, identifiers = getopt.gnu_getopt(arguments, "W:x")
    except getopt.GetoptError as error:
        raise Refused(f"invalid option -- '{error.opt[:1]}'\n{USAGE}", 2) from error
    if not identifiers:
        sys.stderr.write(f"{USAGE}\n")
        sys.exit(2)
    code = 0
    with locked(home) as state:
        for identifier in identifiers:
            try:
                _delete(home, state, identifier, forget=("-x", "") in options)
            except Refused as error:
                sys.stderr.write(f"qdel: {error}\n")
                code = error.code
        schedule(home, state)
    sys.exit(code)


def _delete(home: Path, state: State, identifier: str, forget: bool) -> None:
    if not ID_FORM.fullmatch(identifier):
        raise Refused(f"illegally formed job identifier: {identifier}", 1)
    job, indices = state.find(identifier)
    if job.over or (indices and all(job.tasks[index].over for index in indices)):
        if not forget:
            raise Refused(f"Job has finished {full(identifier)}", 35)
        del state.jobs[job.number]
        return
    for index in indices or job.tasks:
        delete(home, state, job, index)
