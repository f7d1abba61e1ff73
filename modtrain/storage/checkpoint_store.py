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
from collections.abc import Callable
from pathlib import Path

from modtrain.errors import CorruptCheckpoint, MissingCheckpoint
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import META, Checkpoint, fingerprint

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
        return sorted(int(name) for name in filesystem.names(self.checkpoints) if _VERSION.fullmatch(name))

    def folder(self, version: int) -> Path:
        """Where a version lies."""
        return self.checkpoints / f"{version:08d}"

    def meta(self, version: int) -> Checkpoint:
        """What a version says of itself; MissingCheckpoint, CorruptCheckpoint."""
        path = self.folder(version) / META
        checkpoint = Checkpoint.unseal(self._content(path, filesystem.read_small), path)
        if (checkpoint.version, checkpoint.module) != (version, self.module):
            raise CorruptCheckpoint(f"{path} belongs to {checkpoint.module} version {checkpoint.version}.")
        return checkpoint

    def read(self, checkpoint: Checkpoint, file: str) -> bytes:
        """The verified content of one file of a version; MissingCheckpoint, CorruptCheckpoint."""
        path, expected = self.folder(checkpoint.version) / file, checkpoint.files.get(file)
        if expected is None:
            raise MissingCheckpoint(f"{path.parent} has no {file}; it has {', '.join(checkpoint.files)}.")
        content = self._content(path, filesystem.read_file)
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
        for line in filesystem.read_lines(self.path / "published.jsonl"):
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

        if not filesystem.wait_until(complete, timeout_s=LIST_AGAIN_S):
            for version, error in missing.items():
                _report_once(self.module, version, str(error))
        return [held[version] for version in sorted(held, reverse=True)[:count]]

    def _content(self, path: Path, read: Callable[[Path], bytes]) -> bytes:
        try:
            return read(path)
        except OSError as error:
            if error.errno in filesystem.GONE:
                raise MissingCheckpoint(f"{path} is not there any more.") from error
            raise CorruptCheckpoint(f"{path} cannot be read: {error}.") from error


@functools.lru_cache(maxsize=1000)
def _report_once(module: str, version: int, error: str) -> None:
    """Whoever waits for a peer asks for the same damaged version many times."""
    log.warning("Skipped version %d of %s: %s", version, module, error)
