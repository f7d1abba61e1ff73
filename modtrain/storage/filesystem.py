"""POSIX and NFS: publish a folder by one rename, replace a file, open, read, list, retry and wait. No lock is involved.

`ESTALE` (the file was replaced under an open handle) is cured by opening again. Only ENOENT is "nothing there".
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from modtrain.errors import ModtrainError, StorageError, message_of

T = TypeVar("T")
log = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
"""Prefix of the name of every file or folder that is not published yet, or is being removed."""
SMALL_BYTES = 4 << 20
"""Largest size of a small file, such as `run.json` or `meta.json`."""

NAME_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})
GONE = frozenset({errno.ENOENT, errno.ESTALE})
"""The name or the handle no longer exists: list again."""
TOO_LARGE = errno.EFBIG
NOT_REGULAR = frozenset({errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EISDIR})
"""`open_regular` met a link, a pipe, a device or a folder."""
STORAGE_TIMEOUT_S = 15 * 60.0
"""Default of the seconds after which a worker gives up storage that has refused everything since."""
RETRY_S = 2.0
"""Seconds before what storage refused is tried again; doubles with every failure, up to `LONGEST_RETRY_S`."""
LONGEST_RETRY_S = 60.0
RETRY_POLL_S = 0.1
"""Seconds between two looks whether a retry is due."""
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
_ANSWERS = frozenset(
    {*NAME_TAKEN, *NOT_REGULAR, errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EXDEV, TOO_LARGE}
)
"""Errors that say what there is, or what is allowed: trying again does not help."""
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
# A folder on the way need not be readable, as those above a home folder often are not.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def publish_folder(
    parent: Path, name: str, files: Mapping[str, bytes], sources: Mapping[str, Path] | None = None
) -> None:
    """Create `parent/name`, of which `parent` exists, with these files by one rename, after all in it is durable.

    `sources` are files that never change, whose content it is to have as well.

    Raises FileExistsError where the name is taken and any other OSError where storage fails; the temporary folder is
    then removed as far as storage allows. On NFS a rename that reports an error may have succeeded: the caller checks.
    """
    temporary = _temporary(parent)
    try:
        temporary.mkdir()
        for file, content in files.items():
            write_file(temporary / file, content)
        for file, source in (sources or {}).items():
            link_or_copy(source, temporary / file)
        sync_folder(temporary)
    except BaseException:
        remove_folder(temporary)
        raise
    try:
        os.rename(temporary, parent / name)
    except OSError as error:
        # Renamed before it is emptied: had the rename succeeded, a stale cache would lead to the published files.
        retire_folder(temporary)
        if error.errno in NAME_TAKEN:
            raise FileExistsError(errno.EEXIST, "already published", str(parent / name)) from error
        raise
    sync_folder(parent)


@contextlib.contextmanager
def assembled_folder(path: Path) -> Iterator[Path]:
    """A folder to create and to fill, which gets its name `path` by one rename at the end of the block.

    If the block raises, nothing remains of it. Raises FileExistsError where the name is taken meanwhile, OSError.
    """
    temporary = _temporary(path.parent)
    make_folder(temporary)
    try:
        yield temporary / path.name
        os.rename(temporary / path.name, path)
        sync_folder(path.parent)
    except BaseException:
        retire_folder(temporary / path.name)  # as in `publish_folder`
        raise
    finally:
        remove_folder(temporary)


def make_folder(path: Path) -> None:
    """Create a folder and those above it, each durable; nothing changes where it exists."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):  # a folder above may take names and yet not be readable
        sync_folder(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Create a new file; returns when it is durable. ENOSPC and EDQUOT may be raised as late as fsync or close."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file that never changes another name, which takes no room; where that is not possible, copy it."""
    try:
        os.link(source, path)
    except OSError:  # another file system, or one without links
        write_file(path, read_file(source))


def why_not_created(error: OSError) -> str:
    """Why a folder was not created in one that exists: some file systems, such as /proc, take no new files."""
    return "no files can be created in this place" if error.errno == errno.ENOENT else error.strerror or str(error)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a small file atomically: a reader sees the old content or the new one."""
    temporary = _temporary(path.parent)
    try:
        write_file(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def overwrite_file(path: Path, content: bytes) -> None:
    """As `replace_file`; in place where a full disk has no room for a second file: a reader may see a torn one then."""
    try:
        replace_file(path, content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Append one line; a torn line before it is ended first, so that only that one is lost.

    A byte of a name that is not UTF-8 is escaped.
    """
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        file.write((b"\n" if torn else b"") + line.encode(errors="backslashreplace") + b"\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; filesystems that cannot sync a folder do not need it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def open_regular(path: Path, *, follow: bool = False) -> int:
    """Read-only descriptor of a regular file; OSError with an errno of `NOT_REGULAR` for anything else.

    Never blocks on a pipe. If not `follow`, nothing that a link on the way leads to is opened.
    """
    descriptor = os.open(path, _FILE & ~os.O_NOFOLLOW) if follow else _open_without_links(path)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def opened(path: Path, *, follow: bool = False) -> BufferedReader:
    """`open_regular` as a file."""
    return open(open_regular(path, follow=follow), "rb")


def read_file(path: Path, *, most: int | None = None, follow: bool = True) -> bytes:
    """The content of a regular file in memory; OSError with EFBIG where it has more than `most` bytes."""

    def content() -> bytes:
        with opened(path, follow=follow) as file:
            if most is None:
                return file.read()
            if (size := os.fstat(file.fileno()).st_size) > most:
                raise OSError(TOO_LARGE, f"more than {most} bytes", str(path))
            content = file.read(size)  # not `most`, for which memory would be reserved
            return content + file.read(most - size) if file.peek(1) else content  # it has grown meanwhile

    return _again_if_stale(content)


def read_plain(path: Path, *, most: int = SMALL_BYTES) -> bytes | None:
    """The content of a file; None where there is none, empty where it is a link, a pipe and so on, or too large."""
    try:
        return read_file(path, most=most, follow=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (*NOT_REGULAR, TOO_LARGE):
            return b""
        raise


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; none where it does not exist."""
    try:
        return read_file(path).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def names(folder: Path) -> list[str]:
    """The names in a folder, sorted and freshly listed; empty where the folder does not exist."""
    try:
        return sorted(_again_if_stale(lambda: os.listdir(folder)))
    except FileNotFoundError:
        return []


def remove_folder(path: Path) -> None:
    """Remove a folder that is no longer needed; what cannot be removed (`.nfs*`, a full disk) is logged and left."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        log.warning("Could not remove all of %s; it is not needed and will be removed later.", path)


def retire_folder(path: Path) -> None:
    """Remove a folder, published or not: its name first, in one step, so that no reader sees half of it."""
    temporary = _temporary(path.parent)
    try:
        os.rename(path, temporary)
    except OSError as error:
        if error.errno not in GONE:
            log.warning("Could not remove %s: %s", path, message_of(error))
        return
    remove_folder(temporary)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed writer left in a folder; what cannot be removed is logged and left.

    Its writer may still run: a folder is renamed before it is emptied, so that a publish under way fails as a whole
    instead of publishing the files that are left.
    """
    for path in (folder / name for name in names(folder) if name.startswith(TEMPORARY)):
        try:
            path.unlink(missing_ok=True)
        except IsADirectoryError:
            retire_folder(path)
        except OSError as error:
            if error.errno not in GONE:
                log.warning("Could not remove %s: %s", path, message_of(error))


def wait_until(ready: Callable[[], T | None], *, timeout_s: float, longest_pause_s: float = 0.5) -> T | None:
    """Call `ready` until it returns a value, with growing pauses; None when `timeout_s` has passed."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.005
    while (answer := ready()) is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, longest_pause_s)
    return answer


def fault_of(error: BaseException | None) -> OSError | None:
    """The failure of storage that an exception reports or was caused by; None where storage has answered.

    A full disk, a lost server or an I/O error is a failure. A missing file or a refused permission is an answer.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _ANSWERS:
            return error
        error = error.__cause__
    return None


def unexpected_exit_code(error: BaseException) -> int:
    """The exit code for an exception that is not of modtrain: 6 where it reports a failure of storage, else 1."""
    return ModtrainError.exit_code if fault_of(error) is None else StorageError.exit_code


class Backoff:
    """When to try again what storage refused, and when to give up: by the time since the first refusal in a row."""

    def __init__(self, what: str, folder: Path, timeout_s: float) -> None:
        """`what` is tried in the folder of a run: `Publishing`."""
        self._what, self._folder, self._timeout_s = what, folder, timeout_s
        self._failing_since = self._retry_at = self._pause_s = 0.0
        self.trouble: str | None = None
        """What was refused, why, and when the next try is; None where nothing was."""

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._retry_at

    def succeed(self) -> None:
        """Forget the refusals: the next one is the first in a row."""
        self.trouble, self._pause_s = None, 0.0

    def fail(self, error: BaseException) -> None:
        """Plan the next try; StorageError where everything has been refused for the timeout."""
        now, why = time.monotonic(), message_of(error).rstrip(".")
        if not self._pause_s:
            self._failing_since = now
        if (failing_s := now - self._failing_since) >= self._timeout_s:
            raise StorageError(
                f"{self._what} in {self._folder} has failed for {failing_s:.0f} s: {why}. Free some space or repair "
                f'the folder (see "modtrain doctor {self._folder}"), then launch {self._folder.name} again.'
            ) from error
        self._pause_s = min(2 * self._pause_s or RETRY_S, LONGEST_RETRY_S)
        self._retry_at = now + self._pause_s
        self.trouble = f"{self._what} failed, trying again in {self._pause_s:.0f} s: {why}"
        log.warning("%s", self.trouble)


def retry(action: Callable[[], T], backoff: Backoff, poll: Callable[[], None] = lambda: None) -> T:
    """The result of `action`, tried again while storage fails; StorageError of the `backoff`.

    Other exceptions are raised at once. `poll` is called while waiting; an exception that it raises ends the wait.
    """
    while True:
        try:
            answer = action()
        except Exception as error:
            if fault_of(error) is None:
                raise
            backoff.fail(error)
        else:
            backoff.succeed()
            return answer
        while not backoff.is_due:
            poll()
            time.sleep(RETRY_POLL_S)


def _open_without_links(path: Path) -> int:
    """Open each component relative to the one before it: no link can be put in between meanwhile."""
    folder = os.open(path.anchor or ".", _FOLDER)
    try:
        for name in path.parts[bool(path.anchor) : -1]:
            below = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(path.name, _FILE, dir_fd=folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(folder)


def _again_if_stale(action: Callable[[], T], timeout_s: float = 0.5) -> T:
    """The result of `action`, repeated while it raises ESTALE."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE or time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _temporary(folder: Path) -> Path:
    """A name that was never used: what a killed process left is never in the way."""
    return folder / f"{TEMPORARY}{uuid.uuid4().hex}"
