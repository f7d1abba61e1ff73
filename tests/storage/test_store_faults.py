"""The checkpoint store against real faults: kills and errors at its system calls, full disks, flipped bytes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import CorruptCheckpoint
from modtrain.storage.checkpoint import EMA, META, STATE, WEIGHTS
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher
from tests.support.store_faults import mounts, scenario
from tests.support.store_faults.checks import files, problems


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory: the tests below kill the process, not the machine."""
    with mounts.tmpfs(tmp_path / "memory", "size=200m") as path:
        yield path


def assert_survived(kills: list[dict[str, Any]]) -> None:
    """Each attempt was killed, and the store was sound after each."""
    assert [kill for kill in kills if not kill["killed"]] == []
    assert [kill for kill in kills if kill["problems"]] == []


CHANGING = "mkdir mkdirat write fsync rename renameat renameat2 unlinkat rmdir"


def test_a_publish_killed_at_any_changing_call_leaves_only_complete_versions_and_the_next_writer_continues(
    memory: Path,
) -> None:
    kills = scenario("kill", memory / "m", "steady", 1, CHANGING)
    assert_survived(kills)
    assert {"mkdir", "write", "fsync", "rename"} <= {kill["call"].removesuffix("at") for kill in kills}
    assert len(kills) > 60


def test_a_worker_killed_while_it_cleans_up_after_a_killed_one_leaves_that_to_the_next_one(memory: Path) -> None:
    assert_survived(scenario("kill", memory / "m", "mending", 9))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_publish_killed_at_every_system_call_leaves_only_complete_versions_and_the_next_writer_continues(
    memory: Path,
) -> None:
    kills = [
        kill for shape in ("first", "steady", "mending", "large") for kill in scenario("kill", memory / "m", shape, 1)
    ]
    assert_survived(kills)
    assert len(kills) >= 1000


def test_a_publish_that_storage_refuses_at_any_call_leaves_nothing_and_the_next_one_works(memory: Path) -> None:
    tries = scenario("errors", memory / "m", ["ENOSPC", "EIO", "EDQUOT", "ESTALE"])
    refused = [attempt for attempt in tries if attempt["returned"] == 10]
    assert {attempt["error"] for attempt in refused} == {"ENOSPC", "EIO", "EDQUOT", "ESTALE"}
    assert {attempt["call"] for attempt in refused} >= {"mkdir", "openat", "write", "fsync", "close", "rename"}
    assert all(attempt["versions"] == [0] and attempt["left"] == [] and attempt["read"] == [0] for attempt in refused)
    assert all(attempt["read"] == [1] for attempt in tries if attempt["returned"] == 0)
    assert [
        attempt for attempt in tries if attempt["returned"] not in (0, 10) or attempt["next"] or attempt["problems"]
    ] == []


def test_a_reader_whose_storage_fails_at_any_call_gets_good_versions_or_none_and_never_an_error(memory: Path) -> None:
    reads = scenario("reading", memory / "m", ["ESTALE", "EIO"])
    assert [attempt for attempt in reads if attempt["error"] == "ESTALE" and attempt["read"] != [2, 1]] == []
    assert [attempt for attempt in reads if attempt["read"] not in ([2, 1], [1, 0], [2, 0], [])] == []


def test_a_worker_on_a_full_disk_continues_to_publish_as_soon_as_there_is_room(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "small", "size=1m") as path:
        store = CheckpointStore(path / "translator")
        publisher = Publisher(store, "worker", keep=1, grace_s=0)
        publisher.publish(files(0, 100_000), epoch=0, step=0)
        ballast = path / "ballast"
        ballast.write_bytes(bytes(450_000))
        for _ in range(3):
            with pytest.raises(OSError, match="No space left on device"):
                publisher.publish(files(1, 100_000), epoch=1, step=1)
            assert os.listdir(store.checkpoints) == ["00000000"]
        assert store.read_newest(WEIGHTS)[0][1] == files(0, 100_000)[WEIGHTS]
        ballast.unlink()
        assert publisher.publish(files(1, 100_000), epoch=1, step=1).version == 1
        assert problems(store) == []


def test_a_worker_without_free_inodes_continues_to_publish_as_soon_as_there_are_some(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "small", "nr_inodes=20") as path:
        store = CheckpointStore(path / "translator")
        publisher = Publisher(store, "worker", keep=1, grace_s=0)
        publisher.publish(files(0), epoch=0, step=0)
        ballast = [path / f"ballast{number}" for number in range(8)]
        for file in ballast:
            file.touch()
        with pytest.raises(OSError, match="No space left on device"):
            publisher.publish(files(1), epoch=1, step=1)
        assert os.listdir(store.checkpoints) == ["00000000"]
        for file in ballast:
            file.unlink()
        publisher.publish(files(1), epoch=1, step=1)
        assert problems(store) == []


def flips(path: Path, file: str) -> Iterator[tuple[int, CheckpointStore]]:
    """Version 1 of a store with each byte of one of its files flipped in turn."""
    store = CheckpointStore(path / "translator")
    publisher = Publisher(store, "worker")
    for version in range(2):
        publisher.publish(files(version, 16), epoch=version, step=version)
    content = (store.folder(1) / file).read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (store.folder(1) / file).write_bytes(flipped)
        moved = path.rename(path.with_name(f"flip{place}"))
        yield place, CheckpointStore(moved / "translator")
        moved.rename(path)


@pytest.mark.parametrize("file", [WEIGHTS, EMA, STATE, META])
def test_a_version_with_any_byte_flipped_is_never_loaded_and_the_one_before_it_is_used_with_a_warning(
    file: str, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = WEIGHTS if file == META else file
    places = 0
    for place, store in flips(memory / "run", file):
        caplog.clear()
        with pytest.raises(CorruptCheckpoint):
            store.verify(1)
        with caplog.at_level(logging.WARNING):
            [(checkpoint, content)] = store.read_newest(read)
        assert (checkpoint.version, content) == (0, files(0, 16)[read]), f"byte {place} of {file}"
        [message] = caplog.messages
        assert message.startswith("Skipped version 1 of translator:")
        assert file in message
        places += 1
    assert places > 20


@pytest.mark.parametrize("file", [WEIGHTS, META])
def test_a_version_that_lacks_a_file_or_its_end_is_skipped_with_a_warning(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path / "translator")
    publisher = Publisher(store, "worker")
    for version in range(3):
        publisher.publish(files(version), epoch=version, step=version)
    (store.folder(2) / file).unlink()
    os.truncate(store.folder(1) / file, 10)
    with caplog.at_level(logging.WARNING):
        assert [checkpoint.version for checkpoint, _ in store.read_newest(WEIGHTS, count=2)] == [0]
    assert len(caplog.messages) == 2
    assert "Skipped version 2" in " ".join(caplog.messages)
    assert "Skipped version 1" in " ".join(caplog.messages)
