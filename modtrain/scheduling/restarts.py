"""When a command that ended is started again, and how long to wait before that.

The limits are used by the launcher (on local and ray) and, rendered into its text, by the job script.
"""

from __future__ import annotations

from modtrain.errors import FINAL_EXIT_CODES, Preempted, StorageError

MAX_RESTARTS = 16
"""Restarts after quick failures in a row; one more quick failure is final. A failure of storage counts as quick."""
QUICK_FAILURE_S = 60
"""A command that ran for less than this failed quickly; one that ran longer starts a new count."""
MAX_PAUSE_S = 30
"""Longest pause before a restart."""


def restart_pause_s(failures: int) -> float | None:
    """Seconds to wait after this many quick failures in a row: 0, 1, 2, 4, ... `MAX_PAUSE_S`; None to give up."""
    if failures > MAX_RESTARTS:
        return None
    return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), MAX_PAUSE_S)


def is_quick(exit_code: int | None, ran_s: float) -> bool:
    """Whether a failure counts as quick: soon after the start, or of storage, which a worker waits for itself."""
    return ran_s < QUICK_FAILURE_S or exit_code == StorageError.exit_code


def wants_restart(exit_code: int | None) -> bool:
    """Whether a command that ended with this code is to be started again.

    So is one that was killed by a signal or preempted, whose storage failed, or whose end is not known. A negative code
    is a signal; a shell in between reports one as 128 + its number.
    """
    if exit_code is None or exit_code < 0 or exit_code in (Preempted.exit_code, StorageError.exit_code):
        return True
    return exit_code > 128 and exit_code not in FINAL_EXIT_CODES
