"""The journal of a job: what its script wrote when its worker started and ended, and which job went on with it.

It says how a job ended long after the scheduler has forgotten. Deliberately not here: writing it, which the script does
(`templates/worker.sh.j2`), and asking schedulers (`batch.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from modtrain.errors import FINAL_EXIT_CODES
from modtrain.scheduling.backends.base import JobState
from modtrain.storage import filesystem

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._\[\]-]*")
"""A scheduler's id. Journals lie on shared storage: nothing else of them is given to a command."""
_CODE = re.compile(r"[0-9]{1,3}")


class Journal:
    """What the script of a job wrote: the jobs that went on with it, and how the last of them ended."""

    def __init__(self, id: str) -> None:
        path, _, first = id.rpartition("@")
        self.links = [first] if _ID.fullmatch(first) and path.startswith("/") else []
        lines = [line.split(" ") for line in filesystem.read_lines(Path(path))] if self.links else []
        ended: dict[str, int] = {}
        for kind, job, value, *_ in (line for line in lines if len(line) == 4):
            if kind in ("continued", "renamed") and not _ID.fullmatch(value):
                continue
            if kind == "ended" and not _CODE.fullmatch(value):  # torn, or by a template of a site's own
                continue
            if kind == "continued" and job in self.links:
                self.links.append(value)
            elif kind == "renamed" and job in self.links:
                self.links[self.links.index(job)] = value
            elif kind in ("started", "ended"):
                ended.pop(job, None)
                ended |= {job: int(value)} if kind == "ended" else {}
        known = [ended[link] for link in self.links if link in ended]
        self.exit_code: int | None = known[-1] if known else None
        open_ = [line for line in lines if line[0] == "started" and line[1:2] and line[1] in self.links]
        self.closed = not open_ or open_[-1][1] in ended
        """Whether no script is between its first line and its last one."""
        self.started = bool(known) or any(line[1:2] and line[1] in self.links for line in lines)

    def state(self, states: Mapping[str, JobState]) -> JobState:
        """Of the whole: live while one of the jobs is; else ended, if anybody knows of it."""
        found = [states[link] for link in self.links if link in states]
        for phase in ("running", "pending"):
            for state in found:
                if state.phase == phase:
                    return state
        if not found and not self.started:
            return JobState(phase="unknown")
        codes = [state.exit_code for state in found if state.exit_code is not None]
        code = self.exit_code if self.exit_code is not None else (codes[-1] if codes else None)
        signalled = code is not None and code > 128 and code not in FINAL_EXIT_CODES
        return JobState(phase="ended", exit_code=128 - code if code is not None and signalled else code)
