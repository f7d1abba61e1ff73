"""CheckpointStore: the published versions of one module, for readers; `publisher.py` writes them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modtrain.errors import CorruptCheckpoint, MissingCheckpoint, ModtrainError, message_of
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import META, Checkpoint, fingerprint, unsealed
from modtrain.storage.json_lines import MOST_BYTES
from modtrain.storage.layout import CHECKPOINTS, PUBLISHED_FILE

log = logging.getLogger(__name__)

LIST_AGAIN_S = 1.0
"""How long a version that is listed but cannot be opened (just pruned, a stale cache) is looked for."""
_VERSION = re.compile("[0-9]{8,}")
Where = Callable[[Checkpoint], bool]


@dataclass(frozen=True)
class Newest:
    """The newest intact version of a module, and the damaged versions above it, newest first."""

    checkpoint: Checkpoint | None
    damaged: tuple[int, ...] = ()


class CheckpointStore:
    """The published versions of one module. `path` is `<run>/modules/<module>`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.module = path.name
        self.checkpoints = path / CHECKPOINTS
        self.published = path / PUBLISHED_FILE

    def versions(self) -> list[int]:
        """The versions present, ascending, from a fresh listing; OSError where it fails."""
        return sorted(int(name) for name in filesystem.names(self.checkpoints) if _VERSION.fullmatch(name))

    def folder(self, version: int) -> Path:
        return self.checkpoints / f"{version:08d}"

    def meta(self, version: int, *, follow: bool = True) -> Checkpoint:
        """The verified `meta.json` of a version; MissingCheckpoint, CorruptCheckpoint."""
        path = self.folder(version) / META
        checkpoint = Checkpoint.unseal(self._content(path, most=filesystem.SMALL_BYTES, follow=follow), path)
        if (checkpoint.version, checkpoint.module) != (version, self.module):
            raise CorruptCheckpoint(f"{path} belongs to {checkpoint.module} version {checkpoint.version}.")
        return checkpoint

    def read(self, checkpoint: Checkpoint, file: str) -> bytes:
        """The verified content of one file of a version; MissingCheckpoint, CorruptCheckpoint."""
        path, expected = self.folder(checkpoint.version) / file, checkpoint.files.get(file)
        if expected is None:
            raise MissingCheckpoint(f"{path.parent} has no {file}; it has {', '.join(checkpoint.files)}.")
        content = self._content(path, most=expected["size"])
        if fingerprint(content) != expected:
            raise CorruptCheckpoint(f"{path} is damaged: its {len(content)} bytes are not those that {META} names.")
        return content

    def verify(self, version: int) -> Checkpoint:
        """Read and check every file of a version; MissingCheckpoint, CorruptCheckpoint."""
        checkpoint = self.meta(version)
        for file in checkpoint.files:
            self.read(checkpoint, file)
        return checkpoint

    def newest(self, *, count: int = sys.maxsize, where: Where = bool) -> list[Checkpoint]:
        """The newest `count` versions, newest first, by their meta alone; OSError if storage fails to give one."""
        selected = self._newest(lambda checkpoint: b"" if where(checkpoint) else None, count, strict=True)
        return [checkpoint for checkpoint, _ in selected]

    def latest(self) -> Checkpoint | None:
        """The newest version whose meta verifies; OSError if storage fails to give one."""
        return next(iter(self.newest(count=1)), None)

    def read_newest(
        self, file: str, *, count: int = 1, above: int = -1, where: Where = bool
    ) -> list[tuple[Checkpoint, bytes]]:
        """The newest `count` versions above `above` with the verified content of a file, newest first.

        Versions that do not verify are logged and skipped, those without the file skipped; a folder that the owner
        prunes meanwhile is listed again. Where listing fails it is logged, and nothing newer is returned.
        """

        def content_of(checkpoint: Checkpoint) -> bytes | None:
            return self.read(checkpoint, file) if file in checkpoint.files and where(checkpoint) else None

        try:
            return self._newest(content_of, count, above)
        except OSError as error:
            log.warning("Cannot list %s, continuing with the versions at hand: %s", self.checkpoints, message_of(error))
            return []

    def newest_intact(self) -> Newest:
        """Newest intact checkpoint, without reading weights: by its meta and the sizes of its files.

        Waits for nothing and follows no link; OSError where listing fails.
        """
        damaged: list[int] = []
        for version in reversed(self.versions()):
            try:
                checkpoint = self.meta(version, follow=False)
                if self._has_sizes(checkpoint):
                    return Newest(checkpoint, tuple(damaged))
            except MissingCheckpoint:
                continue  # pruned meanwhile, or too new for this client's cache
            except CorruptCheckpoint:
                pass
            damaged.append(version)
        return Newest(None, tuple(damaged))

    def history(self) -> list[Checkpoint]:
        """Every version ever published, ascending, from the lines of `published.jsonl` whose seal is intact."""
        lines = (filesystem.read_plain(self.published, most=MOST_BYTES) or b"").splitlines()
        sealed = [checkpoint for line in lines if (checkpoint := unsealed(line, self.published))]
        by_version = {each.version: each for each in sealed if each.module == self.module}
        return [by_version[version] for version in sorted(by_version)]

    def _has_sizes(self, checkpoint: Checkpoint) -> bool:
        with contextlib.suppress(OSError):
            for file, expected in checkpoint.files.items():
                status = os.lstat(self.folder(checkpoint.version) / file)
                if not stat.S_ISREG(status.st_mode) or status.st_size != expected.get("size"):
                    return False
            return True
        return False

    def _newest(
        self, content_of: Callable[[Checkpoint], bytes | None], count: int, above: int = -1, *, strict: bool = False
    ) -> list[tuple[Checkpoint, bytes]]:
        """With `strict` a version that storage fails to give is an OSError, else it is skipped."""
        held: dict[int, tuple[Checkpoint, bytes]] = {}
        missing: dict[int, ModtrainError] = {}

        def complete() -> bool | None:
            """One pass over a listing, newest first; None where a version in it is to be looked for again."""
            missing.clear()
            selected = 0
            for version in reversed(self.versions()):
                if version <= above or selected == count:
                    break
                try:
                    if version not in held and (content := content_of(checkpoint := self.meta(version))) is not None:
                        held[version] = checkpoint, content
                except MissingCheckpoint as error:
                    missing[version] = error
                except CorruptCheckpoint as error:
                    if strict and filesystem.fault_of(error):
                        missing[version] = error
                    else:
                        _log_once(self.module, version, str(error))
                selected += version in held
            return None if missing else True

        if not filesystem.wait_until(complete, timeout_s=LIST_AGAIN_S):
            for version, error in missing.items():
                if isinstance(error, CorruptCheckpoint) and (fault := filesystem.fault_of(error)):
                    raise fault
                _log_once(self.module, version, str(error))
        return [held[version] for version in sorted(held, reverse=True)[:count]]

    def _content(self, path: Path, *, most: int | None = None, follow: bool = True) -> bytes:
        try:
            return filesystem.read_file(path, most=most, follow=follow)
        except OSError as error:
            if error.errno in filesystem.GONE:
                raise MissingCheckpoint(f"{path} no longer exists.") from error
            if error.errno == filesystem.TOO_LARGE:
                raise CorruptCheckpoint(f"{path} is damaged: it has {error.strerror}.") from error
            raise CorruptCheckpoint(f"{path} cannot be read: {error.strerror or error}.") from error


@functools.lru_cache(maxsize=1000)
def _log_once(module: str, version: int, error: str) -> None:
    """A worker that waits for a peer reads the same damaged version many times."""
    log.warning("Skipped version %d of %s: %s", version, module, error)
