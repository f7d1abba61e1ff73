"""Node-local cache of tensors that can be computed again: `~/.cache/modtrain`, or `$XDG_CACHE_HOME/modtrain`.

A file appears by one rename and is verified at every read; a broken one is replaced. Where the folder cannot be used,
the tensors are computed every time. No run and no other node depends on the cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import safetensors.torch
from torch import Tensor

from modtrain.errors import message_of
from modtrain.storage import filesystem

Tensors = dict[str, Tensor]

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 300.0
DIGEST_BYTES = hashlib.sha256().digest_size


def cached(name: str, make: Callable[[], Tensors]) -> Tensors:
    """The result of `make`, from the cache if it is there. `name` must contain everything that it depends on."""
    path = _folder() / f"{name}.tensors"
    if (tensors := _read(path)) is not None:
        return tensors
    # One worker of a node computes and writes the file. Where locks do not work, each of them does.
    lock = filelock.FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.info("The cache cannot be locked: %s", message_of(error))
    try:
        if (tensors := _read(path)) is None:
            tensors = make()
            payload = safetensors.torch.save(tensors)
            try:
                filesystem.replace_file(path, hashlib.sha256(payload).digest() + payload)
            except OSError as error:
                log.info("%s was not cached: %s", path.name, message_of(error))
        return tensors
    finally:
        lock.release()


def _folder() -> Path:
    """By the XDG base directory specification."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "modtrain"
    try:
        return Path.home() / ".cache" / "modtrain"
    except RuntimeError:  # no home folder, as in some containers
        return Path(tempfile.gettempdir()) / f"modtrain-{os.getuid()}"


def _read(path: Path) -> Tensors | None:
    """The tensors in a cache file; None if it does not exist or does not verify."""
    try:
        content = filesystem.read_file(path)
    except OSError:
        return None
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        log.warning("The cache file %s is broken and will be replaced.", path)
        return None
    return safetensors.torch.load(payload)
