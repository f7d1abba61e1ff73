"""The file system calls: what appears whole, what a kill tore, what is waited for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from modtrain.storage import filesystem


def test_a_folder_is_published_whole_and_leaves_no_other_name(tmp_path: Path) -> None:
    filesystem.publish_folder(tmp_path / "new", "one", {"a": b"1", "b": b""})
    assert filesystem.names(tmp_path / "new") == ["one"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "new" / "one").iterdir()} == {"a": b"1", "b": b""}


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


def test_a_replaced_file_is_the_old_or_the_new_one_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
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


def test_what_does_not_exist_has_no_lines_and_no_names(tmp_path: Path) -> None:
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


def test_waiting_ends_with_the_answer_or_after_the_time_that_was_given() -> None:
    answers = iter([None, None, "here"])
    assert filesystem.wait_until(lambda: next(answers), timeout_s=5) == "here"
    started = time.monotonic()
    assert filesystem.wait_until(lambda: None, timeout_s=0.05) is None
    assert 0.05 <= time.monotonic() - started < 2


def test_the_file_system_of_a_folder_is_that_of_the_innermost_mount() -> None:
    assert filesystem.file_system(Path("/proc/self"))[0] == "proc"
