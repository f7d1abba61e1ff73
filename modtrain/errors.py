"""Exceptions that modtrain raises on purpose, and the exit code of each.

    ModtrainError                 1   something failed; the message says what, what is allowed and what to do
    ├── InputError                2   wrong option, config, recipe, data folder or name; nothing was trained
    ├── StopRequested             3   exit after `modtrain stop`; everything is published
    ├── FencedOut                 4   another worker publishes this module now; this one exits
    ├── Diverged                  5   NaN or Inf in a loss or a weight; never published
    ├── StorageError              6   shared storage has failed for long (15 minutes); the same command resumes
    ├── RunMoved                  6   the run's folder was moved or deleted while a worker trained
    ├── PeerTimeout               7   a peer did not publish in time
    ├── BackendSilent             8   the scheduler or cluster does not answer; the state of the jobs is unknown
    ├── ClusterLost               8   the cluster, or the way to it, is gone for good, and its jobs with it
    ├── Preempted                75   exit after a signal or at a time limit; everything is published, to be continued
    ├── Interrupted             130   exit after Ctrl-C; everything is published
    ├── CorruptCheckpoint         1   a version does not verify; readers take the one before
    └── MissingCheckpoint         1   a version is not there any more; readers list the folder again

Exit code 0 is a finished run. 75 is EX_TEMPFAIL of BSD's sysexits.h: a launcher or job script that sees it starts the
same command again. An exception of any other type is a bug, or comes from a recipe's own code; its traceback is in
`worker.log`, and the exit code is 1 (6 where it reports a failure of storage).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class ModtrainError(Exception):
    """Base of all exceptions that modtrain raises on purpose. `str()` is the message that a user sees."""

    exit_code = 1


class InputError(ModtrainError):
    """A value from outside is wrong. The message names the value, what is allowed, and what to do."""

    exit_code = 2


class StopRequested(ModtrainError):
    """The run has a `stop` file. Raised when everything is published."""

    exit_code = 3


class FencedOut(ModtrainError):
    """Another writer has published a version of this module."""

    exit_code = 4


class Diverged(ModtrainError):
    """A loss or a weight is NaN or Inf."""

    exit_code = 5


class StorageError(ModtrainError):
    """Shared storage failed, and so did the retries."""

    exit_code = 6


class RunMoved(StorageError):
    """The folder of a run no longer holds it. Nothing is created at its old place."""


class PeerTimeout(ModtrainError):
    """A wait for a peer passed its deadline."""

    exit_code = 7


class BackendSilent(ModtrainError):
    """A scheduler or a cluster does not answer. Its jobs may still be running."""

    exit_code = 8


class ClusterLost(ModtrainError):
    """A cluster is gone for good. The same launch on another cluster resumes the run."""

    exit_code = 8


class Preempted(ModtrainError):
    """A signal arrived, or the job's time ends. Raised when everything is published; the same command resumes."""

    exit_code = 75


class Interrupted(ModtrainError):
    """Ctrl-C was pressed. Raised when everything is published."""

    exit_code = 130


class CorruptCheckpoint(ModtrainError):
    """A published version does not verify: a size, a checksum or its `meta.json` is wrong."""


class MissingCheckpoint(ModtrainError):
    """The version does not exist, or no longer: list the folder again."""


FINAL_EXIT_CODES = frozenset({0, 2, 3, 4, 5, 130})
"""Exit codes after which the same command is not started again: it cannot help, or was not wanted."""


def error_of(exit_code: int | None) -> type[ModtrainError]:
    """The exception of a worker that ended with an exit code; ModtrainError where none has this code."""
    of_its_own = (each for each in ModtrainError.__subclasses__() if "exit_code" in vars(each))
    return next((each for each in of_its_own if each.exit_code == exit_code), ModtrainError)


ON_REQUEST = (StopRequested, Preempted, Interrupted)
"""Raised in a worker that has published everything and exits because it was asked to; no failures."""
STOPPED = frozenset(error.exit_code for error in ON_REQUEST)
"""Exit codes of such workers."""
OUTCOMES = {StopRequested.exit_code: "stopped", Preempted.exit_code: "preempted", Interrupted.exit_code: "stopped"}
"""State of such a worker by its exit code. 0 is `finished`, every other code `failed`."""
CONSEQUENCES = (PeerTimeout.exit_code, FencedOut.exit_code)
"""Exit codes of workers that failed because of another worker; the cause is to be looked for there."""


def plain(text: str, keep: str = "") -> str:
    """Text with control characters and bytes that are not UTF-8 escaped, except the characters to `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """Python puts a byte that is not UTF-8 into the name of a file as a character from U+DC80 to U+DCFF."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def message_of(error: BaseException) -> str:
    """The message of an exception; that of the operating system without its number, but with the file."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    return f"{error.strerror} ({error.filename})" if error.filename else error.strerror


def counted(number: int, noun: str) -> str:
    """`1 epoch`, `3 epochs`, `3 batches`."""
    ending = "es" if noun.endswith(("tch", "s", "x")) else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def shortened(names: Sequence[str], most: int) -> str:
    """`a, b and 3 more` of names, of which at most so many are shown."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def ranges(numbers: Iterable[int]) -> str:
    """`0, 4, 816 to 1301` of numbers in rising order; of more than five ranges only the first and last ones."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    texts = [f"{low} to {high}" if high > low + 2 else ", ".join(map(str, range(low, high + 1))) for low, high in found]
    return ", ".join(texts) if len(texts) <= 5 else f"{', '.join(texts[:2])} ... {', '.join(texts[-2:])}"


def did_you_mean(wrong: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'translator'?` with the closest name of `allowed`; empty where none is close.

    The dashes before options do not count: they would make all options alike.
    """
    names = {name.lstrip("-"): name for name in allowed}
    near = difflib.get_close_matches(wrong.lstrip("-"), names, n=1)
    return f" Did you mean {names[near[0]]!r}?" if near else ""


def did_you_mean_file(wrong: Path, beside: Iterable[str]) -> str:
    """As `did_you_mean`, for a file and the names of others: a suffix that all have makes none of them close."""
    stems = {Path(name).stem: name for name in beside}
    near = difflib.get_close_matches(wrong.stem, stems, n=1)
    return f" Did you mean {stems[near[0]]!r}?" if near else ""


def one_of(names: Iterable[str]) -> str:
    """`one of local, ray, slurm`; of a single name, the name."""
    known = list(names)
    return f"one of {', '.join(known)}" if len(known) > 1 else "".join(known)
