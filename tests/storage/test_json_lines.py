"""Reading files of JSON lines that another process appends to."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from modtrain.storage.json_lines import GrowingFile, json_objects, read_json_lines


def append(path: Path, *lines: object) -> None:
    with path.open("ab") as file:
        for line in lines:
            file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


def new_objects(file: GrowingFile) -> list[dict[str, Any]]:
    """The objects of all new lines, where the file has changed."""
    return remaining_objects(file) if file.refresh()[0] else []


def remaining_objects(file: GrowingFile) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = []
    while (lines := file.read()) is not None:
        values += json_objects(lines)
    return values


def test_new_lines_are_read_as_they_come_and_a_torn_one_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = GrowingFile(path)
    assert new_objects(file) == []
    append(path, {"step": 1}, b'{"step": ')
    assert new_objects(file) == [{"step": 1}]
    assert file.torn == b'{"step": '
    assert file.refresh() == (False, False)
    append(path, b"2}\n")
    assert new_objects(file) == [{"step": 2}]


def test_a_line_that_is_not_a_json_object_is_left_out_and_costs_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = [b"\xff\xfe\n", b"[1]\n", b"null\n", b'{"a":1},{"b":2}\n', b"[" * 100_000 + b"\n", b"\n", b'{"step": \n']
    append(path, {"step": 1}, *odd, b"1" * 3_000_000 + b"\n", b'{"step": 2, "loss": NaN}\n')
    assert new_objects(GrowingFile(path)) == [{"step": 1}, {"step": 2, "loss": None}]


@pytest.mark.parametrize("how", ["shrank", "replaced", "rewritten longer", "removed"])
def test_a_file_that_was_cut_or_replaced_is_read_from_its_beginning(tmp_path: Path, how: str) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1}, {"step": 2})
    file = GrowingFile(path)
    new_objects(file)
    if how == "shrank":
        path.write_text('{"step": 7}\n')
    elif how == "replaced":
        (tmp_path / "other").write_text('{"step": 7}\n')
        (tmp_path / "other").rename(path)
    elif how == "rewritten longer":
        path.write_text('{"step": 7}\n' + " " * 100 + "\n")
    else:
        path.unlink()
    assert file.refresh() == (True, True)
    assert remaining_objects(file) == ([] if how == "removed" else [{"step": 7}])


def test_a_line_is_never_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, *({"step": step} for step in range(50_000)))
    file, sizes = GrowingFile(path), list[int]()
    assert len(new_objects(file)) == 50_000
    real = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        content = real(descriptor, size, offset)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(os, "pread", counted)
    assert new_objects(file) == []
    assert sizes == []
    append(path, {"step": 50_000})
    assert new_objects(file) == [{"step": 50_000}]
    assert sum(sizes) < 200


def test_what_storage_did_not_give_is_read_at_the_next_refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1})
    file = GrowingFile(path)
    assert new_objects(file) == [{"step": 1}]
    append(path, {"step": 2})
    failed: list[int] = []

    def fail(descriptor: int, size: int, offset: int) -> bytes:
        failed.append(offset)
        raise OSError(errno.EIO, "storage fails")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        assert new_objects(file) == []
    assert failed
    assert new_objects(file) == [{"step": 2}]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_link_a_pipe_or_a_folder_in_place_of_a_file_has_no_lines(tmp_path: Path, kind: str) -> None:
    path, secret = tmp_path / "metrics.jsonl", tmp_path / "secret.jsonl"
    append(secret, {"secret": 1})
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert new_objects(GrowingFile(path)) == []
    assert read_json_lines(path) == []


def test_a_file_below_a_folder_that_became_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    append(tmp_path / "elsewhere" / "metrics.jsonl", {"secret": 1})
    (tmp_path / "module").symlink_to(tmp_path / "elsewhere")
    assert read_json_lines(tmp_path / "module" / "metrics.jsonl") == []


def test_the_last_lines_of_a_file_of_two_gigabytes_are_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    with path.open("wb") as content:
        content.truncate(2 << 30)  # a hole: it takes no space
        content.seek(0, os.SEEK_END)
        content.write(b"\n" + b"".join(b"line %d\n" % number for number in range(20_000)))
    assert last_lines(path, 10_000) == [b"line %d" % number for number in range(10_000, 20_000)]
    assert len(last_lines(path, 10**9)) == 20_000, "two gigabytes are not read to look for a line"


def last_lines(path: Path, count: int) -> list[bytes]:
    file, lines = GrowingFile(path, last=count), list[bytes]()
    file.refresh()
    while (new := file.read()) is not None:
        lines += new
    return [*lines, file.torn] if file.torn else lines


def test_the_last_lines_count_one_that_has_no_end_yet(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"one\ntwo\nthree")
    assert [len(last_lines(path, count)) for count in (0, 1, 2, 3, 4)] == [0, 1, 2, 3, 3]
    assert last_lines(path, 2) == [b"two", b"three"]
    path.write_bytes(b"one\ntwo\n")
    assert [last_lines(path, count) for count in (0, 1, 3)] == [[], [b"two"], [b"one", b"two"]]
