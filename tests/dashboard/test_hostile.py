"""Hostile names, links and files: nothing outside of ROOT is shown, and no other run is affected."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import json
import os
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from modtrain.dashboard import run_page, safe_files, sweep_page
from modtrain.dashboard.page_data import Source
from modtrain.dashboard.urls import base_of, quoted, shown, unquoted
from modtrain.errors import CorruptCheckpoint
from modtrain.monitoring.summary import RunSummary
from modtrain.scheduling.config import Config
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import newest_published
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.manifest import as_json
from modtrain.storage.run import Run
from modtrain.storage.stop_request import read_stop_request
from modtrain.sweeps.sweep import Sweep, new_sweep
from tests.support.command import until
from tests.support.serving import Served, copied, embedded, eventually, raw, served, trained

SECRET = "the-secret-of-another-user"
NAMES = (
    b"<script>alert(1)</script>".replace(b"/", b"\\"),
    b"</script".replace(b"/", b"&#47;") + b">\"'",
    b"\"quoted\" & 'single' `back` ${x} {{ 7*7 }} {% x %}",
    b"two\nlines\ttab\r",
    b"\xff\xfe no utf-8 \xe9",
    b"a..b",
    b"%2e%2e%2fetc",
    b"a?b#c;d=e&f",
    b"\xe2\x80\xae\xe2\x80\xa8 turned",
    "größe ☃ 苹果".encode(),
    b" spaces ",
    b"index.html",
    b"-rf",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    return trained(tmp_path_factory.mktemp("first"), "sound", tiny_recipe)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder with a ROOT in it, `runs`, and beside it private files, each with the secret in it."""
    folder = tmp_path_factory.mktemp("beside")
    elsewhere = folder / "elsewhere"
    betraying(copied(run, elsewhere / "private"))
    for file in ("text", "worker.log", "picture.png", "weights.safetensors", "metrics.jsonl"):
        (elsewhere / file).write_text(SECRET)
    (folder / "runs").mkdir()
    return folder


@pytest.fixture(scope="module")
def secret(beside: Path) -> Path:
    return beside / "elsewhere"


def betraying(path: Path) -> None:
    """Put the secret into every file of a run, so that it is on a page that shows any of them."""
    run = Run.open(path)
    (path / "run.json").write_bytes(as_json(run.spec.model_copy(update={"params": {"note": SECRET}})))
    (path / "stop").write_text(SECRET)
    module = run.module_path("generator")
    beat = json.loads((module / "heartbeat.json").read_text())
    (module / "heartbeat.json").write_text(json.dumps({**beat, "device": SECRET}))
    published = run.store("generator").meta(1)
    for file, line in {
        "metrics.jsonl": {"step": 1000, "epoch": 1, "lr": 0.1, "at": 1.0, SECRET: 1.0},
        "workers.jsonl": {"what": "began", "at": 1.0, "host": SECRET},
        "published.jsonl": json.loads(
            dataclasses.replace(published, version=7, peers={SECRET: {"versions": [1], "epoch": 1}}).seal()
        ),
    }.items():
        with (module / file).open("a") as there:
            there.write(json.dumps(line) + "\n")
    (module / "worker.log").write_text(SECRET)
    folder = run.store("generator").folder(1)
    (folder / "meta.json").write_bytes(dataclasses.replace(published, writer=SECRET).seal())
    (folder / "weights.safetensors").write_text(SECRET)
    line = {"versions": {}, "epochs": {}, "metrics": {SECRET: 1.0}, "at": 5.0, "grid": "grid-1-1.png"}
    (path / "evaluation" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (path / "evaluation" / "grid-1-1.png").write_text(SECRET)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        copied(run, root / os.fsdecode(name))
    with served(root) as one:
        yield one


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_every_name_that_a_folder_can_have_is_listed_escaped_and_opened(named: Served, name: bytes) -> None:
    address = quote(name, safe="")
    rows = {row["path"]: row for row in named.data("runs")["runs"]}
    assert address in rows
    assert rows[address]["problem"] is None
    page = named.get(f"/run/{address}/")
    assert page.status_code == 200
    assert embedded(page.text)["run"]["path"] == address
    assert embedded(page.text)["run"]["state"] == "finished"
    assert named.data(f"checkpoint/{address}/generator/1")["present"]
    assert named.get(f"/weights/{address}/generator/1/weights.safetensors").status_code == 200
    assert named.get(f"/data/log/{address}/generator").status_code == 200


@pytest.mark.parametrize("page", ["/", *(f"/run/{quote(name, safe='')}/" for name in NAMES)])
def test_no_name_becomes_markup(named: Served, page: str) -> None:
    text = named.get(page).text
    assert "<script>alert" not in text
    assert "49" not in text.partition("<body")[0].partition("<title>")[2].partition("</title>")[0]
    assert "<" not in text.partition('id="data">')[2].partition("</script>")[0]
    assert text.count("<script") == text.count("</script>")
    assert page == "/" or text.count("<script") == named.get("/run/a..b/").text.count("<script")


def test_no_path_becomes_markup(tmp_path: Path, run: Run) -> None:
    """A slash can stand in no name, but between two."""
    path = "<x/></script><svg onload=alert(1)>"
    copied(run, tmp_path / "runs" / path)
    with served(tmp_path / "runs") as one:
        for address in ("/", f"/run/{quoted(path)}/", f"/checkpoint/{quoted(path)}/generator/1/"):
            text = one.get(address).text
            assert "<svg onload" not in text
            assert "<x/>" not in text
            assert "svg onload" in text


OUTSIDE = (
    "/run/../elsewhere/private/",
    "/run/%2e%2e/elsewhere/private/",
    "/run/..%2felsewhere%2fprivate/",
    "/run/sound/../../elsewhere/private/",
    "/data/run/%2e%2e%2felsewhere%2fprivate",
    "/grid/sound/..%2f..%2f..%2felsewhere%2fpicture.png",
    "/grid/sound/%2e%2e/%2e%2e/%2e%2e/elsewhere/picture.png",
    "/grid/%2e%2e/elsewhere/private/grid-1-1.png",
    "/grid/sound//etc/passwd",
    "/grid//etc/passwd.png",
    "/static/..%2fapp.py",
    "/static/../app.py",
    "/static/%2e%2e%2fapp.py",
    "/static//etc/passwd",
    "/static/%2Fetc%2Fpasswd",
    "/weights/sound/generator/1/..%2f..%2f..%2f..%2f..%2f..%2felsewhere%2fweights.safetensors",
    "/weights/sound/..%2f..%2f..%2felsewhere%2fprivate%2fmodules%2fgenerator/1/weights.safetensors",
    "/weights/sound/generator/2/state.pt",
    "/data/log/sound/..%2f..%2f..%2felsewhere",
    "/data/log/%2e%2e%2felsewhere%2fprivate/generator",
    "/data/log/sound/%00",
    "/run/sound%00/",
    "/run/" + "a/" * 3000,
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/run/sound/run.json/",
    "/checkpoint/sound/generator/99999999999999999999999999/",
    "/data/checkpoint/sound/generator/-1",
    "/data/checkpoint/sound/unknown/1",
)


def named_after(place: str) -> str:
    return f"linked-{place.replace('/', '-')}"


@pytest.fixture(scope="module")
def linked(beside: Path, run: Run, secret: Path) -> Iterator[Served]:
    """Runs with a link to the secret in every place."""
    root = beside / "runs"
    copied(run, root / "sound")
    (root / "whole").symlink_to(secret / "private")
    (root / "above").symlink_to(secret)
    for place in PLACES:
        link(copied(run, root / named_after(place)), place, secret)
    with served(root) as one:
        yield one


def link(path: Path, place: str, secret: Path) -> None:
    """Put a link to the same place of another user's run into a run."""
    at = path / place
    if at.is_dir():
        shutil.rmtree(at)
    at.unlink(missing_ok=True)
    at.symlink_to(secret / "private" / place)


PLACES = (
    "run.json",
    "stop",
    "modules",
    "modules/generator",
    "modules/generator/metrics.jsonl",
    "modules/generator/workers.jsonl",
    "modules/generator/published.jsonl",
    "modules/generator/heartbeat.json",
    "modules/generator/worker.log",
    "modules/generator/checkpoints",
    "modules/generator/checkpoints/00000001",
    "modules/generator/checkpoints/00000001/meta.json",
    "modules/generator/checkpoints/00000001/weights.safetensors",
    "evaluation",
    "evaluation/metrics.jsonl",
    "evaluation/grid-1-1.png",
)
PARTS = (
    "/run/{}/",
    "/data/run/{}",
    "/checkpoint/{}/generator/1/",
    "/data/verify/{}/generator/1",
    "/data/log/{}/generator",
    "/grid/{}/grid-1-1.png",
    "/weights/{}/generator/1/weights.safetensors",
)
"""Addresses of a run, which together show all that the dashboard reads of it."""


def test_the_secret_is_on_every_page_of_its_owner(secret: Path) -> None:
    """Otherwise a page without the secret would prove nothing."""
    with served(secret) as one:
        for part in PARTS:
            assert "verify" in part or SECRET in one.get(part.format("private")).text, part
        for place, key in {
            "run.json": "config",
            "stop": "run",
            "metrics.jsonl": "curves",
            "published.jsonl": "lanes",
            "heartbeat.json": "workers",
            "worker.log": "logs",
            "evaluation": "evaluations",
        }.items():
            assert SECRET in json.dumps(one.data("run/private")[key]), place
        assert SECRET in json.dumps([lane["workers"] for lane in one.data("run/private")["lanes"]]), "workers.jsonl"


@pytest.mark.parametrize("address", OUTSIDE)
def test_no_address_leads_outside_of_root(linked: Served, address: str) -> None:
    answer = raw(linked.port, f"GET {address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 404, 414), answer[:500]
    for content in (SECRET.encode(), b"root:x:", b"Starlette"):
        assert content not in answer


@pytest.mark.parametrize("name", ["whole", "above", "above/private"])
def test_a_linked_folder_is_no_run(linked: Served, name: str) -> None:
    assert name not in {row["path"] for row in linked.data("runs")["runs"]}
    for address in (*PARTS, "/data/run/{}?since=x"):
        assert linked.get(address.format(name)).status_code == 404


@pytest.mark.parametrize("place", PLACES)
def test_a_link_inside_of_a_run_is_not_followed(linked: Served, place: str) -> None:
    name = named_after(place)
    for address in (*PARTS, "/data/runs"):
        answer = linked.get(address.format(name))
        assert answer.status_code in (200, 404), address
        assert SECRET not in answer.text
    assert linked.data("run/sound")["run"]["state"] == "finished", "it costs no other run"


@pytest.mark.parametrize("place", ["run.json", "modules/generator/metrics.jsonl", "modules/generator/checkpoints"])
def test_a_run_with_a_link_says_so_on_its_page(linked: Served, place: str) -> None:
    data = linked.data(f"run/{named_after(place)}")
    assert "link" in data["problem"]
    assert "curves" not in data


@pytest.mark.parametrize("place", ["modules/generator/worker.log", "evaluation/grid-1-1.png"])
def test_a_linked_log_or_grid_costs_only_itself(linked: Served, place: str) -> None:
    data = linked.data(f"run/{named_after(place)}")
    assert data["problem"] is None
    assert data["run"]["state"] == "finished"


@pytest.mark.parametrize("place", ["stop", *(place for place in PLACES[1:] if Path(place).suffix)])
def test_a_file_that_becomes_a_link_after_it_was_checked_is_not_followed(
    tmp_path: Path, run: Run, secret: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A run can be changed at any time by its owner: a check before the opening is worth nothing."""
    link(copied(run, tmp_path / "runs" / "one"), place, secret)
    real, times = os.stat, [f"st_{when}time{unit}" for when in "amc" for unit in ("", "_ns")]

    def plain(path: Any, *, follow_symlinks: bool = False, **named: Any) -> os.stat_result:
        status = real(path, follow_symlinks=follow_symlinks, **named)
        if not stat.S_ISLNK(status.st_mode):
            return status
        return os.stat_result((stat.S_IFREG | 0o644, *status[1:10]), {name: getattr(status, name) for name in times})

    monkeypatch.setattr(os, "lstat", plain)
    monkeypatch.setattr(os, "stat", lambda path, **named: plain(path, **{"follow_symlinks": True, **named}))
    source = Source(tmp_path / "runs")
    data = source.run("one")
    assert data["problem"] is None
    assert (data["run"]["stop"] is not None) == (place == "stop")
    assert SECRET not in json.dumps([source.runs(), data, source.checkpoint("one", "generator", 1)])


@pytest.mark.parametrize("swapped", ["deep", "deep/one"])
@pytest.mark.parametrize("part", PARTS[2:])
def test_a_folder_that_becomes_a_link_is_not_followed_before_the_next_refresh(
    tmp_path: Path, run: Run, secret: Path, swapped: str, part: str
) -> None:
    root = tmp_path / "runs"
    copied(run, root / "deep" / "one")
    with served(root, refresh_s=60) as one:
        assert one.get("/data/run/deep/one").status_code == 200
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "one").symlink_to(secret / "private")
        (root / swapped).rename(tmp_path / "moved")
        (root / swapped).symlink_to({"deep": tmp_path / "own", "deep/one": secret / "private"}[swapped])
        answer = one.get(part.format("deep/one"))
        assert answer.status_code == 404
        assert SECRET not in answer.text


@pytest.mark.parametrize("swapped", ["", "deep", "deep/one"])
def test_no_folder_above_a_file_is_a_link(tmp_path: Path, swapped: str) -> None:
    run = tmp_path / "runs" / "deep" / "one"
    run.mkdir(parents=True)
    (run / "worker.log").write_text(SECRET)
    assert safe_files.lies(run, "worker.log")
    assert safe_files.strange(run, []) is None
    place = tmp_path / "runs" / swapped
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    assert (run / "worker.log").read_text() == SECRET
    assert not safe_files.lies(run, "worker.log")
    assert "link" in (safe_files.strange(run, []) or "")


def test_a_folder_need_not_be_readable_to_be_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/home` often is not."""
    (tmp_path / "file").write_text("own")
    flags: list[int] = []
    real, own = os.open, threading.get_ident()

    def opened(path: Any, flag: int, *more: Any, **named: Any) -> int:
        if threading.get_ident() == own:  # not a thread that the test before has left
            flags.append(flag)
        return real(path, flag, *more, **named)

    monkeypatch.setattr(os, "open", opened)
    assert safe_files.read(tmp_path, "file") == b"own"
    assert all(each & os.O_PATH for each in flags[:-1])


def test_the_root_itself_may_be_given_as_a_link(tmp_path: Path, run: Run) -> None:
    """ROOT is chosen by the user who starts the dashboard."""
    copied(run, tmp_path / "runs" / "one")
    (tmp_path / "short").symlink_to(tmp_path / "runs")
    assert Source(tmp_path / "short").run("one")["problem"] is None


def test_a_run_that_was_opened_through_a_link_is_not_shown(
    tmp_path: Path, run: Run, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(run, tmp_path / "runs" / "one")
    source = Source(tmp_path / "runs")
    source.runs()
    monkeypatch.setattr(source.catalog, "summary", lambda path: RunSummary(Run.open(secret / "private"), path))
    assert SECRET not in json.dumps(source.run("one"))
    with pytest.raises(safe_files.NotThere):
        source.shown_run("one")


@pytest.mark.parametrize("kind", ["link", "pipe", "long", "folder"])
def test_a_stop_that_is_no_few_words_asks_but_is_not_read(tmp_path: Path, run: Run, kind: str) -> None:
    path = copied(run, tmp_path / "runs" / "one")
    (tmp_path / "text").write_text(SECRET)
    match kind:
        case "link":
            (path / "stop").symlink_to(tmp_path / "text")
        case "pipe":
            os.mkfifo(path / "stop")
        case "long":
            (path / "stop").write_bytes(b"\0" * (1 << 20))
        case "folder":
            (path / "stop").mkdir()
    stop = read_stop_request(path)
    assert stop is not None
    assert SECRET not in str(stop)
    source = Source(tmp_path / "runs")
    assert [row["problem"] for row in source.runs()["runs"]] == [None]
    assert len(json.dumps(source.run("one"))) < 1 << 20


def test_a_heartbeat_that_is_a_link_says_nothing(tmp_path: Path, run: Run) -> None:
    beat = Run.open(copied(run, tmp_path / "one")).module_path("generator") / "heartbeat.json"
    beat.rename(tmp_path / "moved")
    beat.symlink_to(tmp_path / "moved")
    assert not Run.open(tmp_path / "one").read_report("generator")


def test_no_more_is_read_of_a_small_file_that_grows_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    small = (tmp_path / "file").stat()
    monkeypatch.setattr(os, "fstat", lambda descriptor: os.stat_result((*small[:6], 1, *small[7:10])))
    assert len(filesystem.read_file(tmp_path / "file", most=150_000)) == 150_000


@pytest.mark.parametrize(
    "place",
    [
        "run.json",
        "stop",
        "modules/generator/metrics.jsonl",
        "modules/generator/heartbeat.json",
        "modules/generator/published.jsonl",
        "modules/generator/worker.log",
        "modules/generator/checkpoints/00000002/meta.json",
        "modules/generator/checkpoints/00000002/weights.safetensors",
        "evaluation/metrics.jsonl",
    ],
)
@pytest.mark.timeout(120)
def test_a_pipe_blocks_no_request(tmp_path: Path, run: Run, place: str) -> None:
    path = copied(run, tmp_path / "runs" / "piped") / place
    copied(run, tmp_path / "runs" / "sound")
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with served(tmp_path / "runs") as one:
        assert {row["path"] for row in one.data("runs")["runs"]} == {"piped", "sound"}
        for address in ("run/piped", "verify/piped/generator/2", "log/piped/generator", "checkpoint/piped/generator/2"):
            assert one.get(f"/data/{address}").status_code in (200, 404)
        assert one.data("run/sound")["problem"] is None


def test_a_log_of_two_gigabytes_is_read_from_its_end(tmp_path: Path, run: Run) -> None:
    path = copied(run, tmp_path / "runs" / "loud")
    with (path / "modules/generator/worker.log").open("wb") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(100)))
    with served(tmp_path / "runs") as one:
        log = next(log for log in one.data("run/loud")["logs"] if log["module"] == "generator")
        assert log["size"] > 2 << 30
        assert log["lines"] == [f"line {number}" for number in range(60, 100)]
        text = one.get("/data/log/loud/generator").text
        assert text.endswith("line 99")
        assert len(text) < 1 << 20


def test_a_log_that_is_one_endless_line_or_no_text_is_shown_in_part(tmp_path: Path, run: Run) -> None:
    path = copied(run, tmp_path / "runs" / "loud")
    (path / "modules/generator/worker.log").write_bytes(b"\xff\x00<b>" * (1 << 20))
    with served(tmp_path / "runs") as one:
        log = next(log for log in one.data("run/loud")["logs"] if log["module"] == "generator")
        assert 1 << 14 < sum(map(len, log["lines"])) <= 1 << 16
        assert set("".join(log["lines"])) == {"\ufffd", "<", "b", ">"}
        assert "\ufffd<b>" * 1000 in one.get("/data/log/loud/generator").text


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", "[]", '{"recipe": 1}', "\x00" * 100, '{"a":' * 5000, '{"recipe":"' + "x" * 100_000 + '"}'],
    ids=range(8),
)
def test_a_broken_run_says_so_and_breaks_nothing_else(tmp_path: Path, run: Run, content: str) -> None:
    (copied(run, tmp_path / "runs" / "broken") / "run.json").write_text(content)
    copied(run, tmp_path / "runs" / "sound")
    with served(tmp_path / "runs") as one:
        rows = {row["path"]: row for row in one.data("runs")["runs"]}
        assert rows["broken"]["problem"]
        assert rows["sound"]["problem"] is None
        data = one.data("run/broken")
        assert data["problem"]
        assert data["run"]["path"] == "broken"
        assert one.get("/run/broken/").status_code == 200


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b"null\n[]\n1\n", b'{"step": {}}\n', b'{"step":1e999,"epoch":NaN}\n' * 9]
)
@pytest.mark.parametrize("file", ["metrics.jsonl", "published.jsonl", "workers.jsonl", "heartbeat.json"])
def test_foreign_lines_break_no_page(tmp_path: Path, run: Run, file: str, content: bytes) -> None:
    path = copied(run, tmp_path / "runs" / "torn") / "modules" / "generator" / file
    with path.open("ab") as there:
        there.write(content)
    with served(tmp_path / "runs") as one:
        assert one.data("run/torn")["problem"] is None
        assert one.get("/run/torn/").status_code == 200


HUGE = "9" * 400
NUMBERS = {
    "metrics.jsonl": f'{{"step":1000,"epoch":1,"at":1.0,"lr":{HUGE},"loss":{HUGE},"seconds":{{"compute":{HUGE}}}}}',
    "workers.jsonl": f'{{"what":"waited","at":1.0,"for":"critic","seconds":{HUGE}}}',
    "published.jsonl": f'{{"version":9,"epoch":2,"step":{HUGE},"published_at":{HUGE},"peers":{{}},"metrics":{{}}}}',
    "heartbeat.json": f'{{"state":"finished","at":{HUGE},"step":{HUGE},"epoch":1,"steps_per_s":{HUGE},"left_s":"x"}}',
}


@pytest.mark.parametrize("file", NUMBERS)
def test_a_number_that_is_none_for_us_breaks_no_page(tmp_path: Path, run: Run, file: str) -> None:
    path = copied(run, tmp_path / "runs" / "huge") / "modules" / "generator" / file
    path.write_text(("" if file == "heartbeat.json" else path.read_text()) + NUMBERS[file] + "\n")
    with served(tmp_path / "runs") as one:
        data = one.data("run/huge")
        assert data["run"]["name"] == "huge"
        assert file == "heartbeat.json" or data["problem"] is None  # a run of unknown state has a problem
        assert one.get("/").status_code == 200


FIELDS = ("module", "full", "final", "files", "metrics", "peers", "writer", "format")


@pytest.mark.parametrize("field", FIELDS)
def test_a_line_that_lacks_something_costs_no_page(tmp_path: Path, run: Run, field: str) -> None:
    path = copied(run, tmp_path / "runs" / "one")
    line = {**vars(run.store("generator").meta(2)), "version": 500}
    del line[field]
    with (path / "modules/generator/published.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    data = Source(tmp_path / "runs").run("one")
    assert data["problem"] is None
    assert {module["name"]: module["version"] for module in data["modules"]} == {"generator": 2, "discriminator": 2}


@pytest.mark.parametrize("field", FIELDS)
def test_the_newest_version_is_that_of_the_newest_intact_line(tmp_path: Path, run: Run, field: str) -> None:
    meta = run.store("generator").meta(2)
    lacks = {name: value for name, value in vars(meta).items() if name != field} | {"version": 500, "seal": "?"}
    foreign = dataclasses.replace(meta, version=501, module="other").seal()
    file = tmp_path / "published.jsonl"
    file.write_bytes(b"\n".join([meta.seal(), json.dumps(lacks).encode(), foreign, b""]))
    newest = newest_published(file, "generator")
    assert newest is not None
    assert newest.version == 2


@pytest.mark.parametrize("kind", ["deep", "another version", "another module"])
def test_a_version_that_is_not_what_its_folder_says_is_damaged(tmp_path: Path, run: Run, kind: str) -> None:
    store = Run.open(copied(run, tmp_path / "runs" / "hurt")).store("generator")
    other = run.store("discriminator" if kind == "another module" else "generator")
    version = 2 if kind == "another module" else 1
    match kind:
        case "deep":
            (store.folder(2) / "meta.json").write_text("[" * 200_000)
        case _:
            shutil.rmtree(store.folder(2))
            shutil.copytree(other.folder(version), store.folder(2))
    with served(tmp_path / "runs") as one:
        files = {each["name"]: each for each in one.data("verify/hurt/generator/2")["files"]}
        assert not files["meta.json"]["ok"]
        page = one.data("checkpoint/hurt/generator/2")
        assert page["problem"] == files["meta.json"]["says"]
        assert page["meta"]["epoch"] == 2, "as its line says"
        assert one.data("run/hurt")["problem"] is None

        def damaged() -> list[int]:
            return {module["name"]: module["damaged"] for module in one.data("run/hurt")["modules"]}["generator"]

        until(lambda: damaged() == [2])  # newest versions are checked for 0.1 s at a time
    if kind != "deep":
        with pytest.raises(CorruptCheckpoint) as error:
            store.meta(2)
        assert str(error.value) == page["problem"]


def unlistable(monkeypatch: pytest.MonkeyPatch, run: Path, error: int) -> None:
    """As `chmod 0` makes the checkpoints of a run, but for root."""
    real = CheckpointStore.versions

    def versions(self: CheckpointStore) -> list[int]:
        if self.path.is_relative_to(run):
            raise OSError(error, os.strerror(error), str(self.checkpoints))
        return real(self)

    monkeypatch.setattr(CheckpointStore, "versions", versions)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_read_costs_its_run_alone(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    for name in ("closed", "sound"):
        copied(run, tmp_path / "runs" / name)
    unlistable(monkeypatch, tmp_path / "runs" / "closed", error)
    with served(tmp_path / "runs") as one:
        data = one.data("run/closed")
        assert os.strerror(error) in data["problem"]
        assert "checkpoints" in data["problem"]
        assert one.get("/run/closed/").status_code == 200
        answer = one.get("/checkpoint/closed/generator/1/")
        assert answer.status_code == 404
        assert os.strerror(error) in answer.text
        assert one.data("run/sound")["problem"] is None
        assert one.get("/checkpoint/sound/generator/1/").status_code == 200


def test_storage_that_does_not_answer_at_all_is_no_runs_fault(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(run, tmp_path / "runs" / "one")
    unlistable(monkeypatch, tmp_path / "runs", errno.EIO)
    real = os.listdir

    def fails(path: Any = ".") -> list[str]:
        if path == tmp_path / "runs":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", fails)
    with served(tmp_path / "runs") as one:
        for address in ("/run/one/", "/checkpoint/one/generator/1/"):
            answer = one.get(address)
            assert answer.status_code == 503
            assert os.strerror(errno.EIO) in answer.text


def test_a_root_that_is_gone_is_not_an_empty_one(tmp_path: Path, run: Run) -> None:
    copied(run, tmp_path / "runs" / "one")
    with served(tmp_path / "runs", refresh_s=0) as one:
        assert len(one.data("runs")["runs"]) == 1
        (tmp_path / "runs").rename(tmp_path / "moved")
        for address in ("/", "/data/runs", "/run/one/", "/data/log/one/generator"):
            answer = one.get(address)
            assert answer.status_code == 503
            assert "runs does not exist any more" in answer.text
        (tmp_path / "moved").rename(tmp_path / "runs")
        assert len(one.data("runs")["runs"]) == 1


@pytest.mark.parametrize("root", [b"runs", b"ru\xffns"])
def test_a_sentence_about_a_name_that_is_no_text_is_one(tmp_path: Path, run: Run, root: bytes) -> None:
    folder = tmp_path / os.fsdecode(root)
    (copied(run, folder / os.fsdecode(b"b\xff")) / "run.json").write_text("{")
    with served(folder) as one:
        for address in ("/data/log/b%FF/x", "/checkpoint/b%FF/x/1/", "/data/log/unknown/x", "/run/unknown%FF/"):
            assert one.get(address).status_code == 404
        assert "b\\xff" in one.data("run/b%FF")["problem"]
        assert "b\\xff" in one.data("runs")["runs"][0]["problem"]
        assert "b\\xff" in one.get("/data/log/b%FF/x").text
    assert shown("half a character: \ud800").encode()


def test_twenty_requests_at_once_refresh_once(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(run, tmp_path / "runs" / "one")
    source, refreshes = Source(tmp_path / "runs", refresh_s=60), list[int]()
    real = source.catalog.refresh

    def refresh() -> None:
        refreshes.append(1)
        real()

    monkeypatch.setattr(source.catalog, "refresh", refresh)
    with ThreadPoolExecutor(20) as viewers:
        assert all(data["problem"] is None for data in viewers.map(source.run, ["one"] * 20))
    assert refreshes == [1]


def test_a_row_that_cannot_be_made_costs_the_page_of_that_run_alone(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("odd", "sound"):
        copied(run, tmp_path / "runs" / name)
    source = Source(tmp_path / "runs")
    real = RunSummary.with_ages

    def with_ages(summary: RunSummary, *view: Any) -> dict[str, Any]:
        if summary.path == "odd":
            raise OSError(errno.EIO, "of all things")
        return real(summary, *view)

    monkeypatch.setattr(RunSummary, "with_ages", with_ages)
    assert "of all things" in source.run("odd")["problem"]
    assert source.run("odd")["run"]["path"] == "odd"
    assert source.run("sound")["problem"] is None


@pytest.mark.parametrize("error", [OverflowError, AttributeError, KeyError, RecursionError, TypeError])
def test_an_unexpected_error_affects_the_page_of_that_run_alone(
    tmp_path: Path, run: Run, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    copied(run, tmp_path / "runs" / "odd")
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1), {"lr": [0.005]}, metric="mean")
    Sweep.create(tmp_path / "runs" / "rates", spec)

    def fails(*_: object) -> dict[str, object]:
        raise error("of all things")

    for module, name in ((run_page, "run_page"), (sweep_page, "sweep_page")):
        monkeypatch.setattr(module, name, fails)
    with served(tmp_path / "runs") as one:
        for address in ("run/odd", "sweep/rates"):
            assert "of all things" in one.data(address)["problem"]
            assert "of all things" in one.get(f"/{address}/").text
        assert one.get("/").status_code == 200


@pytest.mark.parametrize(
    "parts", [("..", "secret"), ("a", "..", "..", "secret"), ("a", ".", "own"), ("a/../../secret",), ("a", "..", "own")]
)
def test_no_path_is_opened_that_leads_up(tmp_path: Path, parts: tuple[str, ...]) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    for place in ("secret", "root/own", "root/a/own"):
        (tmp_path / place).write_text(SECRET)
    assert (tmp_path / "root").joinpath(*parts).is_file()
    assert not safe_files.lies(tmp_path / "root", *parts)
    assert safe_files.lies(tmp_path / "root", "a", "own")


def test_addresses_and_paths_are_each_others_inverse() -> None:
    for name in NAMES:
        path = f"a/{os.fsdecode(name)}"
        assert unquoted(quoted(path)) == path
        assert shown(path).encode()
    assert quoted("") == "."
    assert unquoted(".") == ""
    for wrong in ("..", "a/..", "%2e%2e", "a%2fb", "a//b", "/a", "a/", "%00"):
        assert unquoted(wrong) is None
    assert base_of("") == ""
    assert base_of("run/a/b/") == "../../../"


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.utime",
)


class WriteMonitor:
    """Records every file that this process opens to write, and every name that it changes."""

    def __init__(self) -> None:
        self.root: bytes | None = None
        self.writes: list[tuple[str, Any]] = []
        sys.addaudithook(self._record)  # cannot be removed; without a root it records nothing

    def _record(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None or event not in {"open", "os.truncate", *CHANGES} or not arguments:
            return
        path, flags = arguments[0], arguments[2] if event == "open" else WRITING
        if isinstance(path, int) or not flags & WRITING:
            return
        name = os.fsencode(path)
        if not name.startswith(b"/") or name.startswith(self.root):  # one that is relative may lie anywhere
            self.writes.append((event, path))

    @contextlib.contextmanager
    def watching(self, root: Path) -> Iterator[list[tuple[str, Any]]]:
        self.root, self.writes = os.fsencode(root), []
        try:
            yield self.writes
        finally:
            self.root = None


@pytest.fixture(scope="session")
def monitor() -> WriteMonitor:
    return WriteMonitor()


def test_nothing_is_opened_to_be_written_and_no_name_is_changed(
    tmp_path: Path, run: Run, monitor: WriteMonitor
) -> None:
    """A file in ROOT that is opened to write is noticed even if it does not change."""
    root = tmp_path / "runs"
    path = copied(run, root / "one")
    (path / "evaluation" / "grid-1-1.png").write_bytes(b"\x89PNG")
    with monitor.watching(root) as writes, served(root) as one:
        for address in (*(part.format("one") for part in PARTS), "/", "/sweep/one/", "/run/unknown/"):
            one.get(address)
    assert writes == []


@pytest.mark.parametrize("how", ["open", "os.open", "Path", "in a folder", "append", "mkdir", "rename", "utime"])
def test_every_way_of_writing_is_recorded(tmp_path: Path, monitor: WriteMonitor, how: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with monitor.watching(tmp_path) as writes:
        match how:
            case "open":
                open(file, "w").close()
            case "os.open":
                os.close(os.open(file, os.O_RDWR))
            case "Path":
                file.write_text("y")
            case "in a folder":
                folder = os.open(tmp_path, os.O_RDONLY)
                os.close(os.open("file", os.O_WRONLY, dir_fd=folder))
                os.close(folder)
            case "append":
                file.open("a").close()
            case "mkdir":
                (tmp_path / "folder").mkdir()
            case "rename":
                file.rename(tmp_path / "other")
            case "utime":
                os.utime(file)
        file.exists()
    assert len(writes) == 1
    with monitor.watching(tmp_path) as writes:
        (tmp_path / "other").exists()
        os.listdir(tmp_path)
    assert writes == []


def test_a_download_that_is_given_up_closes_its_file(tmp_path: Path, run: Run) -> None:
    """At once, not when the garbage collector comes by."""
    path = copied(run, tmp_path / "run")
    weights = Run.open(path).store("generator").folder(1) / "weights.safetensors"
    os.truncate(weights, 1 << 28)

    def open_files() -> list[str]:
        links = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return [str(link) for link in links if link.exists() and link.samefile(weights)]

    with served(tmp_path) as one:
        request = b"GET /weights/run/generator/1/weights.safetensors HTTP/1.1\r\nHost: localhost\r\n\r\n"
        gc.disable()
        try:
            for _ in range(100):
                with socket.create_connection(("127.0.0.1", one.port), timeout=60) as connection:
                    connection.sendall(request)
                    assert connection.recv(12) == b"HTTP/1.1 200"
            eventually(lambda: not open_files() or None)
        finally:
            gc.enable()


def test_a_malformed_request_writes_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with served(tmp_path) as one:
        for request in (b"\x16\x03\x01 a TLS handshake\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\x1b[2J\r\n\r\n"):
            assert raw(one.port, request).startswith(b"HTTP/1.1 400")
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")
