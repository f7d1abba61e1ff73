"""Which process this is, and whether it still runs: on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def process_started(pid: int) -> int | None:
    """When a process of this machine started, in ticks since boot: with the pid it names it for ever.

    None where it is over, also when its parent has not asked for its end yet.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(fields[18])
    except (OSError, IndexError, ValueError):
        return None


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The scheduler's id of this job, to be shown."""
    return next((environment[name] for name in ("SLURM_JOB_ID", "PBS_JOBID") if environment.get(name)), None)
