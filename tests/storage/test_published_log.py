"""`published.jsonl`: the versions that were ever published, also where lines are torn or foreign."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modtrain.storage.checkpoint import (
    follow_published,
    last_published,
    newest_published,
    parse_published,
)
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "generator")
    publisher = Publisher(store, "worker", keep=2, grace_s=0)
    for version in range(5):
        publisher.publish({"weights.safetensors": b"w"}, epoch=version, step=version, metrics={"loss": 0.5})
    return store


def test_the_newest_version_is_read_from_the_end_beyond_torn_and_foreign_lines(store: CheckpointStore) -> None:
    path = store.published
    newest = newest_published(path, "generator")
    assert newest is not None
    assert newest.version == 4
    with path.open("ab") as file:
        file.write(b'{"version": 9}\n' + b"x" * 20_000 + b'\n{"version": ')
    assert newest_published(path, "generator") == newest
    assert newest_published(path, "another module") is None


def test_a_line_whose_seal_is_broken_is_left_out(store: CheckpointStore) -> None:
    path = store.published
    path.write_bytes(path.read_bytes().replace(b'"epoch":4', b'"epoch":7'))
    assert [checkpoint.version for checkpoint in store.history()] == [0, 1, 2, 3]
    newest = newest_published(path, "generator")
    assert newest is not None
    assert newest.version == 3


@pytest.mark.parametrize(
    "change",
    [
        {"version": "4"},
        {"epoch": None},
        {"full": 1},
        {"peers": {"x": 1}},
        {"files": []},
    ],
)
def test_a_line_with_a_field_of_a_wrong_type_is_foreign(store: CheckpointStore, change: dict[str, object]) -> None:
    line = vars(store.history()[0])
    assert parse_published(line) == store.history()[0]
    assert parse_published({**line, **change}) is None


def test_of_two_lines_of_a_version_the_later_one_counts(store: CheckpointStore) -> None:
    lines = store.published.read_bytes().splitlines(keepends=True)
    store.published.write_bytes(lines[4] + b"".join(lines))
    versions = follow_published(store.published)
    versions.refresh()
    assert [checkpoint.version for checkpoint in versions.content] == [0, 1, 2, 3, 4]
    assert last_published(store.published, 2)[-2:] == versions.content[-2:]


def test_no_file_a_link_or_a_pipe_has_no_newest_version(store: CheckpointStore, tmp_path: Path) -> None:
    assert newest_published(tmp_path / "nothing", "generator") is None
    (tmp_path / "link").symlink_to(store.published)
    assert newest_published(tmp_path / "link", "generator") is None
    os.mkfifo(tmp_path / "pipe")
    assert newest_published(tmp_path / "pipe", "generator") is None
