"""Runs the commands of a batch scheduler (`sbatch`, `qstat`, ...) in an environment that fixes their output format."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from modtrain.errors import BackendSilent, InputError

USER_FORMAT_VARIABLES = ("SQUEUE_", "SCANCEL_", "SLURM_TIME_FORMAT")
"""Prefixes of variables with which a user changes what a scheduler's commands print or select."""
TIMEOUT_S = 60.0


def run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in `folder`, whatever its exit code.

    InputError where it is not installed here, BackendSilent where it does not return within `TIMEOUT_S`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(USER_FORMAT_VARIABLES)}
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            cwd=folder,
            env=environment | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise missing_command(command[0]) from None
    except subprocess.TimeoutExpired:
        raise BackendSilent(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s; try again later.") from None


def missing_command(command: str) -> InputError:
    """The error for a scheduler's command that this machine does not have."""
    return InputError(
        f"{command} is not on this machine: submit from a login node of the cluster, or add --dry-run to write the job "
        "scripts only."
    )
