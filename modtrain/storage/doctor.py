"""Doctor: checks whether a shared folder does what the checkpoint store relies on, and what an exchange costs."""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import socket
import stat
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from modtrain.errors import InputError, ModtrainError
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.doctor_peer import CONTENT, MEETING, PREFIX, RACES, Handshake, find_peer, other_process, probe
from modtrain.storage.publisher import Publisher

REPEATS = 3
SLOW_S = 5.0
LOCAL_S = 30.0
"""How long two processes of this machine may take for one step of their handshake."""
UNSAFE = "Do not train here: two workers of one module could overwrite each other."
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_LOCAL = frozenset({"btrfs", "ext2", "ext3", "ext4", "overlay", "xfs", "zfs"})

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: its verdict, a sentence about it, and what to do where it is not ok."""

    name: str
    verdict: Verdict
    says: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The median cost of an exchange: a publish with fsync, or a pull with reading and sha256."""

    name: str
    size_mb: float
    median_ms: float
    mb_per_s: float


@dataclass(kw_only=True)
class Report:
    """The checks of a folder and the costs measured in it."""

    path: str
    checks: list[Check] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    run: dict[str, Any] | None = None
    """The bytes that a run takes, where one was named."""

    @property
    def failed(self) -> bool:
        """Whether a check failed: do not train here."""
        return any(check.verdict == "fail" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        return {**asdict(self), "failed": self.failed}

    def note(self, name: str, says: str, advice: str = "", *, fail: bool = False) -> None:
        """Add a check; one that did not fail is a warning where there is something to do."""
        verdict: Verdict = "fail" if fail else "warn" if advice else "ok"
        self.checks.append(Check(name=name, verdict=verdict, says=says, advice=advice))

    def add_cost(self, name: str, size: int, median_ms: float) -> None:
        """Add what an exchange of so many bytes took."""
        mb_per_s = size / 1e3 / max(median_ms, 1e-6)
        self.costs.append(Cost(name=name, size_mb=size / 1e6, median_ms=median_ms, mb_per_s=mb_per_s))

    def attempt(self, name: str, advice: str, check: Callable[..., None], *args: Any) -> None:
        """Call `check` with the report; an error of storage is a failed check."""
        try:
            check(self, *args)
        except (OSError, ModtrainError) as error:
            self.note(name, f"The check failed: {getattr(error, 'strerror', None) or error}.", advice, fail=True)


def examine(path: Path, *, size_mb: float = 40, peer: bool = False, peer_timeout_s: float = 60) -> Report:
    """Examine a folder, with `peer` together with another node that does the same; InputError where it cannot be used.

    Checkpoints of `size_mb` show what an exchange costs; the other node is waited for `peer_timeout_s`.
    """
    own, report = _own_folder(path, MEETING if peer else PREFIX), Report(path=str(path))
    repair = "Repair the storage, or choose another folder."
    room = f"Make room for several versions of {size_mb:g} MB; check your quota too."
    meet = "Check that both nodes mount the same folder, and that the other one still runs."
    try:
        _check_file_system(report, path)
        _check_room(report, path, size_mb)
        report.attempt("rename", repair, _check_rename, own)
        report.attempt("fsync", repair, _check_fsync, own)
        report.attempt("processes", repair, _check_processes, own)
        report.attempt("group", repair, _check_group, path, own)
        report.attempt("publish", room, _measure, own, size_mb)
        if peer:
            report.attempt("peer", meet, _check_peer, own, size_mb, peer_timeout_s)
    finally:
        filesystem.remove_folder(own)
    return report


def _own_folder(path: Path, kind: str) -> Path:
    if not path.is_dir():
        wrong = "is not a folder" if path.exists() else "does not exist"
        raise InputError(f"{path} {wrong}; name a folder that all nodes share, such as the --root of your runs.")
    own = path / f"{kind}{uuid.uuid4().hex}"
    try:
        own.mkdir()
    except OSError as error:
        why = filesystem.why_not_created(error)
        raise InputError(f"{path} cannot be written to ({why}); choose a folder of your own.") from error
    return own


def _check_file_system(report: Report, path: Path) -> None:
    kind, options = file_system(path.resolve())
    says, advice = f"{kind}.", ""
    if kind in _IN_MEMORY:
        says = f"{kind} is in this node's memory: other nodes do not see it, and a restart empties it."
        advice = "Fine for a trial; train on storage that all nodes share."
    elif kind.startswith("nfs") and "soft" in options:
        says = f"{kind} is mounted `soft`: a slow server becomes an I/O error."
        advice = "Training survives such errors; ask for the mount option `hard`."
    elif kind in _LOCAL:
        says = f"{kind}, a disk of this node; other nodes see it only if it is exported."
    report.note("file system", says, advice)


def _check_room(report: Report, path: Path, size_mb: float) -> None:
    room, free_mb = os.statvfs(path), free_bytes(path) / 1e6
    files = room.f_favail
    says = f"{free_mb / 1000:.1f} GB are free (a quota may allow less: `quota -s`)."
    advice = f"A module keeps several versions of {size_mb:g} MB: make room." if free_mb < 50 * size_mb else ""
    report.note("space", says, advice, fail=free_mb < 3 * size_mb)
    if room.f_files == 0:
        return report.note("inodes", "This file system does not count files.")
    advice = "Every version is a folder of a few files: remove old runs, or ask for more." if files < 10_000 else ""
    return report.note("inodes", f"{files:,} more files can be created.", advice, fail=files < 100)


def free_bytes(path: Path) -> int:
    """The bytes that can be written below a folder; a quota may allow less."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def _check_rename(report: Report, own: Path) -> None:
    filesystem.publish_folder(own, "taken", {CONTENT: b"first"})
    try:
        filesystem.publish_folder(own, "taken", {CONTENT: b"second"})
    except FileExistsError:
        if filesystem.read_file(own / "taken" / CONTENT) == b"first":
            return report.note("rename", "A published folder cannot be overwritten.")
        return report.note("rename", "A refused rename changed the existing folder.", "Do not train here.", fail=True)
    says = "A folder was renamed onto one that is not empty: versions could be overwritten."
    return report.note("rename", says, UNSAFE, fail=True)


def _check_fsync(report: Report, own: Path) -> None:
    content, files = os.urandom(4096), [own / f"sync{number}" for number in range(10)]
    file_ms = statistics.median(_ms(functools.partial(filesystem.write_file, file, content)) for file in files)
    descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        folder_ms = statistics.median(_ms(lambda: os.fsync(descriptor)) for _ in files)
    except OSError as error:
        says = f"A folder cannot be synced ({error.strerror}): a power failure may cost the newest version."
        advice = "No version is damaged by that; resuming continues from the version before."
        return report.note("fsync", says, advice)
    finally:
        os.close(descriptor)
    for file in files:
        _drop_cache(file)
        if filesystem.read_file(file) != content:
            says = "A synced file was read back with other content."
            return report.note("fsync", says, "Do not train here.", fail=True)
    says = f"A small file is on disk after {file_ms:.1f} ms, a folder after {folder_ms:.1f} ms (medians)."
    return report.note("fsync", says, "Exchange less often." if max(file_ms, folder_ms) > SLOW_S * 1000 else "")


def _check_processes(report: Report, own: Path) -> None:
    (own / "talk").mkdir()
    handshake = Handshake(own / "talk", 0, LOCAL_S)
    with other_process(handshake):
        _note_probe(report, "processes", "another process of this node", *probe(handshake))


def _note_probe(report: Report, name: str, other: str, delay_s: float, doubled: int) -> None:
    if doubled:
        says = f"This process and {other} both got the same name, {doubled} times of {RACES}."
        report.note(f"{name}: race", says, UNSAFE, fail=True)
    else:
        report.note(f"{name}: race", f"Of this process and {other}, exactly one got each of {RACES} names.")
    says = f"A publish of {other} is visible after {delay_s * 1000:.0f} ms (half a round trip, publishing included)."
    advice = f"Leave more than {delay_s:.0f} s between exchange points." if delay_s > SLOW_S else ""
    report.note(f"{name}: visibility", says, advice)


def _check_peer(report: Report, own: Path, size_mb: float, timeout_s: float) -> None:
    handshake = find_peer(own, timeout_s)
    if handshake is None:
        command = f"Run `modtrain doctor {own.parent} --peer` on a second node at the same time"
        advice = f"{command}; if you did, that node sees another folder than this one."
        report.note("peer", f"No other node was found within {timeout_s:g} s.", advice, fail=True)
        return
    own_host = socket.gethostname()
    handshake.publish("host", own_host)
    host = handshake.wait("host")
    other = f"another process of {host} (no second node)" if host == own_host else f"the node {host}"
    _note_probe(report, "peer", other, *probe(handshake))
    _publisher(handshake.folder / f"load{handshake.side}").publish({WEIGHTS: _content(size_mb)}, epoch=0, step=0)
    handshake.publish("load")
    handshake.wait("load")
    others = CheckpointStore(handshake.folder / f"load{1 - handshake.side}")
    report.add_cost("pull from peer", *_pull(others))
    if handshake.side:
        handshake.publish("bye")
    else:
        handshake.wait("bye")  # this side owns the folder, and keeps it until the other one has read everything


def _check_group(report: Report, path: Path, own: Path) -> None:
    folder, file, parent = (own / "taken").stat(), (own / "taken" / CONTENT).stat(), path.stat()
    group, modes = _group(parent.st_gid), f"{stat.filemode(file.st_mode)} and {stat.filemode(folder.st_mode)}"
    inherited = "is" if parent.st_mode & stat.S_ISGID else "is not"
    says, advice = f"Members of {group} can read published files ({modes}; setgid {inherited} set).", ""
    if not (file.st_mode & 0o040 and folder.st_mode & 0o050 == 0o050):
        says = f"Members of {group} cannot read published files ({modes})."
        advice = "If others share the runs, set `umask 027` (or 007) where jobs start."
    elif file.st_gid != parent.st_gid:
        says = f"Published files belong to {_group(file.st_gid)}, not to the folder's group {group}."
        advice = f"If others share the runs: `chmod g+s {path}`."
    elif not parent.st_mode & 0o010:
        says = f"Members of {group} cannot enter this folder ({stat.filemode(parent.st_mode)})."
        advice = f"If others share the runs: `chmod g+rxs {path}`."
    report.note("group", says, advice)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group {gid}"


def _measure(report: Report, own: Path, size_mb: float) -> None:
    publisher, content = _publisher(own / "probe"), _content(size_mb)
    publish = [_ms(lambda: publisher.publish({WEIGHTS: content}, epoch=0, step=0)) for _ in range(REPEATS)]
    report.add_cost("publish", len(content), statistics.median(publish))
    pulls = [_pull(publisher.store)[1] for _ in range(REPEATS)]
    report.add_cost("pull", len(content), statistics.median(pulls))


def _publisher(path: Path) -> Publisher:
    return Publisher(CheckpointStore(path), "doctor", keep=1, grace_s=0)


def _content(size_mb: float) -> bytes:
    return os.urandom(max(1, int(size_mb * 1e6)))


def _pull(store: CheckpointStore) -> tuple[int, float]:
    """The bytes of the newest version, and the milliseconds that reading and checking them took."""
    for version in store.versions():
        _drop_cache(store.folder(version) / WEIGHTS)
    read: list[bytes] = []
    took_ms = _ms(lambda: read.extend(content for _, content in store.read_newest(WEIGHTS)))
    if not read:
        raise OSError("the published version cannot be read")
    return len(read[0]), took_ms


def _ms(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return (time.monotonic() - started) * 1000


def file_system(path: Path) -> tuple[str, list[str]]:
    """Type and mount options of the file system of a folder."""
    best, answer = -1, ("unknown", [""])
    with contextlib.suppress(OSError):
        for line in filesystem.read_lines(Path("/proc/self/mountinfo")):
            mount, _, details = line.partition(" - ")
            point = Path(mount.split()[4].encode().decode("unicode_escape"))
            if path.is_relative_to(point) and len(point.parts) >= best:
                best, kind = len(point.parts), details.split()
                answer = kind[0], kind[-1].split(",")
    return answer


def _drop_cache(path: Path) -> None:
    """Ask the system to read this file from storage the next time, not from the node's cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
