"""Publisher: the one writer of a module's checkpoints, fenced by a rename that fails where the version exists."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from modtrain.errors import FencedOut, InputError, message_of
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import META, STATE, Checkpoint, fingerprint
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.layout import PINS_FILE
from modtrain.storage.manifest import read_json

log = logging.getLogger(__name__)

GRACE_S = 60.0
"""How long a superseded version stays by default: an NFS client may list what was there so long ago."""


class Publisher:
    """The one writer of a module. A second writer loses the race for a version number and gets FencedOut."""

    def __init__(
        self,
        store: CheckpointStore,
        writer: str,
        *,
        keep: int = 3,
        keep_epochs: Collection[int] = (),
        grace_s: float = GRACE_S,
    ) -> None:
        """Take the module over: remove what a killed writer left, and write the lines that it could not.

        The newest `keep` versions are kept, full ones of `keep_epochs`, and those superseded less than `grace_s` ago.
        """
        self.store, self.writer = store, writer
        self.keep, self.keep_epochs, self.grace_s = keep, keep_epochs, grace_s
        filesystem.make_folder(store.checkpoints)
        filesystem.remove_temporaries(store.path)
        filesystem.remove_temporaries(store.checkpoints)
        versions = store.versions()
        self.last = max(versions, default=-1)
        self._present = {checkpoint.version: checkpoint for checkpoint in reversed(store.newest())}
        self._unreadable = frozenset(versions).difference(self._present)
        """Never deleted: what cannot be read now may be readable when storage has recovered."""
        self._superseded = dict.fromkeys(self._present, time.monotonic())
        self._retained = frozenset[int]()
        self.pins = _read_pins(store.path / PINS_FILE)
        """Versions that are kept for good, each with the reason."""
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
        """Publish the next version; FencedOut, or OSError where storage fails and nothing is left behind."""
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
        self._rename_into_place(checkpoint, {**files, META: checkpoint.seal()})
        self._record(checkpoint)
        try:
            self._check_fence()
        except OSError as error:
            log.warning("Published %s; its line is written later: %s", self.store.folder(self.last), message_of(error))
            return checkpoint
        self._log_published()
        self.prune()
        return checkpoint

    def present(self) -> list[Checkpoint]:
        """The versions that were neither removed nor found unreadable, ascending."""
        return list(self._present.values())

    def retain(self, versions: Iterable[int]) -> None:
        """Keep these versions until the next call; those of the call before get a grace time from now on."""
        retained = frozenset(versions)
        self._superseded |= dict.fromkeys(self._retained - retained, time.monotonic())
        self._retained = retained

    def pin(self, pins: Mapping[int, str]) -> None:
        """Keep these versions, each for a reason, until the next call; written to `pins.json` where it changes."""
        if pins == self.pins:
            return
        self._superseded |= dict.fromkeys(self.pins.keys() - pins.keys(), time.monotonic())
        content = json.dumps({str(version): reason for version, reason in sorted(pins.items())}, indent=2)
        try:
            filesystem.replace_file(self.store.path / PINS_FILE, content.encode())
        except OSError as error:  # they hold all the same, and are written with the next ones
            log.warning("Could not write %s: %s", self.store.path / PINS_FILE, message_of(error))
        self.pins = dict(pins)

    def prune(self) -> None:
        """Remove versions that are neither recent, needed to resume, of an end, pinned, retained nor in their grace.

        Also removes what an overtaken writer published below, and temporaries. A failure is logged.
        """
        full = [version for version, checkpoint in self._present.items() if checkpoint.full][-2:]
        recent = list(self._present)[-max(1, self.keep) :]
        now = time.monotonic()
        self._superseded = {version: at for version, at in self._superseded.items() if now - at < self.grace_s}
        needed = {*recent, *full, *self.pins, *self._retained, *self._superseded}
        self._present = {
            version: checkpoint
            for version, checkpoint in self._present.items()
            if checkpoint.final or (checkpoint.full and checkpoint.epoch in self.keep_epochs) or version in needed
        }
        try:
            filesystem.remove_temporaries(self.store.checkpoints)
            for version in self.store.versions():
                if version < self.last and version not in self._present and version not in self._unreadable:
                    filesystem.retire_folder(self.store.folder(version))
        except OSError as error:
            log.warning("Could not prune %s, trying again later: %s", self.store.checkpoints, message_of(error))

    def _rename_into_place(self, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
        self._attempt, folder = checkpoint, self.store.folder(checkpoint.version)
        try:
            filesystem.publish_folder(self.store.checkpoints, folder.name, files)
        except OSError as error:
            # On NFS a rename may have succeeded and its answer been lost. The listing drops a name cached as missing.
            newest = max(self.store.versions(), default=-1)
            if self._is_present(checkpoint):
                log.warning("Publishing %s reported an error, but succeeded: %s", folder, message_of(error))
            elif isinstance(error, FileExistsError) or newest > checkpoint.version:
                raise self._fenced(newest) from error
            else:
                raise

    def _record(self, checkpoint: Checkpoint) -> None:
        self._superseded[self.last] = time.monotonic()
        self.last = checkpoint.version
        self._present[self.last] = checkpoint
        self._unlogged.append(checkpoint)

    def _is_present(self, checkpoint: Checkpoint) -> bool:
        """Whether exactly this checkpoint was published; all of its meta counts, since a restart may reuse a name.

        OSError where it cannot be seen.
        """
        try:
            return filesystem.read_file(self.store.folder(checkpoint.version) / META) == checkpoint.seal()
        except FileNotFoundError:
            if checkpoint.version in self.store.versions():
                raise  # this client still has the name cached as missing
            return False

    def _check_fence(self) -> None:
        """Raise FencedOut where another writer has published above this one's newest version.

        Checked before a publish and again after it: in between, another writer may have published and pruned the very
        number that was just taken. This version then lies below the newest, where readers ignore it, and the other
        writer removes it. A version that appeared although its publish reported an error is adopted.
        """
        newest, attempt = max(self.store.versions(), default=-1), self._attempt
        if attempt and newest == self.last + 1 == attempt.version and self._is_present(attempt):
            self._record(attempt)
        elif newest > self.last:
            raise self._fenced(newest)

    def _fenced(self, version: int) -> FencedOut:
        return FencedOut(
            f"Version {version} of {self.store.module} was published by another worker, and a module has one writer; "
            f"this worker exits. Nothing is lost: the other worker continues in {self.store.path}."
        )

    def _log_published(self) -> None:
        """Append one line a version to `published.jsonl`; what storage refuses is written at the next publish."""
        while self._unlogged:
            line = self._unlogged[0].seal().decode()
            try:
                filesystem.append_line(self.store.published, line, durable=True)
            except OSError as error:
                log.warning("Could not write %s, trying again later: %s", self.store.published, message_of(error))
                return
            self._unlogged.pop(0)


def _read_pins(path: Path) -> dict[int, str]:
    """The pins of an earlier worker; none where the file is damaged, which the next ones replace."""
    try:
        values = read_json(path)
    except InputError as error:
        log.warning("%s", error)
        return {}
    return {int(version): str(reason) for version, reason in values.items() if version.isdecimal()}
