"""When a command that ended is started again, and how long to wait before that.

The limits are used by the launcher (on local and ray) and, rendered into its text, by the job script.
"""

from __future__ import annotations

from modtrain.errors import FINAL_EXIT_CODES, Preempted

MAX_RESTARTS = 16
"""Restarts after quick failures in a row; one more quick failure is final."""
QUICK_FAILURE_S = 60
"""A command that ran for less than this failed quickly; one that ran longer starts a new count."""
MAX_PAUSE_S = 30
"""Longest pause before a restart."""


class RestartBackoff:
    """Counts quick failures in a row; pauses of 0, 1, 2, 4, ... `MAX_PAUSE_S` seconds, then no further restart."""

    def __init__(self) -> None:
        self._failures = 0

    def pause_s(self, run_time_s: float) -> float | None:
        """Seconds to wait before the restart of a command that ran for `run_time_s`; None to give up."""
        self._failures = self._failures + 1 if run_time_s < QUICK_FAILURE_S else 1
        if self._failures > MAX_RESTARTS:
            return None
        return 0.0 if self._failures == 1 else min(2.0 ** (self._failures - 2), MAX_PAUSE_S)


def wants_restart(exit_code: int | None) -> bool:
    """Whether a command that ended with this code is to be started again: killed by a signal, preempted, or unknown.

    A negative code is a signal; a shell in between reports one as 128 + its number.
    """
    if exit_code is None or exit_code < 0 or exit_code == Preempted.exit_code:
        return True
    return exit_code > 128 and exit_code not in FINAL_EXIT_CODES
