"""A node-local cache of tensors that can be made again: `~/.cache/modtrain`, or `$XDG_CACHE_HOME/modtrain`.

A file appears by one rename and is verified whenever it is read; one that is broken is made again. Where the folder
cannot be used, the tensors are made every time. Deliberately not here: anything that another node or a run depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import safetensors.torch
from torch import Tensor

from modtrain.storage import filesystem

Tensors = dict[str, Tensor]

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 300.0
DIGEST_BYTES = hashlib.sha256().digest_size


def cached(name: str, make: Callable[[], Tensors]) -> Tensors:
    """What `make` returns, from the cache where it is there. `name` must say everything that the result depends on."""
    path = cache_folder() / f"{name}.tensors"
    found = _read(path)
    if found is not None:
        return found
    with _alone(path):
        found = _read(path)
        if found is None:
            found = make()
            _write(path, found)
        return found


def cache_folder() -> Path:
    """Where this user's caches live, by the XDG base directory specification."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "modtrain"
    try:
        return Path.home() / ".cache" / "modtrain"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"modtrain-{os.getuid()}"


def _read(path: Path) -> Tensors | None:
    """The tensors in a cache file; None where there is none or it does not verify."""
    try:
        content = memoryview(filesystem.read_file(path))
    except OSError:
        return None
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        log.warning("The cache file %s is broken; making it again.", path)
        return None
    return safetensors.torch.load(bytes(payload))


def _write(path: Path, tensors: Tensors) -> None:
    payload = safetensors.torch.save(tensors)
    try:
        filesystem.replace_file(path, hashlib.sha256(payload).digest() + payload)
    except OSError as error:
        log.info("Not cached: %s", error)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One worker of a node makes the file, the others wait for it; without a lock everybody makes it."""
    lock = filelock.FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log.info("No lock on the cache: %s", error)
    try:
        yield
    finally:
        lock.release()
