"""What of a module's checkpoints is whole, at a look: their meta, and the names and sizes of their files.

For whoever shows a run: nothing is waited for, no link is followed, and no weights are read. Deliberately not here:
reading for training, which checks every byte (`store.py`).
"""

from __future__ import annotations

import os
import stat

from modtrain.errors import CorruptCheckpoint
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import META, Checkpoint
from modtrain.storage.checkpoint_store import CheckpointStore


def newest_whole(store: CheckpointStore) -> tuple[Checkpoint | None, list[int]]:
    """The newest version that is whole, and the versions above it that are damaged; OSError where nothing is listed."""
    damaged: list[int] = []
    for version in reversed(store.versions()):
        try:
            checkpoint = _meta(store, version)
        except FileNotFoundError:
            continue  # pruned just now, or so new that this machine does not see all of it
        except (CorruptCheckpoint, OSError, RecursionError):
            damaged.append(version)
            continue
        if _is_whole(store, checkpoint):
            return checkpoint, damaged
        damaged.append(version)
    return None, damaged


def _meta(store: CheckpointStore, version: int) -> Checkpoint:
    path = store.folder(version) / META
    if not stat.S_ISDIR(os.lstat(path.parent).st_mode):
        raise CorruptCheckpoint(f"{path.parent} is no plain folder.")
    checkpoint = Checkpoint.unseal(filesystem.read_small(path, follow=False), path)
    if (checkpoint.version, checkpoint.module) != (version, store.module):
        raise CorruptCheckpoint(f"{path} belongs to {checkpoint.module} version {checkpoint.version}.")
    return checkpoint


def _is_whole(store: CheckpointStore, checkpoint: Checkpoint) -> bool:
    for file, told in checkpoint.files.items():
        try:
            found = os.lstat(store.folder(checkpoint.version) / file)
        except OSError:
            return False
        if not stat.S_ISREG(found.st_mode) or found.st_size != told.get("size"):
            return False
    return True
