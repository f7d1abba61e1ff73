"""Stop request: the file `stop` of a run or sweep, JSON; any other file of that name is a request of kind `asked`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from modtrain.storage import filesystem
from modtrain.storage.layout import STOP_FILE

StopKind = Literal["asked", "cancelled", "pruned", "worker_failed", "ended"]
NO_REASON = "no reason given"
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class StopRequest:
    """Why a run or a sweep is to stop. The README beside this file lists the kinds."""

    kind: StopKind = "asked"
    reason: str = NO_REASON
    sender: str = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether the request records how the run ended, and is kept when a stop is asked for as well."""
        return self.kind in ("pruned", "worker_failed", "ended")

    @property
    def outcome(self) -> str:
        """For sentences about a run that has stopped: `stopped (lunch)`, `cancelled`."""
        word = "cancelled" if self.kind == "cancelled" else "stopped"
        return word if str(self) == word else f"{word} ({self})"

    def __str__(self) -> str:
        """For messages: the reason, and the failed worker."""
        return f"{self.sender} failed: {self.reason}" if self.kind == "worker_failed" else self.reason


_FORM = TypeAdapter(StopRequest)


def write_stop_request(folder: Path, request: StopRequest) -> None:
    """Replace the stop request of a folder."""
    filesystem.replace_file(folder / STOP_FILE, _FORM.dump_json(request))


def read_stop_request(folder: Path) -> StopRequest | None:
    """The stop request of a folder; OSError where storage does not answer.

    The folder is listed, since an NFS client remembers for up to a minute that a name was missing.
    """
    return parse_stop_file(folder) if STOP_FILE in filesystem.names(folder) else None


def parse_stop_file(folder: Path) -> StopRequest | None:
    """The stop request of a folder known to hold one; None where it was removed meanwhile."""
    content = filesystem.read_plain(folder / STOP_FILE, most=_MOST_BYTES)
    if content is None:
        return None
    try:
        return _FORM.validate_json(content, strict=True)
    except ValueError:
        return StopRequest(reason=content.decode(errors="replace").strip() or NO_REASON)


def clear_stop_request(folder: Path) -> None:
    """Withdraw a stop request."""
    (folder / STOP_FILE).unlink(missing_ok=True)
