"""A page that stays open: updated with what is new, cheap while nothing is, and without a trace in the folder."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from modtrain.dashboard import page_cache, timeline
from modtrain.dashboard.page_cache import MOST_PAGES, PageCache
from modtrain.dashboard.safe_files import open_file
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.process_identity import process_started
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run, StageSpec
from tests.dashboard.deltas import apply_delta
from tests.support.serving import Served, copied, eventually, served, trained


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    return trained(tmp_path_factory.mktemp("first"), "one", tiny_recipe)


@pytest.fixture
def run(first: Run, tmp_path: Path) -> Run:
    return Run.open(copied(first, tmp_path / "runs" / "one"))


@pytest.fixture
def one(run: Run) -> Iterator[Served]:
    with served(run.path.parent) as server:
        yield server


def beat(run: Run, module: str = "generator", **more: Any) -> None:
    """A heartbeat of a live worker of this machine."""
    process = {"host": socket.gethostname(), "pid": os.getpid(), "started": process_started(os.getpid())}
    content = {**process, "state": "running", **more}
    filesystem.replace_file(run.heartbeat_path(module), json.dumps(content).encode())


def publish(run: Run, module: str = "generator") -> int:
    """One more version, as a worker publishes it."""
    beat(run, module)
    publisher = Publisher(run.store(module), "a-writer", keep=100)
    step = 1000 + publisher.last
    return publisher.publish({"weights.safetensors": b"x" * 100}, epoch=2, step=step, metrics={"loss": 1.5}).version


class Viewer:
    """A page in a browser: it polls with the tag of what it has, and applies what it gets."""

    def __init__(self, one: Served, address: str) -> None:
        self.one, self.address = one, address
        self.data: dict[str, Any] = {}
        self.tag = ""
        self.sizes: list[int] = []
        """Bytes of each update."""
        assert self.poll()

    def poll(self) -> bool | None:
        """Fetch what is new; None where nothing is."""
        answer = self.one.get(f"/data/{self.address}", params={"since": self.tag})
        if answer.status_code == 304:
            assert answer.content == b""
            return None
        assert answer.status_code == 200, answer.text
        content = answer.json()
        self.data = apply_delta(self.data, content["delta"]) if "delta" in content else content
        self.tag = answer.headers["etag"].strip('"')
        self.sizes.append(len(answer.content))
        return True

    @property
    def newest(self) -> int:
        """Newest version of the generator on the page of the run."""
        return int(self.data["lanes"][0]["versions"][-1]["version"])


def test_what_has_not_changed_is_not_sent_again(one: Served, run: Run) -> None:
    for address in ("/data/runs", "/data/run/one", "/data/checkpoint/one/generator/1", "/run/one/"):
        first = one.get(address)
        tag = first.headers["etag"]
        assert one.get(address, headers={"if-none-match": "something-else"}).status_code == 200
        if address.startswith("/data"):
            time.sleep(0.5)  # older than two refreshes: it is built again and has the same content
            again = one.get(address, headers={"if-none-match": tag})
            assert (again.status_code, again.content) == (304, b"")
    tag = one.get("/data/run/one").headers["etag"]
    version = publish(run)

    def has_version() -> bool | None:
        answer = one.get("/data/run/one", headers={"if-none-match": tag})
        return (answer.status_code == 200 and answer.json()["lanes"][0]["versions"][-1]["version"] == version) or None

    eventually(has_version)


def test_long_answers_are_compressed_where_the_client_accepts_that(one: Served) -> None:
    packed = one.get("/data/run/one", headers={"accept-encoding": "gzip"})
    plain = one.get("/data/run/one", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json().keys() == plain.json().keys()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


@pytest.mark.parametrize("address", ["runs", "run/one"])
def test_an_update_is_the_new_version_alone_and_gives_the_same_data(one: Served, run: Run, address: str) -> None:
    viewer = Viewer(one, address)
    time.sleep(0.5)
    assert viewer.poll() is None, "nothing is new"
    version = publish(run)
    eventually(viewer.poll)

    def is_complete() -> bool | None:
        viewer.poll()
        modules = (viewer.data["runs"][0] if address == "runs" else viewer.data)["modules"]
        return modules[0]["version"] == version or None

    eventually(is_complete)
    assert max(viewer.sizes[1:]) < max(400, viewer.sizes[0] / 4)
    whole = one.data(address)
    assert {**viewer.data, "at": 0} == {**whole, "at": 0}


def test_a_viewer_with_an_unknown_version_gets_everything(one: Served) -> None:
    answer = one.get("/data/run/one", params={"since": "of-another-server"})
    assert answer.status_code == 200
    assert "delta" not in answer.json()
    assert answer.json()["lanes"]


def test_a_viewer_that_missed_several_versions_gets_what_changed_since_its_own(
    run: Run,
) -> None:
    pages = PageCache(run.path.parent, refresh_s=0)
    old = pages.version("run", "one")
    for _ in range(page_cache.MOST_VERSIONS - 1):
        publish(run)
        pages.version("run", "one")
    update = pages.update("run", "one", old.tag)
    assert update is not None
    updated = apply_delta(json.loads(old.payload.content), json.loads(update.content)["delta"])
    assert {**updated, "at": 0} == {**json.loads(pages.version("run", "one").payload.content), "at": 0}
    publish(run)
    pages.version("run", "one")
    too_old = pages.update("run", "one", old.tag)
    assert too_old is not None
    assert "delta" not in json.loads(too_old.content)


def test_a_page_that_does_not_exist_has_no_updates(one: Served) -> None:
    assert one.get("/data/run/nobody", params={"since": "x"}).status_code == 404
    assert one.get("/data/sweep/one", params={"since": "x"}).status_code == 404
    assert one.get("/events/run/one").status_code == 404


def test_a_heartbeat_alone_is_a_small_update(run: Run) -> None:
    pages = PageCache(run.path.parent, refresh_s=0)
    publish(run)
    beat(run, counter=1, at=50.0)
    first = pages.version("run", "one")
    assert first.data["workers"][0]["heartbeat_at"] == pytest.approx(time.time(), abs=5)
    for _ in range(20):
        assert pages.version("run", "one").tag == first.tag, "the age of a heartbeat is no update"
    time.sleep(1.1)
    beat(run, counter=2, at=51.0)
    update = pages.update("run", "one", first.tag)
    assert update is not None
    assert len(update.content) < 400, update.content


def test_the_age_of_a_version_is_no_update(run: Run) -> None:
    pages = PageCache(run.path.parent, refresh_s=0)
    first = pages.version("runs")
    at = first.data["runs"][0]["modules"][0]["newest_at"]
    assert at == pytest.approx(run.store("generator").meta(2).published_at, abs=1)
    time.sleep(1.1)
    later = pages.version("runs")
    assert later.tag == first.tag
    assert later.data["at"] > first.data["at"]


def test_a_run_that_is_removed_is_gone_and_comes_back(one: Served, run: Run) -> None:
    viewer = Viewer(one, "run/one")
    run.path.rename(run.path.parents[1] / "elsewhere")
    eventually(lambda: one.get("/data/run/one", params={"since": viewer.tag}).status_code == 404 or None)
    (run.path.parents[1] / "elsewhere").rename(run.path)
    eventually(lambda: one.get("/data/run/one", params={"since": viewer.tag}).status_code in (200, 304) or None)


def test_storage_that_fails_while_a_page_is_open_is_an_error(one: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = Viewer(one, "run/one")

    def fails(path: str) -> dict[str, Any]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(one.pages.source, "run", fails)

        def failed() -> httpx.Response | None:
            answer = one.get("/data/run/one", params={"since": viewer.tag})
            return answer if answer.status_code == 503 else None

        assert os.strerror(errno.EIO) in eventually(failed).text
    eventually(lambda: one.get("/data/run/one", params={"since": viewer.tag}).status_code in (200, 304) or None)


def test_only_a_live_worker_has_the_time_of_its_heartbeat(one: Served, run: Run) -> None:
    assert [worker["heartbeat_at"] for worker in one.data("run/one")["workers"]] == [None]
    publish(run)
    eventually(lambda: one.data("run/one")["workers"][0]["heartbeat_at"] is not None or None)


def test_a_page_that_was_closed_is_not_read_any_more(one: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "VIEWED_S", 0.5)
    one.get("/data/run/one")
    assert ("run", "one") in one.pages.viewed
    eventually(lambda: one.pages.viewed == [] or None)
    eventually(lambda: one.pages.source.viewed_runs.cache_info().currsize == 0 or None)
    one.get("/data/run/one")
    assert one.pages.viewed == [("run", "one")], "it begins again with the next request"


def test_many_pages_are_open_at_once(one: Served, run: Run) -> None:
    viewers = [Viewer(one, "run/one") for _ in range(50)]
    version = publish(run)

    def follow(viewer: Viewer) -> int:
        eventually(lambda: (viewer.poll(), viewer.newest == version)[1] or None)
        return viewer.newest

    with ThreadPoolExecutor(10) as browsers:
        assert set(browsers.map(follow, viewers)) == {version}


def test_a_page_and_its_update_are_built_once_for_all_viewers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = PageCache(run.path.parent, refresh_s=60)
    built: list[str] = []
    real = pages.source.data

    def data(kind: str, path: str) -> dict[str, Any]:
        built.append(path)
        return real(kind, path)

    monkeypatch.setattr(pages.source, "data", data)
    with ThreadPoolExecutor(8) as viewers:
        versions = list(viewers.map(lambda _: pages.version("run", "one"), range(40)))
    assert built == ["one"]
    assert len({id(version) for version in versions}) == 1
    pages = PageCache(run.path.parent, refresh_s=0)
    old = pages.version("run", "one")
    publish(run)
    new = pages.version("run", "one")
    assert new.since(old) is new.since(old)


def test_pages_in_memory_are_bounded(run: Run) -> None:
    for number in range(MOST_PAGES + 10):
        copied(run, run.path.parent / f"more-{number}")
    pages = PageCache(run.path.parent, refresh_s=60)
    for number in range(MOST_PAGES + 10):
        pages.version("run", f"more-{number}")
    assert len(pages.viewed) == MOST_PAGES
    assert pages.source.viewed_runs.cache_info().currsize < MOST_PAGES


def listing(root: Path) -> dict[str, tuple[int, ...]]:
    """Everything that writing would change."""
    entries: dict[str, tuple[int, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            times = (status.st_mtime_ns, status.st_ctime_ns)
            entries[path] = (status.st_ino, status.st_mode, status.st_size, *times, status.st_nlink)
    return entries


def test_reading_leaves_no_trace(one: Served, run: Run) -> None:
    before = listing(run.path.parent)
    for address in (
        "/",
        "/run/one/",
        "/data/runs",
        "/data/run/one",
        "/checkpoint/one/generator/1/",
        "/data/verify/one/generator/1",
        "/weights/one/generator/1/weights.safetensors",
        "/data/log/one/generator",
        "/run/nobody/",
        "/sweep/one/",
        "/grid/one/grid-2-2.png",
    ):
        one.get(address)
    assert listing(run.path.parent) == before


def test_files_are_opened_for_reading_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in ROOT that is opened to write is noticed even if it does not change."""
    writing: list[Any] = []
    real = os.open

    def watched(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            writing.append(path)
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", watched)
    pages = PageCache(run.path.parent, refresh_s=0)
    for kind, path in (("runs", ""), ("run", "one")):
        pages.version(kind, path)
    pages.source.verify("one", "generator", 1)
    with open_file(run.path, "run.json") as file:
        assert file.read(1)
    assert writing == []


def event(what: str, at: float, **more: Any) -> dict[str, Any]:
    return {"what": what, "at": at, **more}


def report(state: str, at: float, **more: Any) -> WorkerReport:
    return WorkerReport(state=state, at=at, **more)


def test_a_wait_that_goes_on_is_shown() -> None:
    waiting = report("waiting", 50.0, waiting_for="discriminator")
    waited = event("waited", 30.0, seconds=5.0) | {"for": "other"}
    over = {"from": 25.0, "to": 30.0, "for": "other"}
    goes_on = {"from": 40.0, "to": None, "for": "discriminator"}
    assert timeline.waits([waited], "waiting", waiting, [10.0, 40.0]) == [over, goes_on]
    assert timeline.waits([waited], "waiting", waiting, [10.0])[1]["from"] == 30.0, "one wait comes after the other"
    assert timeline.waits([], "lost", waiting, [40.0]) == [{**goes_on, "to": 50.0}]
    assert timeline.waits([waited], "running", report("running", 50.0), [40.0]) == [over]


def test_a_worker_that_died_ends_with_its_last_sign_of_life() -> None:
    events = [event("began", 10.0), event("waited", 14.0), event("began", 20.0), event("began", 30.0)]
    workers = timeline.workers(events, "lost", report("running", 33.0), [9.0, 12.0, 31.0])
    assert [(worker["from"], worker["to"], worker["end"]) for worker in workers] == [
        (10.0, 14.0, "lost"),
        (20.0, 20.0, "lost"),
        (30.0, 33.0, "lost"),
    ]


def test_staleness_leaves_out_what_was_trained_again(run: Run) -> None:
    steps = {"generator": [0, 25, 50, 100, 125, 150, 100, 125], "discriminator": [10, 50]}
    meta = run.store("generator").meta(1)
    used = {"generator": {"discriminator": {"versions": [0], "epoch": 0}}, "discriminator": {}}
    versions = {
        module: [
            dataclasses.replace(meta, version=number, step=step, peers=used[module], published_at=float(number))
            for number, step in enumerate(steps[module])
        ]
        for module in run.modules
    }
    (curve,) = timeline.staleness(versions, run.spec)
    assert curve["step"] == [0, 25, 50, 100, 125]
    assert curve["at"] == [0.0, 1.0, 2.0, 6.0, 7.0]
    assert curve["behind"] == [-10, 15, 40, 90, 115]


def test_staleness_of_many_versions_is_its_median_with_a_band_and_a_bound(run: Run) -> None:
    meta = run.store("generator").meta(1)
    used = {"discriminator": {"versions": [0], "epoch": 0}}
    own = [
        dataclasses.replace(meta, version=n, step=n, full=n % 50 == 0, epoch=n // 50, peers=used, published_at=float(n))
        for n in range(1, 1001)
    ]
    versions = {"generator": own, "discriminator": [dataclasses.replace(meta, version=0, step=0, peers={})]}
    spec = run.spec.model_copy(update={"epochs": 20})
    (pair,) = timeline.staleness(versions, spec.model_copy(update={"max_staleness": 1}))
    assert pair["bound"] == 100, "the epoch that is trained, and one more"
    assert len(pair["behind"]) == len(pair["step"]) == len(pair["low"]) == 125
    assert (pair["behind"][0], pair["step"][0]) == (4.5, 4.0)
    assert (pair["low"][0], pair["high"][0]) == (pytest.approx(1.7), pytest.approx(7.3))
    assert pair["behind"][-1] == 996.5
    (pair,) = timeline.staleness(versions, spec)
    assert pair["bound"] is None
    stages = [
        StageSpec(name="first", epochs=2, trains=["discriminator"]),
        StageSpec(name="second", epochs=18, trains=["generator"]),
    ]
    used["discriminator"]["epoch"] = 2
    (pair,) = timeline.staleness(versions, spec.model_copy(update={"stages": stages}))
    assert max(pair["behind"][20:]) == 0, "the peer rests, and has no newer weights"


def test_a_worker_that_is_over_has_its_last_report_and_one_that_waits_is_drawn(one: Served, run: Run) -> None:
    (worker,) = one.data("run/one")["workers"]
    assert worker["last_report_at"] == run.read_report("generator").at
    publish(run)
    beat(run, state="waiting", at=time.time(), waiting_for="discriminator")

    def waiting() -> dict[str, Any] | None:
        data = one.data("run/one")
        return data if data["lanes"][0]["waits"] else None

    data = eventually(waiting)
    lane = data["lanes"][0]
    assert data["workers"][0]["last_report_at"] is None
    assert lane["waits"] == [{"from": lane["versions"][-1]["at"], "to": None, "for": "discriminator"}]
