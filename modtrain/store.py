"""CheckpointStore: the versions of one module as folders. One writer publishes, anybody reads, nothing ever changes.

A version is a folder `checkpoints/00000012/` that appears by one rename, together with `meta.json` (`checkpoint.py`),
which holds the size and sha256 of every file. Renaming onto an existing version fails, and that failure is the fence
between two writers of one module. Deliberately not here: tensors (`state.py`) and which peers a worker wants
(`peers.py`).
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modtrain import fs
from modtrain.checkpoint import EMA, META, STATE, WEIGHTS, Checkpoint, fingerprint
from modtrain.errors import CorruptCheckpoint, FencedOut, MissingCheckpoint

__all__ = ["EMA", "META", "STATE", "WEIGHTS", "Checkpoint", "CheckpointStore", "Publisher"]

log = logging.getLogger(__name__)

LIST_AGAIN_S = 1.0
"""How long a version that is listed but cannot be opened (just pruned, a stale cache) is looked for again."""
_VERSION = re.compile("[0-9]{8,}")


class CheckpointStore:
    """The published versions of one module, for readers. `path` is `<run>/modules/<module>`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.module = path.name
        self.checkpoints = path / "checkpoints"

    def versions(self) -> list[int]:
        """The versions that are there now, oldest first; the listing is fresh, no name is polled."""
        return sorted(int(name) for name in fs.names(self.checkpoints) if _VERSION.fullmatch(name))

    def folder(self, version: int) -> Path:
        """Where a version lies."""
        return self.checkpoints / f"{version:08d}"

    def meta(self, version: int) -> Checkpoint:
        """What a version says of itself; MissingCheckpoint, CorruptCheckpoint."""
        path = self.folder(version) / META
        checkpoint = Checkpoint.unseal(self._content(path, fs.read_small), path)
        if (checkpoint.version, checkpoint.module) != (version, self.module):
            raise CorruptCheckpoint(f"{path} belongs to {checkpoint.module} version {checkpoint.version}.")
        return checkpoint

    def read(self, checkpoint: Checkpoint, file: str) -> bytes:
        """The verified content of one file of a version; MissingCheckpoint, CorruptCheckpoint."""
        path, expected = self.folder(checkpoint.version) / file, checkpoint.files.get(file)
        if expected is None:
            raise MissingCheckpoint(f"{path.parent} has no {file}; it has {', '.join(checkpoint.files)}.")
        content = self._content(path, fs.read_file)
        if fingerprint(content) != expected:
            raise CorruptCheckpoint(f"{path} is damaged: its {len(content)} bytes are not those that {META} names.")
        return content

    def verify(self, version: int) -> Checkpoint:
        """Read and check everything in a version."""
        checkpoint = self.meta(version)
        for file in checkpoint.files:
            self.read(checkpoint, file)
        return checkpoint

    def newest(
        self, *, count: int = sys.maxsize, above: int = -1, where: Callable[[Checkpoint], bool] | None = None
    ) -> list[Checkpoint]:
        """The newest versions above one at hand, newest first, by their meta alone; OSError where nothing is listed."""
        found = self._newest(lambda checkpoint: b"" if where is None or where(checkpoint) else None, count, above)
        return [checkpoint for checkpoint, _ in found]

    def latest(self) -> Checkpoint | None:
        """The newest version whose meta verifies; OSError where the versions cannot be listed."""
        return next(iter(self.newest(count=1)), None)

    def read_newest(
        self, file: str, *, count: int = 1, above: int = -1, where: Callable[[Checkpoint], bool] | None = None
    ) -> list[tuple[Checkpoint, bytes]]:
        """The newest `count` versions above one at hand with the verified content of a file, newest first.

        Versions that do not verify are reported and left out, those without the file left out; where the owner prunes
        meanwhile, the folder is listed again. Storage that cannot be listed is reported: nothing newer is seen then.
        """

        def take(checkpoint: Checkpoint) -> bytes | None:
            wanted = file in checkpoint.files and (where is None or where(checkpoint))
            return self.read(checkpoint, file) if wanted else None

        try:
            return self._newest(take, count, above)
        except OSError as error:
            log.warning("Cannot list %s, going on with what is at hand: %s", self.checkpoints, error)
            return []

    def history(self) -> list[Checkpoint]:
        """Every version that was ever published, from `published.jsonl`; lines that are torn are left out."""
        found: dict[int, Checkpoint] = {}
        for line in fs.read_lines(self.path / "published.jsonl"):
            try:
                checkpoint = Checkpoint.unseal(line.encode(), self.path / "published.jsonl")
            except CorruptCheckpoint:
                continue
            found[checkpoint.version] = checkpoint
        return [found[version] for version in sorted(found)]

    def _newest(
        self, take: Callable[[Checkpoint], bytes | None], count: int, above: int
    ) -> list[tuple[Checkpoint, bytes]]:
        held: dict[int, tuple[Checkpoint, bytes]] = {}
        missing: dict[int, MissingCheckpoint] = {}

        def complete() -> bool | None:
            """One pass, newest first, over what is listed now; None where a part of it went missing meanwhile."""
            missing.clear()
            found = 0
            for version in reversed(self.versions()):
                if version <= above or found == count:
                    break
                try:
                    if version not in held and (content := take(checkpoint := self.meta(version))) is not None:
                        held[version] = checkpoint, content
                except MissingCheckpoint as error:
                    missing[version] = error
                except CorruptCheckpoint as error:
                    _report_once(self.module, version, str(error))
                found += version in held
            return None if missing else True

        if not fs.wait_until(complete, timeout_s=LIST_AGAIN_S):
            for version, error in missing.items():
                _report_once(self.module, version, str(error))
        return [held[version] for version in sorted(held, reverse=True)[:count]]

    def _content(self, path: Path, read: Callable[[Path], bytes]) -> bytes:
        try:
            return read(path)
        except OSError as error:
            if error.errno in fs.GONE:
                raise MissingCheckpoint(f"{path} is not there any more.") from error
            raise CorruptCheckpoint(f"{path} cannot be read: {error}.") from error


class Publisher:
    """The one writer of a module. A second one loses the race for a version number and gets FencedOut."""

    def __init__(self, store: CheckpointStore, writer: str, *, keep: int = 3, grace_s: float = 60.0) -> None:
        """Take the module over: clean up what a killed writer left, and write the lines that it could not.

        The newest `keep` versions stay, and whatever was superseded less than `grace_s` ago.
        """
        self.store, self.writer = store, writer
        self.keep, self.grace_s = keep, grace_s
        store.checkpoints.mkdir(parents=True, exist_ok=True)
        fs.sync_folder(store.path)
        fs.remove_temporaries(store.path)
        fs.remove_temporaries(store.checkpoints)
        found = store.versions()
        self.last = max(found, default=-1)
        self._present = {checkpoint.version: checkpoint for checkpoint in reversed(list(store.newest()))}
        self._unreadable = frozenset(found).difference(self._present)
        """Not ours to delete: what cannot be read now may be readable when storage has recovered."""
        self._superseded = dict.fromkeys(self._present, time.monotonic())
        self._attempt: Checkpoint | None = None
        logged = {checkpoint.version for checkpoint in store.history()}
        self._unlogged = [checkpoint for version, checkpoint in self._present.items() if version not in logged]
        self._log_published()

    def publish(
        self,
        files: Mapping[str, bytes],
        *,
        epoch: int,
        step: int,
        metrics: Mapping[str, float] | None = None,
        peers: Mapping[str, Mapping[str, Any]] | None = None,
        final: bool = False,
    ) -> Checkpoint:
        """Publish the next version: OSError where storage fails (nothing is left behind), FencedOut."""
        self._check_fence()
        checkpoint = Checkpoint(
            module=self.store.module,
            version=self.last + 1,
            epoch=epoch,
            step=step,
            full=STATE in files,
            final=final,
            files={name: fingerprint(content) for name, content in files.items()},
            metrics=dict(metrics or {}),
            peers={name: dict(peer) for name, peer in (peers or {}).items()},
            writer=self.writer,
            published_at=time.time(),
        )
        self._appear(checkpoint, {**files, META: checkpoint.seal()})
        self._record(checkpoint)
        try:
            self._check_fence()
        except OSError as error:
            log.warning("Published %s, the line about it follows later: %s", self.store.folder(self.last), error)
            return checkpoint
        self._log_published()
        self.prune()
        return checkpoint

    def prune(self) -> None:
        """Remove what is neither new, nor needed to resume, nor final, nor superseded just now; a failure is logged.

        Also what an overtaken writer published below us, what could not be removed before, and old temporaries.
        """
        full = [version for version, checkpoint in self._present.items() if checkpoint.full][-2:]
        recent = list(self._present)[-max(1, self.keep) :]
        graced = [version for version, at in self._superseded.items() if time.monotonic() - at < self.grace_s]
        self._present = {
            version: checkpoint
            for version, checkpoint in self._present.items()
            if checkpoint.final or version in (*recent, *full, *graced)
        }
        try:
            fs.remove_temporaries(self.store.checkpoints)
            for version in self.store.versions():
                if version < self.last and version not in self._present and version not in self._unreadable:
                    fs.retire_folder(self.store.folder(version))
        except OSError as error:
            log.warning("Could not clean up %s, trying again later: %s", self.store.checkpoints, error)

    def _appear(self, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
        self._attempt, folder = checkpoint, self.store.folder(checkpoint.version)
        try:
            fs.publish_folder(self.store.checkpoints, folder.name, files)
        except OSError as error:
            # On NFS a rename may have succeeded and its answer been lost. The listing drops a name cached as missing.
            newest = self._newest()
            if self._is_there(checkpoint):
                log.warning("Publishing %s reported an error, but it is there: %s", folder, error)
            elif isinstance(error, FileExistsError) or newest > checkpoint.version:
                raise self._fenced(newest) from error
            else:
                raise

    def _record(self, checkpoint: Checkpoint) -> None:
        self._superseded[self.last] = time.monotonic()
        self.last = checkpoint.version
        self._present[self.last] = checkpoint
        self._unlogged.append(checkpoint)

    def _is_there(self, checkpoint: Checkpoint) -> bool:
        """By all that it says: a restarted worker may bear its predecessor's name. OSError where it cannot be seen."""
        try:
            return fs.read_file(self.store.folder(checkpoint.version) / META) == checkpoint.seal()
        except FileNotFoundError:
            if checkpoint.version in self.store.versions():
                raise  # this client still has its name cached as missing
            return False

    def _newest(self) -> int:
        return max(self.store.versions(), default=-1)

    def _check_fence(self) -> None:
        """Leave where somebody else has published above us.

        Asked before a publish and again after it: while we slept in between, a successor may have published and pruned
        the very number that we just took. Ours then lies below the newest, where readers, who only go up, leave it,
        and the successor removes it. What appeared after its publish had reported an error is adopted.
        """
        newest, attempt = self._newest(), self._attempt
        if attempt and newest == self.last + 1 == attempt.version and self._is_there(attempt):
            self._record(attempt)
        elif newest > self.last:
            raise self._fenced(newest)

    def _fenced(self, version: int) -> FencedOut:
        return FencedOut(
            f"Version {version} of {self.store.module} was published by another worker; there is one writer a module, "
            f"so this one leaves. Nothing is lost: {self.store.path} goes on with the other."
        )

    def _log_published(self) -> None:
        """One line a version in `published.jsonl`; what storage refuses now is written at the next publish."""
        while self._unlogged:
            try:
                fs.append_line(self.store.path / "published.jsonl", self._unlogged[0].seal().decode(), durable=True)
            except OSError as error:
                log.warning("Could not write %s/published.jsonl, trying again later: %s", self.store.path, error)
                return
            self._unlogged.pop(0)


@functools.lru_cache(maxsize=1000)
def _report_once(module: str, version: int, error: str) -> None:
    """Whoever waits for a peer asks for the same damaged version many times."""
    log.warning("Skipped version %d of %s: %s", version, module, error)
