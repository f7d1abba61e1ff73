"""What each scenario publishes, and the checks after any fault."""

from __future__ import annotations

from pathlib import Path

from modtrain.errors import FencedOut
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import EMA, STATE, WEIGHTS, Checkpoint
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher

PUBLISHED, REFUSED, FENCED = 0, 10, 11
"""Results of an attempt to publish; exit codes of a child."""


def files(seed: int, size: int = 2000) -> dict[str, bytes]:
    """A full checkpoint's files."""
    return {name: bytes([seed % 256]) * size + name.encode() for name in (WEIGHTS, EMA, STATE)}


def publish(publisher: Publisher, times: int = 1, content: dict[str, bytes] | None = None) -> int:
    """Publish some versions; the result."""
    try:
        for time in range(times):
            publisher.publish(content or files(time), epoch=time, step=time)
    except FencedOut:
        return FENCED
    except OSError:
        return REFUSED
    return PUBLISHED


def problems(store: CheckpointStore) -> list[str]:
    """What is wrong for a reader, or for the next writer; empty if nothing is."""
    errors = []
    newest = max(store.versions(), default=-1)
    for version in store.versions():
        try:
            store.verify(version)
        except Exception as error:
            errors.append(f"version {version} does not verify: {error!r}")
    publisher = Publisher(store, "successor", keep=1, grace_s=0)
    if publisher.publish(files(7), epoch=1, step=1).version != newest + 1:
        errors.append("the next writer did not go on from the newest version")
    leftovers = [str(path) for path in store.path.rglob(f"{filesystem.TEMPORARY}*")]
    if leftovers:
        errors.append(f"left behind: {leftovers}")
    lines = {line for line in filesystem.read_lines(store.path / "published.jsonl") if _sound(line)}
    if [checkpoint.version for checkpoint in store.history()] != list(range(newest + 2)) or len(lines) != newest + 2:
        errors.append(f"published.jsonl is not mended: {len(lines)} different lines for {newest + 2} versions")
    return errors


def _sound(line: str) -> bool:
    try:
        return bool(Checkpoint.unseal(line.encode(), Path("published.jsonl")))
    except Exception:
        return False
