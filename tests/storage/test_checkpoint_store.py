"""The checkpoint store without faults or rival writers: publishing, reading, pruning and the log of versions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import CorruptCheckpoint, MissingCheckpoint
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import EMA, META, STATE, WEIGHTS, Checkpoint
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher

OLD_META = (
    b'{"epoch":1,"files":{},"final":false,"format":1,"full":false,"metrics":{"loss":0.25},"module":"m","peers":{},'
    b'"published_at":0.0,"seal":"SEAL","step":2,"version":0,"writer":"w"}'
)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "translator")


def publish(publisher: Publisher, count: int, *, full: bool = False, final: bool = False) -> None:
    for _ in range(count):
        version = publisher.last + 1
        files = {WEIGHTS: b"weights %d" % version} | ({STATE: b"state"} if full else {})
        publisher.publish(files, epoch=version, step=10 * version, final=final)


def test_what_is_published_is_read_back_with_its_lineage(store: CheckpointStore) -> None:
    peers = {"discriminator": {"versions": [3, 2], "epoch": 1}}
    Publisher(store, "node1").publish({WEIGHTS: b"w", EMA: b"e"}, epoch=2, step=7, metrics={"loss": 0.5}, peers=peers)
    [(checkpoint, content)] = store.read_newest(WEIGHTS)
    assert content == b"w"
    assert (checkpoint.module, checkpoint.version, checkpoint.epoch, checkpoint.step) == ("translator", 0, 2, 7)
    assert (checkpoint.metrics, checkpoint.peers, checkpoint.writer) == ({"loss": 0.5}, peers, "node1")
    assert store.read(checkpoint, EMA) == b"e"
    assert not checkpoint.full


def test_an_empty_store_has_no_versions_and_raises_no_error(store: CheckpointStore) -> None:
    assert (store.versions(), store.newest(), store.latest(), store.history()) == ([], [], None, [])
    assert store.read_newest(WEIGHTS) == []


def test_a_reader_gets_the_newest_versions_above_its_own_newest_first(store: CheckpointStore) -> None:
    publish(Publisher(store, "w", keep=10), 5)

    def read(count: int, above: int) -> list[tuple[int, bytes]]:
        return [(c.version, content) for c, content in store.read_newest(WEIGHTS, count=count, above=above)]

    assert read(2, -1) == [(4, b"weights 4"), (3, b"weights 3")]
    assert read(3, 3) == [(4, b"weights 4")]
    assert read(3, 4) == []
    assert [c.version for c, _ in store.read_newest(WEIGHTS, count=2, where=lambda c: c.epoch % 2 == 1)] == [3, 1]


def test_versions_without_the_requested_file_are_left_out(store: CheckpointStore) -> None:
    publisher = Publisher(store, "w")
    publish(publisher, 1, full=True)
    publish(publisher, 1)
    [(checkpoint, content)] = store.read_newest(STATE)
    assert (checkpoint.version, content) == (0, b"state")
    with pytest.raises(MissingCheckpoint, match=r"has no ema\.safetensors; it has state\.pt, weights\.safetensors"):
        store.read(store.meta(0), EMA)


def test_the_newest_versions_two_full_ones_and_the_final_one_are_kept_and_history_keeps_all(
    store: CheckpointStore,
) -> None:
    publisher = Publisher(store, "w", keep=2, grace_s=0)
    publish(publisher, 1, final=True)
    publish(publisher, 3, full=True)
    publish(publisher, 4)
    assert store.versions() == [0, 2, 3, 6, 7]
    assert [checkpoint.version for checkpoint in store.history()] == list(range(8))
    assert len(os.listdir(store.checkpoints)) == 5


def test_a_version_that_was_superseded_just_now_is_kept_for_its_readers(
    store: CheckpointStore,
) -> None:
    publish(Publisher(store, "w", keep=1, grace_s=60), 5)
    assert store.versions() == [0, 1, 2, 3, 4]
    publish(Publisher(store, "next", keep=1, grace_s=0), 1)
    assert store.versions() == [5]


def test_a_module_may_have_more_versions_than_eight_digits_count(store: CheckpointStore) -> None:
    publisher = Publisher(store, "w", keep=3)
    publisher.last = 99_999_997
    publish(publisher, 4)
    latest = store.latest()
    assert latest is not None
    assert latest.version == 100_000_001
    assert store.versions()[-3:] == [99_999_999, 100_000_000, 100_000_001]


def test_a_version_that_cannot_be_read_when_a_worker_takes_over_is_not_deleted_by_it(store: CheckpointStore) -> None:
    publish(Publisher(store, "old"), 2)
    meta = store.folder(0) / "meta.json"
    content = meta.read_bytes()
    meta.write_bytes(b"unreadable for a while")
    publish(Publisher(store, "new", keep=1, grace_s=0), 3)
    assert store.versions() == [0, 4]
    meta.write_bytes(content)
    assert store.verify(0).version == 0


def test_the_line_of_a_version_whose_writer_was_killed_is_written_by_the_next_one(store: CheckpointStore) -> None:
    publish(Publisher(store, "old"), 3)
    (store.path / "published.jsonl").write_text("torn\n")
    Publisher(store, "new")
    assert [checkpoint.version for checkpoint in store.history()] == [0, 1, 2]


def test_a_version_that_belongs_to_another_module_is_not_loaded(store: CheckpointStore, tmp_path: Path) -> None:
    publish(Publisher(store, "w"), 1)
    other = CheckpointStore(tmp_path / "discriminator")
    other.checkpoints.mkdir(parents=True)
    store.folder(0).rename(other.folder(0))
    assert other.read_newest(WEIGHTS) == []
    with pytest.raises(CorruptCheckpoint, match="belongs to translator version 0"):
        other.meta(0)


@pytest.mark.parametrize("file", ["meta.json", WEIGHTS])
def test_a_pipe_in_place_of_a_file_blocks_no_reader(store: CheckpointStore, file: str) -> None:
    publish(Publisher(store, "w"), 2)
    (store.folder(1) / file).unlink()
    os.mkfifo(store.folder(1) / file)
    assert [(checkpoint.version, content) for checkpoint, content in store.read_newest(WEIGHTS)] == [(0, b"weights 0")]
    with pytest.raises(CorruptCheckpoint, match="not a regular file"):
        store.verify(1)


def test_folders_that_are_not_versions_are_left_alone(store: CheckpointStore) -> None:
    publish(Publisher(store, "w", keep=1, grace_s=0), 2)
    for name in ("notes", "7", "00000009.old"):
        (store.checkpoints / name).mkdir()
    publish(Publisher(store, "w", keep=1, grace_s=0), 1)
    assert filesystem.names(store.checkpoints) == ["00000002", "00000009.old", "7", "notes"]


def test_the_first_format_of_meta_json_still_opens(tmp_path: Path) -> None:
    seal = b"3454bcae2bced45949df18f75aac42ef85994d81551a9d076bdb50878cf65d35"
    checkpoint = Checkpoint.unseal(OLD_META.replace(b"SEAL", seal), tmp_path)
    assert (checkpoint.module, checkpoint.metrics) == ("m", {"loss": 0.25})


def test_a_file_that_grew_to_forty_gigabytes_is_damaged_and_not_read(store: CheckpointStore) -> None:
    publish(Publisher(store, "w"), 2)
    checkpoint = store.meta(1)
    os.truncate(store.folder(1) / WEIGHTS, 40 << 30)
    with pytest.raises(CorruptCheckpoint, match=r"weights\.safetensors is damaged: it has more than 9 bytes"):
        store.read(checkpoint, WEIGHTS)
    assert [c.version for c, _ in store.read_newest(WEIGHTS)] == [0]


@pytest.mark.parametrize(
    "wrong",
    [{"version": 1.5}, {"epoch": None}, {"files": {WEIGHTS: 3}}, {"files": {WEIGHTS: {"size": "9", "sha256": ""}}},
     {"peers": {"other": {"versions": "1", "epoch": 0}}}, {"metrics": {"loss": "low"}}, {"step": True, "metrics": []},
     {"published_at": 10**400}, {"module": 7}, {"full": "yes"}],
)  # fmt: skip
def test_a_meta_with_wrong_types_is_damaged_although_its_seal_is_right(
    store: CheckpointStore, wrong: dict[str, Any]
) -> None:
    publish(Publisher(store, "w"), 2)
    forged = Checkpoint(**{**vars(store.meta(1)), **wrong})
    (store.folder(1) / META).write_bytes(forged.seal())
    with pytest.raises(CorruptCheckpoint, match=r"meta\.json is damaged: a value in it has a wrong type"):
        store.meta(1)
    newest = store.newest_intact()
    assert newest.checkpoint is not None
    assert (newest.checkpoint.version, newest.damaged) == (0, (1,))
