"""StopRequest: the file that asks every worker of a run to finish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def blamed(placement: Iterable[Sequence[str]], stop: str | None) -> tuple[str, str] | None:
    """The worker that a stop request names as failed, and why: it may not have come so far as to say so itself."""
    name, failed, why = (stop or "").partition(" failed: ")
    return (name, why) if failed and name in map("+".join, placement) else None
