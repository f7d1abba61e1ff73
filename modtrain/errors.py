"""Everything that modtrain raises on purpose, and the exit code that each becomes.

    ModtrainError                 1   something failed; the message says what, what is allowed and what to do
    ├── InputError                2   a wrong option, config, recipe, data folder or name: nothing was started
    ├── StopRequested             3   `modtrain stop` was obeyed: published and left
    ├── FencedOut                 4   another worker publishes this module now: this one leaves
    ├── Diverged                  5   NaN or Inf in a loss or a weight; never published
    ├── StorageError              6   the shared folder refused several publishes in a row
    ├── PeerTimeout               7   a peer did not publish in time
    ├── BackendSilent             8   the scheduler or cluster does not answer: nothing is known about the jobs
    ├── ClusterLost               8   the cluster, or the way to it, is gone for good, and its jobs with it
    ├── Preempted                75   told to leave by SIGTERM or USR2: published, wants to be continued
    └── Interrupted             130   Ctrl-C: published and left

0 is a finished run. 75 is the "try again later" of BSD's sysexits: a launcher or a job script that sees it starts the
same command again. `CorruptCheckpoint` and `MissingCheckpoint` are answers of the store that its readers deal with;
a user sees them only where no version at all can be read.

Not here: errors of a user's recipe code. They are tracebacks, in `worker.log`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModtrainError(Exception):
    """Base of every error that modtrain raises on purpose; `str()` is one clear sentence for a person."""

    exit_code = 1


class InputError(ModtrainError):
    """A value from outside is wrong. The message names the value, what is allowed, and what to do."""

    exit_code = 2


class StopRequested(ModtrainError):
    """The run's `stop` file was found; everything is published."""

    exit_code = 3


class FencedOut(ModtrainError):
    """Another writer has published a version of this module that this worker does not know."""

    exit_code = 4


class Diverged(ModtrainError):
    """A loss or a weight is NaN or Inf."""

    exit_code = 5


class StorageError(ModtrainError):
    """Shared storage failed and retrying did not help."""

    exit_code = 6


class PeerTimeout(ModtrainError):
    """A wait for a peer passed its deadline."""

    exit_code = 7


class BackendSilent(ModtrainError):
    """A scheduler or a cluster does not answer; what runs there goes on, or does not."""

    exit_code = 8


class ClusterLost(ModtrainError):
    """A cluster is gone for good; the same launch on another one goes on."""

    exit_code = 8


class Preempted(ModtrainError):
    """SIGTERM or SIGUSR2 was obeyed; everything is published and the worker wants to be continued."""

    exit_code = 75


class Interrupted(ModtrainError):
    """Ctrl-C was obeyed; everything is published."""

    exit_code = 130


class CorruptCheckpoint(ModtrainError):
    """A published version does not verify: a size, a checksum or its `meta.json` is wrong."""


class MissingCheckpoint(ModtrainError):
    """The version is not there (any more): list again."""


FINAL_EXIT_CODES = frozenset({0, 2, 3, 4, 5, 130})
"""Exit codes after which starting the same command again at once cannot help, or was not wanted."""

OUTCOMES = {3: "stopped", 75: "preempted", 130: "stopped"}
"""The last word of a worker by its exit code; anything else but 0 has failed."""
CONSEQUENCES = (7, 4)
"""Exit codes of workers that were late, or overtaken: the cause is another one."""


def did_you_mean(wrong: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'translator'?` where a name of `allowed` is near, else an empty string."""
    near = difflib.get_close_matches(wrong, list(allowed), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
