"""Publisher: the one writer of a module's checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from modtrain.errors import FencedOut
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import META, STATE, Checkpoint, fingerprint
from modtrain.storage.checkpoint_store import CheckpointStore, log


class Publisher:
    """The one writer of a module. A second one loses the race for a version number and gets FencedOut."""

    def __init__(self, store: CheckpointStore, writer: str, *, keep: int = 3, grace_s: float = 60.0) -> None:
        """Take the module over: clean up what a killed writer left, and write the lines that it could not.

        The newest `keep` versions stay, and whatever was superseded less than `grace_s` ago.
        """
        self.store, self.writer = store, writer
        self.keep, self.grace_s = keep, grace_s
        store.checkpoints.mkdir(parents=True, exist_ok=True)
        filesystem.sync_folder(store.path)
        filesystem.remove_temporaries(store.path)
        filesystem.remove_temporaries(store.checkpoints)
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
            filesystem.remove_temporaries(self.store.checkpoints)
            for version in self.store.versions():
                if version < self.last and version not in self._present and version not in self._unreadable:
                    filesystem.retire_folder(self.store.folder(version))
        except OSError as error:
            log.warning("Could not clean up %s, trying again later: %s", self.store.checkpoints, error)

    def _appear(self, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
        self._attempt, folder = checkpoint, self.store.folder(checkpoint.version)
        try:
            filesystem.publish_folder(self.store.checkpoints, folder.name, files)
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
            return filesystem.read_file(self.store.folder(checkpoint.version) / META) == checkpoint.seal()
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
                filesystem.append_line(
                    self.store.path / "published.jsonl", self._unlogged[0].seal().decode(), durable=True
                )
            except OSError as error:
                log.warning("Could not write %s/published.jsonl, trying again later: %s", self.store.path, error)
                return
            self._unlogged.pop(0)
