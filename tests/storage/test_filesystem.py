"""Publishing a folder, replacing and opening files, torn lines, and waiting."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from modtrain.storage import filesystem
from modtrain.storage.doctor import file_system


def test_a_folder_is_published_complete_and_leaves_no_other_name(tmp_path: Path) -> None:
    filesystem.make_folder(tmp_path / "deep" / "new")
    filesystem.publish_folder(tmp_path / "deep" / "new", "one", {"a": b"1", "b": b""})
    assert filesystem.names(tmp_path / "deep" / "new") == ["one"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "deep" / "new" / "one").iterdir()} == {
        "a": b"1",
        "b": b"",
    }


def test_a_name_that_is_taken_cannot_be_published_again(tmp_path: Path) -> None:
    filesystem.publish_folder(tmp_path, "one", {"a": b"first"})
    with pytest.raises(FileExistsError):
        filesystem.publish_folder(tmp_path, "one", {"a": b"second"})
    assert filesystem.read_file(tmp_path / "one" / "a") == b"first"
    assert os.listdir(tmp_path) == ["one"]


def test_a_publish_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(dict[str, bytes]):
        def __getitem__(self, name: str) -> bytes:
            raise KeyboardInterrupt

        def items(self):  # type: ignore[no-untyped-def]
            yield "a", b"1"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filesystem.publish_folder(tmp_path, "one", Interrupting())
    assert os.listdir(tmp_path) == []


def test_what_is_published_can_be_read_by_the_group_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        filesystem.publish_folder(tmp_path, "one", {"a": b"1"})
    finally:
        os.umask(before)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "one" / "a").stat().st_mode & 0o777 == 0o640


def test_replacing_a_file_leaves_nothing_beside_it_also_where_it_fails(tmp_path: Path) -> None:
    filesystem.replace_file(tmp_path / "beat", b"old")
    filesystem.replace_file(tmp_path / "beat", b"new")
    assert (tmp_path / "beat").read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        filesystem.replace_file(tmp_path / "folder", b"new")
    assert filesystem.names(tmp_path) == ["beat", "folder"]


def test_a_line_that_a_kill_tore_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    filesystem.append_line(path, "one")
    with path.open("ab") as torn:
        torn.write(b"tw")
    filesystem.append_line(path, "three", durable=True)
    assert filesystem.read_lines(path) == ["one", "tw", "three"]


def test_a_missing_file_has_no_lines_and_a_missing_folder_no_names(tmp_path: Path) -> None:
    assert filesystem.read_lines(tmp_path / "lines") == []
    assert filesystem.names(tmp_path / "folder") == []


def test_removing_temporaries_touches_nothing_that_is_published(tmp_path: Path) -> None:
    filesystem.publish_folder(tmp_path, "one", {"a": b"1"})
    (tmp_path / f"{filesystem.TEMPORARY}folder" / "deep").mkdir(parents=True)
    (tmp_path / f"{filesystem.TEMPORARY}file").write_bytes(b"half")
    (tmp_path / f"{filesystem.TEMPORARY}link").symlink_to(tmp_path / "one")
    filesystem.remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["one"]
    assert os.listdir(tmp_path / "one") == ["a"]


def test_a_wait_ends_with_the_answer_or_after_its_timeout() -> None:
    answers = iter([None, None, "answer"])
    assert filesystem.wait_until(lambda: next(answers), timeout_s=5) == "answer"
    started = time.monotonic()
    assert filesystem.wait_until(lambda: None, timeout_s=0.05) is None
    assert 0.05 <= time.monotonic() - started < 2


def test_the_file_system_of_a_folder_is_that_of_the_innermost_mount() -> None:
    assert file_system(Path("/proc/self"))[0] == "proc"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
def test_only_a_regular_file_is_opened_and_a_pipe_blocks_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "entry"
    (tmp_path / "target").write_bytes(b"content")
    if kind == "link":
        path.symlink_to(tmp_path / "target")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    with pytest.raises(OSError, match=str(path)) as caught, filesystem.opened(path):
        pass
    assert caught.value.errno in filesystem.NOT_REGULAR
    if kind == "link":
        assert filesystem.read_file(path) == b"content"


def test_no_link_on_the_way_to_a_file_is_followed_unless_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"secret")
    (tmp_path / "module").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        filesystem.read_file(tmp_path / "module" / "secret", follow=False)
    assert filesystem.read_file(tmp_path / "module" / "secret", follow=True) == b"secret"


def test_a_file_that_is_larger_than_allowed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    assert filesystem.read_file(tmp_path / "large", most=11) == bytes(11)
    with pytest.raises(OSError, match="more than 10 bytes"):
        filesystem.read_file(tmp_path / "large", most=10)


def test_a_stale_handle_is_opened_again_and_any_other_error_is_raised_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    real, errors = os.fstat, [errno.ESTALE, errno.ESTALE, errno.EIO]

    def fail(descriptor: int) -> os.stat_result:
        if errors:
            raise OSError(errors[0], os.strerror(errors.pop(0)))
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fail)
    with pytest.raises(OSError, match="Input/output error"):
        filesystem.read_file(tmp_path / "file")
    assert errors == []
    errors.append(errno.ESTALE)
    assert filesystem.read_file(tmp_path / "file") == b"content"
