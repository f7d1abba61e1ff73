"""qdel: ends running jobs, removes waiting ones; takes jobs, arrays and one subjob."""

from __future__ import annotations

import sys
from pathlib import Path

from .cluster import ID_FORM, Refused, State, full, locked, not_simulated
from .scheduling import delete, schedule


def main(home: Path, arguments: list[str]) -> None:
    """Delete the jobs; each error is a line, and the last one decides the exit code."""
    if not arguments or arguments[0].startswith("-"):
        raise not_simulated(f"qdel {' '.join(arguments)}")
    code = 0
    with locked(home) as state:
        for identifier in arguments:
            try:
                _delete(state, identifier)
            except Refused as error:
                sys.stderr.write(f"qdel: {error}\n")
                code = error.code
        schedule(home, state)
    sys.exit(code)


def _delete(state: State, identifier: str) -> None:
    if not ID_FORM.fullmatch(identifier):
        raise Refused(f"illegally formed job identifier: {identifier}", 1)
    job, indices = state.find(identifier)
    if job.over or (indices and all(job.tasks[index].over for index in indices)):
        raise Refused(f"Job has finished {full(identifier)}", 35)
    for index in indices or job.tasks:
        delete(job, index)
