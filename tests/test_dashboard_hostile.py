"""Names, links and files that somebody made on purpose: nothing outside of ROOT is shown, and nothing else breaks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from modtrain.config import Config
from modtrain.dashboard import inside, run_page, sweep_page
from modtrain.dashboard.addresses import base_of, quoted, shown, unquoted
from modtrain.run import Run
from modtrain.trials import Sweep, new_sweep
from tests.serving import Served, copied, embedded, raw, served, trained

SECRET = "the-secret-of-somebody-else"
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
def secret(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A folder beside ROOT that nobody is to see: a whole run, and files."""
    folder = tmp_path_factory.mktemp("elsewhere")
    copied(run, folder / "private")
    line = {"step": 1, "epoch": 1, "lr": 0.1, "at": 1.0, SECRET: 1.0}
    (folder / "lines.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "text").write_text(SECRET)
    (folder / "picture.png").write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        copied(run, root / os.fsdecode(name))
    with served(root) as found:
        yield found


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
    data = text.partition('id="data">')[2]
    assert "<" not in data.partition("</script>")[0]
    assert data.count("</script>") == text.partition('id="data">')[2].count("</script>")


OUTSIDE = (
    "/run/../elsewhere/private/",
    "/run/%2e%2e/elsewhere/private/",
    "/run/..%2felsewhere%2fprivate/",
    "/run/sound/../../elsewhere/private/",
    "/data/run/%2e%2e%2fprivate",
    "/grid/sound/..%2f..%2ftext.png",
    "/grid/sound/%2e%2e/text.png",
    "/grid/sound//etc/passwd",
    "/grid//etc/passwd.png",
    "/static/..%2fapp.py",
    "/static/../app.py",
    "/static/%2e%2e%2fapp.py",
    "/static//etc/passwd",
    "/static/%2Fetc%2Fpasswd",
    "/weights/sound/generator/1/..%2f..%2f..%2frun.json",
    "/weights/sound/..%2f..%2felsewhere/1/weights.safetensors",
    "/weights/sound/generator/1/state.pt",
    "/data/log/sound/..%2f..%2f..%2felsewhere",
    "/data/log/sound/%00",
    "/run/sound%00/",
    "/run/" + "a/" * 3000,
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/run/sound/run.json/",
    "/checkpoint/sound/generator/99999999999999999999999999/",
    "/data/checkpoint/sound/generator/-1",
    "/data/checkpoint/sound/nobody/1",
)


def named_after(place: str) -> str:
    return f"linked-{place.replace('/', '-')}"


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, run: Run, secret: Path) -> Iterator[Served]:
    """Runs with a link to the secret in every place."""
    root = tmp_path_factory.mktemp("runs")
    copied(run, root / "sound")
    (root / "whole").symlink_to(secret / "private")
    (root / "above").symlink_to(secret)
    for place, target in PLACES.items():
        path = copied(run, root / named_after(place)) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(secret / target)
    with served(root) as found:
        yield found


PLACES = {
    "run.json": "private/run.json",
    "stop": "text",
    "modules": "private/modules",
    "modules/generator": "private/modules/generator",
    "modules/generator/metrics.jsonl": "lines.jsonl",
    "modules/generator/workers.jsonl": "lines.jsonl",
    "modules/generator/published.jsonl": "private/modules/generator/published.jsonl",
    "modules/generator/heartbeat.json": "private/modules/generator/heartbeat.json",
    "modules/generator/worker.log": "text",
    "modules/generator/checkpoints": "private/modules/generator/checkpoints",
    "modules/generator/checkpoints/00000001": "private/modules/generator/checkpoints/00000001",
    "modules/generator/checkpoints/00000001/meta.json": "text",
    "modules/generator/checkpoints/00000001/weights.safetensors": "text",
    "evaluation": "private/evaluation",
    "evaluation/metrics.jsonl": "lines.jsonl",
    "evaluation/grid-1-1.png": "picture.png",
}


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
    for address in (f"/run/{name}/", f"/data/run/{name}", f"/events/run/{name}", f"/data/log/{name}/generator"):
        assert linked.get(address).status_code == 404


@pytest.mark.parametrize("place", PLACES)
def test_a_link_inside_of_a_run_is_not_followed(linked: Served, place: str) -> None:
    name = named_after(place)
    for address in (
        f"/run/{name}/",
        f"/data/run/{name}",
        f"/checkpoint/{name}/generator/1/",
        f"/data/verify/{name}/generator/1",
        f"/data/log/{name}/generator",
        f"/grid/{name}/grid-1-1.png",
        f"/weights/{name}/generator/1/weights.safetensors",
    ):
        answer = linked.get(address)
        assert answer.status_code in (200, 404), address
        assert SECRET not in answer.text
    assert linked.data("run/sound")["run"]["state"] == "finished", "it costs no other run"


@pytest.mark.parametrize("place", ["run.json", "modules/generator/metrics.jsonl", "modules/generator/checkpoints"])
def test_a_run_with_a_link_says_so_on_its_page(linked: Served, place: str) -> None:
    data = linked.data(f"run/{named_after(place)}")
    assert "link" in data["problem"]
    assert data["curves"] == []


@pytest.mark.parametrize("place", ["modules/generator/worker.log", "evaluation/grid-1-1.png"])
def test_a_linked_log_or_grid_costs_only_itself(linked: Served, place: str) -> None:
    data = linked.data(f"run/{named_after(place)}")
    assert data["problem"] is None
    assert data["run"]["state"] == "finished"


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
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path, run: Run, place: str) -> None:
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
        assert sum(map(len, log["lines"])) <= 1 << 16


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
        assert file == "heartbeat.json" or data["problem"] is None  # of whom nobody knows how it is, that is said
        assert one.get("/").status_code == 200


@pytest.mark.parametrize("error", [OverflowError, AttributeError, KeyError, RecursionError, TypeError])
def test_what_nobody_thought_of_is_said_on_the_page_of_that_run_alone(
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


@pytest.mark.parametrize("parts", [("..", "secret"), ("a", "..", "..", "secret"), ("a", "."), ("a/../../secret",)])
def test_no_path_is_opened_that_leads_up(tmp_path: Path, parts: tuple[str, ...]) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text(SECRET)
    assert not inside.lies(tmp_path / "root", *parts)


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
