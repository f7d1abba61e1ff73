"""The only file that knows POSIX and NFS: publish a folder, replace a file, read, list, retry, wait.

What holds: a published folder appears whole, with everything in it on disk, by one rename that fails where the name is
taken. What is deliberately not here: any lock, and what the files mean (`store.py`, `run.py`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
"""Begins the name of every file or folder that is not published yet, or not any more."""

NAME_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
GONE = frozenset({errno.ENOENT, errno.ESTALE})
"""The name or the handle is no longer there: list again."""
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
_NO_NOTE = frozenset({errno.EINVAL, errno.ELOOP, errno.EFBIG, errno.ENXIO})


def publish_folder(parent: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Let the folder `parent/name` with these files appear by one rename, everything in it durable.

    Raises FileExistsError where the name is taken, any other OSError where storage fails; then nothing is left behind,
    as far as storage lets us clean up. On NFS a failed rename may have succeeded: the caller looks at what is there.
    """
    temporary = _temporary(parent)
    try:
        temporary.mkdir(parents=True)
        for file, content in files.items():
            write_file(temporary / file, content)
        sync_folder(temporary)
    except BaseException:
        remove_folder(temporary)
        raise
    try:
        os.rename(temporary, parent / name)
    except OSError as error:
        # By its name: had the rename succeeded after all, a stale cache would show us the published files here.
        retire_folder(temporary)
        if error.errno in NAME_TAKEN:
            raise FileExistsError(errno.EEXIST, "already published", str(parent / name)) from error
        raise
    sync_folder(parent)


def write_file(path: Path, content: bytes) -> None:
    """Create a new file and return when it is on disk. ENOSPC and EDQUOT may come as late as fsync or close."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a small file whole: a reader sees the old content or the new one."""
    temporary = _temporary(path.parent)
    try:
        write_file(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Append one line; one that a kill left torn is closed first, so that it costs only itself."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        rest = memoryview((b"\n" if torn else b"") + line.encode() + b"\n")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; some filesystems cannot sync a folder and need not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def read_file(path: Path, *, most: int | None = None, follow: bool = True) -> bytes:
    """The whole content, read into memory (a memory map of a lost server is an uncatchable SIGBUS).

    OSError where it is no plain file, since a reader would wait for a pipe for ever, or has more than `most` bytes;
    where not `follow`, a link is no plain file, wherever it leads.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)

    def content() -> bytes:
        descriptor = os.open(path, flags)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "no plain file", str(path))
            if most is not None and found.st_size > most:
                raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                return file.readall() if most is None else _at_most(file, most)
        finally:
            os.close(descriptor)

    return _again_if_stale(content)


def read_small(path: Path, *, follow: bool = True) -> bytes:
    """The same of a file that is never large: 4 MiB at most."""
    return read_file(path, most=4 << 20, follow=follow)


def read_note(path: Path) -> bytes | None:
    """A few words in a file, 64 KiB at most; None where there is none, empty where it is something else or longer."""
    try:
        return read_file(path, most=1 << 16, follow=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _NO_NOTE:
            return b""
        raise


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; none where it does not exist."""
    try:
        return read_file(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def names(folder: Path) -> list[str]:
    """The names in a folder, sorted, freshly listed; empty where it does not exist."""
    try:
        return sorted(_again_if_stale(lambda: os.listdir(folder)))
    except FileNotFoundError:
        return []


def remove_folder(path: Path) -> None:
    """Remove a folder that nobody needs any more; what cannot be removed is logged and left (`.nfs*`, a full disk)."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        log.warning("Could not remove all of %s; it is not needed any more, and its owner tries again later.", path)


def retire_folder(path: Path) -> None:
    """Remove a folder, published or not: first its name in one step, so that nobody sees, or publishes, half of it."""
    temporary = _temporary(path.parent)
    try:
        os.rename(path, temporary)
    except OSError as error:
        if error.errno not in GONE:
            log.warning("Could not remove %s: %s", path, error)
        return
    remove_folder(temporary)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed writer left in a folder; what cannot be removed is logged and left.

    Its writer may still live: a folder's name is taken away first, so that the publish under way fails as a whole.
    Were its files deleted one by one, the rename in between would publish what is left of them.
    """
    for name in names(folder):
        if name.startswith(TEMPORARY):
            _remove_temporary(folder / name)


def file_system(path: Path) -> tuple[str, list[str]]:
    """The type and the options of the file system that a folder lies on."""
    best, answer = -1, ("unknown", [""])
    with contextlib.suppress(OSError):
        for line in read_lines(Path("/proc/self/mountinfo")):
            mount, _, details = line.partition(" - ")
            point = Path(mount.split()[4].encode().decode("unicode_escape"))
            if path.is_relative_to(point) and len(point.parts) >= best:
                best, kind = len(point.parts), details.split()
                answer = kind[0], kind[-1].split(",")
    return answer


def forget(path: Path) -> None:
    """Let the next read come from storage, not from this node's cache, where the system allows it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def wait_until(ready: Callable[[], T | None], *, timeout_s: float, longest_pause_s: float = 0.5) -> T | None:
    """Ask `ready` again and again until it returns something, or None when `timeout_s` has passed."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.005
    while (answer := ready()) is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, longest_pause_s)
    return answer


def _again_if_stale(action: Callable[[], T], tries: int = 5) -> T:
    """ESTALE means that the file was replaced under an open handle: opening it again is the cure."""
    for _ in range(tries - 1):
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(0.02)
    return action()


def _at_most(file: io.FileIO, most: int) -> bytes:
    """The content of a file that somebody may let grow meanwhile."""
    pieces, left = list[bytes](), most
    while left > 0 and (piece := file.read(min(left, 1 << 16))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _temporary(folder: Path) -> Path:
    """A name that nobody has used before: one that a killed process left is never in the way."""
    return folder / f"{TEMPORARY}{uuid.uuid4().hex}"


def _remove_temporary(path: Path) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            retire_folder(path)
        else:
            path.unlink()
    except OSError as error:
        if error.errno not in GONE:
            log.warning("Could not remove %s: %s", path, error)
