"""The checkpoint store with several writers of one module, and with readers while versions come and go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modtrain.errors import FencedOut
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.publisher import Publisher
from tests.support.store_faults import finish, hear, mounts, scenario, start
from tests.support.store_faults.checks import FENCED, PUBLISHED, REFUSED, files, problems, publish


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, where a publish takes a millisecond."""
    with mounts.tmpfs(tmp_path / "memory", "size=200m") as path:
        yield path


def follow_up(owner: Publisher, *, final: bool = False) -> None:
    """Publish weights alone, so that nothing but the newest version stays."""
    version = owner.last + 1
    owner.publish({WEIGHTS: files(version)[WEIGHTS]}, epoch=0, step=version, final=final)


def test_of_three_workers_that_publish_one_module_at_once_the_losers_exit_and_no_version_is_lost_doubled_or_torn(
    memory: Path,
) -> None:
    store = CheckpointStore(memory / "translator")
    workers = [start("race", store.path, name, 4.0, 3) for name in ("one", "two", "three")]
    lines = [line for worker in workers for line in finish(worker)]
    published = {line["published"]: line for line in lines if "published" in line}
    history = {checkpoint.version: checkpoint.seal().decode() for checkpoint in store.history()}
    assert len(published) == sum("published" in line for line in lines), "a version was published twice"
    assert {version: line["seal"] for version, line in published.items()}.items() <= history.items()
    assert sum("fenced" in line for line in lines) > 3
    assert len({line["writer"] for line in published.values()}) == 3
    assert problems(store) == []


def test_a_stopped_worker_that_wakes_up_after_its_successor_has_published_is_fenced_out(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "translator")
    old = start("obey", store.path, "old")
    pid = hear(old.stdout)["ready"]
    assert old.stdin is not None
    old.stdin.write("p")
    old.stdin.flush()
    assert hear(old.stdout) == {"published": 0}
    os.kill(pid, signal.SIGSTOP)
    successor = Publisher(store, "successor", keep=1, grace_s=0)
    publish(successor, 5)
    old.stdin.write("p")
    old.stdin.flush()
    os.kill(pid, signal.SIGCONT)
    [line] = finish(old)
    assert "published by another worker" in line["fenced"]
    newest = store.latest()
    assert newest is not None
    assert (newest.version, newest.writer) == (5, "successor")
    assert problems(store) == []


def test_a_worker_paused_anywhere_in_a_publish_until_its_number_was_taken_and_pruned_shows_readers_nothing_old(
    memory: Path,
) -> None:
    held = scenario("pause", memory / "translator", 2)
    assert {"fsync", "write", "getdents64"} <= {attempt["call"] for attempt in held}
    for attempt in held:
        assert attempt["newest_is_successors"], attempt
        assert attempt["went_on"], attempt
        assert attempt["problems"] == [], attempt
        assert attempt["ended"] == FENCED or (attempt["ended"] == PUBLISHED and attempt["by_old"] == [0, 1, 2]), attempt
        assert set(attempt["seen"]) == {"successor"}, attempt
    assert sum(attempt["ended"] == FENCED for attempt in held) > 20


def test_a_publish_that_a_cleanup_interrupts_appears_complete_or_not_at_all(memory: Path) -> None:
    tries = scenario("cleaning", memory / "folder", 1)
    assert {attempt["published"] for attempt in tries} == {True, False}
    for attempt in tries:
        assert attempt["there"] == ({"published": 3} if attempt["published"] else {}), attempt


def test_a_worker_that_took_over_before_the_old_one_published_is_the_one_that_exits(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "translator")
    old, new = Publisher(store, "same name"), Publisher(store, "same name")
    old.publish(files(0), epoch=0, step=0)
    with pytest.raises(FencedOut, match=r"Version 0 of translator was published by another worker.*this worker exits"):
        new.publish(files(1), epoch=0, step=0)


def test_a_publish_whose_success_is_reported_as_an_error_is_recognised_and_not_taken_for_another_worker_s(
    memory: Path,
) -> None:
    tries = scenario("lost", memory / "translator", ["EIO", "ETIMEDOUT", "ENOENT", "EEXIST"])
    assert {attempt["call"] for attempt in tries} <= {"rename", "renameat", "renameat2"}
    assert [attempt for attempt in tries if attempt["ended"] != PUBLISHED or attempt["problems"]] == []


def test_a_publish_that_succeeded_only_on_the_server_is_recognised_as_soon_as_it_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    with mounts.client(tmp_path / "here", tmp_path / "server", stale_s=2) as here:
        publisher = Publisher(CheckpointStore(here / "translator"), "worker")
        rename = os.rename

        def lose_the_answer(source: Path, target: Path) -> None:
            assert not target.exists()  # from now on this client believes that the name is missing
            rename(*(tmp_path / "server" / path.relative_to(here) for path in (source, target)))
            monkeypatch.undo()
            raise TimeoutError("the server did not answer")

        monkeypatch.setattr(os, "rename", lose_the_answer)
        ended = [publish(publisher)]
        while ended[-1] == REFUSED and len(ended) < 100:
            time.sleep(0.1)
            ended.append(publish(publisher))
        assert ended == [*[REFUSED] * (len(ended) - 1), PUBLISHED]
        assert len(ended) > 2
        assert publisher.store.versions() == [0, 1]
    assert problems(CheckpointStore(tmp_path / "server" / "translator")) == []


def test_readers_never_get_an_error_and_never_go_back_while_the_owner_publishes_and_prunes(memory: Path) -> None:
    store = CheckpointStore(memory / "translator")
    owner = Publisher(store, "owner", keep=1, grace_s=0)
    publish(owner)
    readers = [start("follow", store.path) for _ in range(2)]
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        follow_up(owner)
    follow_up(owner, final=True)
    for reader in readers:
        lines = finish(reader, 60)
        seen = [line["version"] for line in lines if "version" in line]
        assert all(line.get("right", False) for line in lines), lines[-3:]
        assert seen == sorted(set(seen))
        assert len(seen) > 20


def test_two_clients_with_stale_caches_see_versions_later_but_never_a_wrong_or_an_older_one(tmp_path: Path) -> None:
    with mounts.client(tmp_path / "a", tmp_path) as here, mounts.client(tmp_path / "b", tmp_path) as there:
        (tmp_path / "run").mkdir()
        owner = Publisher(CheckpointStore(here / "run" / "translator"), "owner", keep=1, grace_s=0)
        publish(owner)
        reader = start("follow", there / "run" / "translator")
        while owner.last < 39:
            follow_up(owner, final=owner.last == 38)
            time.sleep(0.05)
        lines = finish(reader, 60)
        assert all(line.get("right", False) for line in lines), lines[-3:]
        seen = [line["version"] for line in lines]
        assert (seen[-1], seen) == (39, sorted(set(seen)))


def test_of_two_writers_on_clients_with_stale_caches_the_older_is_fenced_out(tmp_path: Path) -> None:
    with mounts.client(tmp_path / "a", tmp_path) as here, mounts.client(tmp_path / "b", tmp_path) as there:
        (tmp_path / "run").mkdir()
        old = Publisher(CheckpointStore(here / "run" / "translator"), "old", keep=1, grace_s=0)
        publish(old, 3)
        new = Publisher(CheckpointStore(there / "run" / "translator"), "new", keep=1, grace_s=0)
        publish(new, 5)
        with pytest.raises(FencedOut):
            old.publish(files(9), epoch=9, step=9)
        assert publish(new) == PUBLISHED
        latest = old.store.latest()
        assert latest is not None
        assert (latest.version, latest.writer) == (8, "new")
        assert problems(CheckpointStore(there / "run" / "translator")) == []
