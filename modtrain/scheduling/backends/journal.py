"""The journal of a job: lines that its script writes when the worker starts, ends, or continues in another job.

It gives the exit code of a job long after the scheduler has forgotten it, and the ids of the jobs that continue it.
`templates/worker.sh.j2` writes it.

| line                      | meaning                                                  |
|---------------------------|----------------------------------------------------------|
| `started JOB HOST TIME`   | the script has started its worker                        |
| `ended JOB CODE TIME`     | the worker has left with this exit code                  |
| `continued JOB NEXT TIME` | job NEXT continues where JOB leaves                      |
| `renamed JOB NEW TIME`    | the scheduler now knows JOB under another id             |
| `overran JOB 0 TIME`      | JOB reached its time limit before its worker could leave |
| `refused JOB 0 TIME WORDS` | no job continues JOB: the scheduler's words             |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from modtrain.errors import FINAL_EXIT_CODES
from modtrain.scheduling.backends.base import JobState
from modtrain.storage import filesystem

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._\[\]-]*")
"""A scheduler's id. Journals are on shared storage, so only text of this form is passed to a command."""
_CODE = re.compile(r"[0-9]{1,3}")


class Journal:
    """What the scripts of a job and of those that continue it wrote."""

    def __init__(self, id: str) -> None:
        """Read the journal that the backend's id `<path>@<scheduler's id>` names; empty where there is none."""
        path, _, first = id.rpartition("@")
        self.path = Path(path)
        self.links = [first] if _ID.fullmatch(first) and path.startswith("/") else []
        """The scheduler's ids: the job, then each one that continues it."""
        self._codes: dict[str, int | None] = {}
        """Exit codes by job, in the order of their last starts; None while the worker runs."""
        self.has_begun = False
        """Whether a script of these jobs has written anything."""
        self.refusal = ""
        """Why no job continues the last one, in the scheduler's words."""
        for line in filesystem.read_lines(self.path) if self.links else []:
            if len(fields := line.split(" ", 4)) >= 4:
                self._read(*fields)
        codes = [code for link in self.links if (code := self._codes.get(link)) is not None]
        self.exit_code = codes[-1] if codes else None
        """Of the last worker that ended, as a shell reports it; None while the journal has none."""

    def _read(self, kind: str, job: str, value: str, _time: str, words: str = "") -> None:
        """Take one line into account; a torn or foreign one is skipped."""
        if job not in self.links:
            return
        self.has_begun = True
        self.refusal = words if kind == "refused" else ""
        if kind == "continued" and _ID.fullmatch(value):
            self.links.append(value)
        elif kind == "renamed" and _ID.fullmatch(value):
            self.links[self.links.index(job)] = value
        elif kind == "started":
            self._codes.pop(job, None)
            self._codes[job] = None
        elif kind == "ended" and _CODE.fullmatch(value):
            self._codes[job] = int(value)

    @property
    def closed(self) -> bool:
        """Whether no script is between its first line and its last one."""
        return not self._codes or list(self._codes.values())[-1] is not None

    def state(self, states: Mapping[str, JobState]) -> JobState:
        """State of the job and those that continue it, from the scheduler's `states` by id.

        Live while one of them is; else ended, if the scheduler or the journal knows of it; else unknown.
        """
        known = [states[link] for link in self.links if link in states]
        for phase in ("running", "pending"):
            for state in known:
                if state.phase == phase:
                    return state
        if not known and not self.has_begun:
            return JobState(phase="unknown")
        codes = [state.exit_code for state in known if state.exit_code is not None]
        code = self.exit_code if self.exit_code is not None else (codes[-1] if codes else None)
        signalled = code is not None and code > 128 and code not in FINAL_EXIT_CODES
        reason = f"no job continues it: {self.refusal}" if self.refusal else ""
        reason = known[-1].reason if known and not self.has_begun else reason
        return JobState(phase="ended", exit_code=128 - code if code is not None and signalled else code, reason=reason)
