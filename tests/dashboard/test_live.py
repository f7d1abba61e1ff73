"""A page that stays open: told of what is new, cheap while nothing is, and never a trace in the folder."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from modtrain.dashboard import events, timeline
from modtrain.dashboard import page_cache as watch
from modtrain.dashboard.page_cache import MOST, Watch
from modtrain.dashboard.safe_files import opened
from modtrain.storage import filesystem
from modtrain.storage.history import History
from modtrain.storage.process_identity import process_started
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from tests.support.serving import Served, copied, eventually, served, trained


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    return trained(tmp_path_factory.mktemp("first"), "one", tiny_recipe)


@pytest.fixture
def run(first: Run, tmp_path: Path) -> Run:
    return Run.open(copied(first, tmp_path / "runs" / "one"))


@pytest.fixture
def one(run: Run) -> Iterator[Served]:
    with served(run.path.parent) as found:
        yield found


def publish(run: Run, module: str = "generator") -> int:
    """One more version, as a worker publishes it."""
    here = {"host": socket.gethostname(), "pid": os.getpid(), "started": process_started(os.getpid())}
    filesystem.replace_file(
        run.module_path(module) / "heartbeat.json", json.dumps({**here, "state": "training"}).encode()
    )
    publisher = Publisher(run.store(module), "a-writer", keep=100)
    step = 1000 + publisher.last
    return publisher.publish({"weights.safetensors": b"x" * 100}, epoch=2, step=step, metrics={"loss": 1.5}).version


class Listener:
    """A browser's EventSource: the revisions that it was told."""

    def __init__(self, one: Served, address: str) -> None:
        self.heard: list[str] = []
        self.lines: list[str] = []
        self.headers: httpx.Headers | None = None
        self._thread = threading.Thread(target=self._listen, args=(one.url + address,))
        self._over = False
        self._thread.start()

    def _listen(self, url: str) -> None:
        with httpx.Client(timeout=60) as client, client.stream("GET", url) as answer:
            self.headers = answer.headers
            try:
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        self.heard.append(line)
                    self.lines.append(line)
                    if self._over:
                        return
            except httpx.RemoteProtocolError:
                return  # the server has ended


@pytest.fixture
def listen(one: Served) -> Iterator[Callable[[str], Listener]]:
    made: list[Listener] = []

    def begin(address: str) -> Listener:
        made.append(Listener(one, address))
        return made[-1]

    yield begin
    one.server.handle_exit(2, None)
    for listener in made:
        listener._thread.join(timeout=60)
        assert not listener._thread.is_alive(), "Ctrl-C ends open streams, too"


def test_what_has_not_changed_is_not_sent_again(one: Served, run: Run) -> None:
    for address in ("/data/runs", "/data/run/one", "/data/checkpoint/one/generator/1", "/run/one/"):
        first = one.get(address)
        tag = first.headers["etag"]
        assert one.get(address, headers={"if-none-match": "something-else"}).status_code == 200
        if address.startswith("/data"):
            time.sleep(0.25)  # older than a look: it is made anew, and says the same but for the ages
            again = one.get(address, headers={"if-none-match": tag})
            assert (again.status_code, again.content) == (304, b"")
    tag = one.get("/data/run/one").headers["etag"]
    version = publish(run)

    def changed() -> dict[str, Any] | None:
        answer = one.get("/data/run/one", headers={"if-none-match": tag})
        return answer.json() if answer.status_code == 200 else None

    data = eventually(changed)
    assert data["lanes"][0]["versions"][-1]["version"] == version


def test_what_is_long_is_packed_for_whoever_takes_that(one: Served) -> None:
    packed = one.get("/data/run/one", headers={"accept-encoding": "gzip"})
    plain = one.get("/data/run/one", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json().keys() == plain.json().keys()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


@pytest.mark.parametrize("address", ["/events/runs", "/events/run/one"])
def test_a_new_checkpoint_is_told_to_who_looks(
    one: Served, run: Run, listen: Callable[[str], Listener], address: str
) -> None:
    page = listen(address)
    eventually(lambda: page.heard or None)
    assert page.headers is not None
    assert page.headers["content-type"].startswith("text/event-stream")
    assert page.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in page.headers
    before = len(page.heard)
    publish(run)
    eventually(lambda: len(page.heard) > before or None)


def test_a_page_that_is_not_there_has_no_events(one: Served) -> None:
    assert one.get("/events/run/nobody").status_code == 404
    assert one.get("/events/sweep/one").status_code == 404


def test_a_page_hears_that_there_is_no_news(
    one: Served, listen: Callable[[str], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.05)
    page = listen("/events/run/one")
    still = eventually(lambda: page.lines.index("event: still") if "event: still" in page.lines else None)
    assert eventually(lambda: page.lines[still + 1 : still + 3] if len(page.lines) > still + 2 else None) == [
        "data:",  # without it a browser tells its page of no event
        "",
    ]


def told_after(run: Run, happens: Callable[[Watch, Callable[[], None]], None]) -> str:
    """What a page that was told of everything so far hears next; `happens` while that was being sent to it."""

    async def hear() -> str:
        looking, bell = Watch(run.path.parent, refresh_s=0), events.Bell()
        looking.page("run", "one")
        messages = events._messages(looking, bell, ("run", "one"))
        await anext(messages)
        happens(looking, bell.ringer())
        await asyncio.sleep(0.05)
        try:
            return await asyncio.wait_for(anext(messages), 10)
        finally:
            await messages.aclose()

    return asyncio.run(hear())


def test_news_that_come_while_others_are_sent_are_not_forgotten(run: Run) -> None:
    def news(looking: Watch, ring: Callable[[], None]) -> None:
        publish(run)
        looking.page("run", "one")
        ring()

    assert told_after(run, news) == 'data: {"revision": 2}\n\n'


def test_news_of_another_page_are_no_reason_to_say_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.2)

    def others(looking: Watch, ring: Callable[[], None]) -> None:
        def go_on() -> None:
            ring()
            loop.call_later(0.05, go_on)

        loop = asyncio.get_running_loop()
        go_on()

    assert told_after(run, others) == "event: still\ndata:\n\n"


def test_of_a_worker_that_only_beats_the_page_hears_now_and_then(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BEATS_S", 0.1)
    publish(run)
    looking = Watch(run.path.parent, refresh_s=0)
    heartbeat = run.module_path("generator") / "heartbeat.json"
    beats: dict[str, Any] = json.loads(heartbeat.read_text())

    def told() -> tuple[int, str]:
        tag = looking.page("run", "one").tag
        return looking.revision("run", "one"), tag

    def heard(number: int) -> bool | None:
        filesystem.replace_file(heartbeat, json.dumps({**beats, "counter": number}).encode())
        revision, tag = told()
        return (revision > first[0] and tag != first[1]) or None

    first, numbers = told(), iter(range(10_000))
    eventually(lambda: heard(next(numbers)))
    silent = told()
    for _ in range(20):
        time.sleep(0.02)
        assert told() == silent, "the age of a worker that is silent grows by itself"


def test_a_page_that_is_opened_later_says_how_old_things_are_by_then(run: Run) -> None:
    watch = Watch(run.path.parent, refresh_s=0)

    def age_s() -> float:
        return float(json.loads(watch.page("runs").content)["runs"][0]["modules"][0]["age_s"])

    first, revision = age_s(), watch.revision("runs")
    eventually(lambda: age_s() > first + 0.2 or None)
    assert watch.revision("runs") == revision, "nobody is told of that"


def test_a_run_that_is_removed_is_not_shown_as_live(one: Served, run: Run, listen: Callable[[str], Listener]) -> None:
    page = listen("/events/run/one")
    eventually(lambda: page.heard or None)
    assert one.get("/data/run/one").status_code == 200
    before = len(page.heard)
    run.path.rename(run.path.parents[1] / "elsewhere")
    eventually(lambda: len(page.heard) > before or None)
    eventually(lambda: one.get("/data/run/one").status_code == 404 or None)
    before = len(page.heard)
    (run.path.parents[1] / "elsewhere").rename(run.path)
    eventually(lambda: len(page.heard) > before or None)
    assert one.get("/data/run/one").status_code == 200


def test_storage_that_fails_while_a_page_is_open_is_said(
    one: Served, listen: Callable[[str], Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = listen("/events/run/one")
    eventually(lambda: page.heard or None)
    before = len(page.heard)

    def fails(path: str) -> dict[str, Any]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(one.pages.source, "run", fails)
        eventually(lambda: len(page.heard) > before or None)
        answer = one.get("/data/run/one")
        assert answer.status_code == 503
        assert os.strerror(errno.EIO) in answer.text
        before = len(page.heard)
    eventually(lambda: len(page.heard) > before or None)
    assert one.get("/data/run/one").status_code == 200


def test_only_of_a_worker_that_lives_the_page_says_when_it_was_heard(one: Served, run: Run) -> None:
    assert [worker["beat_age_s"] for worker in one.data("run/one")["workers"]] == [None]
    publish(run)
    eventually(lambda: one.data("run/one")["workers"][0]["beat_age_s"] is not None or None)


def test_what_was_closed_is_not_looked_at_any_more(one: Served) -> None:
    watch = one.pages
    with httpx.Client(timeout=60) as client, client.stream("GET", one.url + "/events/run/one") as answer:
        lines = answer.iter_lines()  # kept: whoever drops it closes the page
        next(lines)
        assert watch.viewers == 1
        lines.close()
    eventually(lambda: watch.viewers == 0 or None)


def test_many_pages_are_open_at_once(one: Served, run: Run, listen: Callable[[str], Listener]) -> None:
    pages = [listen("/events/run/one") for _ in range(50)]
    eventually(lambda: all(page.heard for page in pages) or None)
    version = publish(run)
    eventually(lambda: all(len(page.heard) > 1 for page in pages) or None)

    def fetch(_: int) -> int:
        data = httpx.get(one.url + "/data/run/one", timeout=60).json()
        return int(data["lanes"][0]["versions"][-1]["version"])

    with ThreadPoolExecutor(10) as browsers:
        assert set(browsers.map(fetch, range(50))) == {version}


def test_a_page_is_made_once_for_all_who_ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(run.path.parent, refresh_s=60)
    made: list[str] = []
    data = watch.source.data
    monkeypatch.setattr(watch.source, "data", lambda kind, path: made.append(path) or data(kind, path))
    with ThreadPoolExecutor(8) as viewers:
        pages = list(viewers.map(lambda _: watch.page("run", "one"), range(40)))
    assert made == ["one"]
    assert len({id(page) for page in pages}) == 1


def test_what_nobody_asks_for_is_forgotten(run: Run) -> None:
    for number in range(MOST + 10):
        copied(run, run.path.parent / f"more-{number}")
    watch = Watch(run.path.parent, refresh_s=60)
    for number in range(MOST + 10):
        watch.page("run", f"more-{number}")
    assert watch.at_hand <= MOST
    assert watch.source.at_hand < MOST


def listing(root: Path) -> dict[str, tuple[int, ...]]:
    """Everything that writing would change."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            told = os.lstat(path)
            found[path] = (told.st_ino, told.st_mode, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_nlink)
    return found


def test_looking_leaves_no_trace(one: Served, run: Run) -> None:
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
    """Whoever opens a file in ROOT to write is caught, not only whoever changes it."""
    writing: list[Any] = []
    real = os.open

    def watched(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
            writing.append(path)
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", watched)
    watch = Watch(run.path.parent, refresh_s=0)
    for kind, path in (("runs", ""), ("run", "one")):
        watch.page(kind, path)
    watch.source.verify("one", "generator", 1)
    with opened(run.path, "run.json") as descriptor:
        assert os.read(descriptor, 1)
    assert writing == []


def doing(what: str, at: float, **more: Any) -> dict[str, Any]:
    return {"what": what, "at": at, **more}


def test_a_wait_that_goes_on_is_shown(run: Run) -> None:
    beat = {"state": "waiting", "at": 50.0, "waiting_for": "discriminator"}
    waited = doing("waited", 30.0, seconds=5.0) | {"for": "other"}
    over = {"from": 25.0, "to": 30.0, "for": "other"}
    goes_on = {"from": 40.0, "to": None, "for": "discriminator"}
    assert timeline.waits([waited], "waiting", beat, [10.0, 40.0]) == [over, goes_on]
    assert timeline.waits([waited], "waiting", beat, [10.0])[1]["from"] == 30.0, "one wait comes after the other"
    assert timeline.waits([], "lost", beat, [40.0]) == [{**goes_on, "to": 50.0}]
    assert timeline.waits([waited], "training", {"state": "training", "at": 50.0}, [40.0]) == [over]


def test_long_lanes_are_their_newest_part() -> None:
    most = timeline.MOST_DOINGS
    waits = [doing("waited", float(second), seconds=1.0) for second in range(20 * most)]
    assert [wait["to"] for wait in timeline.waits(waits, "training", {}, [])] == [w["at"] for w in waits[-most:]]
    begun = [doing("began", float(second), host="here") for second in range(20 * most)]
    lives = timeline.lives(begun, "training", {}, [])
    assert [life["from"] for life in lives] == [line["at"] for line in begun[-most:]]
    assert {life["how"] for life in lives[:-1]} == {"lost"}
    assert lives[-1]["to"] is None


def test_a_worker_that_died_ends_with_its_last_sign_of_life() -> None:
    doings = [doing("began", 10.0), doing("waited", 14.0), doing("began", 20.0), doing("began", 30.0)]
    found = timeline.lives(doings, "lost", {"at": 33.0}, [9.0, 12.0, 31.0])
    assert [(life["from"], life["to"], life["how"]) for life in found] == [
        (10.0, 14.0, "lost"),
        (20.0, 20.0, "lost"),
        (30.0, 33.0, "lost"),
    ]


def test_staleness_leaves_out_what_was_trained_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"generator": [0, 25, 50, 100, 125, 150, 100, 125], "discriminator": [10, 50]}
    peers = {"discriminator": {"versions": [0], "epoch": 0}}
    history = History(run)

    def versions(module: str) -> list[dict[str, Any]]:
        used = peers if module == "generator" else {}
        told = enumerate(steps[module])
        return [
            {"version": number, "step": step, "peers": used, "published_at": float(number)} for number, step in told
        ]

    monkeypatch.setattr(history, "versions", versions)
    (found,) = timeline.staleness(run.modules, history)
    assert found["step"] == [0, 25, 50, 100, 125]
    assert found["at"] == [0.0, 1.0, 2.0, 6.0, 7.0]
    assert found["behind"] == [-10, 15, 40, 90, 115]


def test_a_lane_says_when_a_worker_that_is_over_was_heard_and_that_one_waits(one: Served, run: Run) -> None:
    heard = {lane["module"]: lane["heard_at"] for lane in one.data("run/one")["lanes"]}
    assert heard == {module: run.heartbeat(module)["at"] for module in run.modules}
    publish(run)
    beat = {**run.heartbeat("generator"), "state": "waiting", "at": time.time(), "waiting_for": "discriminator"}
    filesystem.replace_file(run.module_path("generator") / "heartbeat.json", json.dumps(beat).encode())
    lane = eventually(lambda: next((lane for lane in one.data("run/one")["lanes"] if lane["waits"]), None))
    assert (lane["module"], lane["heard_at"]) == ("generator", None)
    assert lane["waits"] == [{"from": lane["versions"][-1]["at"], "to": None, "for": "discriminator"}]
