"""Access: hosts, tokens, cookies, methods, and the headers of every response."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

from modtrain.cli.dashboard import _access
from modtrain.dashboard import routes
from modtrain.dashboard.access import Access, is_loopback, name_of, own_names
from modtrain.dashboard.server import read_token
from modtrain.errors import InputError
from modtrain.storage.run import Run
from tests.support.serving import Served, raw, served, trained

TOKEN = "a-token-of-many-letters"


@pytest.fixture(scope="module")
def open_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("runs")) as one:
        yield one


@pytest.fixture(scope="module")
def closed_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("runs"), Access(token=TOKEN, cookie="modtrain-1")) as one:
        yield one


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8787", "127.0.0.1.evil.example", "10.1.2.3", "", "[", "a b"]
)
def test_a_host_header_from_elsewhere_is_refused_in_words(open_one: Served, host: str) -> None:
    answer = raw(open_one.port, f"GET /data/runs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 421")
    assert b"--allow-host" in answer
    assert b'"runs"' not in answer


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8787", "LOCALHOST", "a.localhost"]
)
def test_the_names_of_this_machine_are_answered(open_one: Served, host: str) -> None:
    assert open_one.get("/data/runs", headers={"host": host}).status_code == 200


def test_a_name_that_was_allowed_is_answered(tmp_path: Path) -> None:
    with served(tmp_path, Access(hosts=own_names("127.0.0.1", ["Proxy.example:443"]))) as one:
        assert one.get("/", headers={"host": "proxy.example"}).status_code == 200
        assert one.get("/", headers={"host": "other.example"}).status_code == 421


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "localhost", "::", "fe80::1"])
def test_no_host_at_all_is_none_of_ours(tmp_path: Path, host: str) -> None:
    assert "" not in own_names(host, ["", ":8787", "."])
    assert host in own_names(host, [])
    with served(tmp_path, Access(hosts=own_names(host, []))) as one:
        for request in ("GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"):
            assert raw(one.port, request.encode()).startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("10.1.2.3:8787", 200),
        ("[2001:db8::7]:8787", 200),
        (socket.gethostname().upper(), 200),
        ("localhost", 200),
        ("evil.example", 421),
        ("10.1.2.3.evil.example", 421),
        ("0x0a010203", 421),
        ("", 421),
    ],
)
def test_who_listens_for_others_answers_by_every_address_and_its_own_names_alone(
    tmp_path: Path, host: str, code: int
) -> None:
    """The owner of a name can make it resolve to this machine; an address cannot be redirected."""
    access = _access("0.0.0.0", True, None, None, [])
    with served(tmp_path, access) as one:
        answer = one.get("/data/runs", params={"token": access.token}, headers={"host": host})
        assert answer.status_code == code


def test_who_listens_for_this_machine_alone_answers_by_no_other_address(tmp_path: Path) -> None:
    with served(tmp_path, _access("127.0.0.1", False, None, None, [])) as one:
        assert one.get("/data/runs", headers={"host": "10.1.2.3"}).status_code == 421


def test_a_server_for_others_answers_under_every_address_but_not_under_every_name() -> None:
    assert not is_loopback("0.0.0.0")
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert name_of("[fe80::1]:80") == name_of("FE80::1") == "fe80::1"
    assert name_of("a.example.:80") == "a.example"
    assert "evil.example" not in own_names("0.0.0.0", [])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_only_reading_is_possible(open_one: Served, method: str) -> None:
    answer = open_one.client.request(method, "/data/runs")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_get_without_its_content(open_one: Served) -> None:
    answer = open_one.client.head("/data/runs")
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    return trained(tmp_path_factory.mktemp("trained"), "one", tiny_recipe)


@pytest.mark.parametrize("address", ["/data/runs", "/data/run/one"])
def test_head_of_data_has_its_tag_and_no_content(run: Run, address: str) -> None:
    with served(run.path.parent) as one:
        answer = one.client.head(address, timeout=60)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["etag"]
        assert one.client.head("/data/run/unknown").status_code == 404
        assert httpx.head(one.url + address, headers={"host": "evil.example"}).status_code == 421


def test_head_reads_no_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, verify = "/weights/one/generator/1/weights.safetensors", "/data/verify/one/generator/1"
    file = run.store("generator").folder(1) / "weights.safetensors"
    read: list[int] = []

    def spy(real: Callable[..., Any]) -> Callable[..., Any]:
        def read_file(opened: BinaryIO, *more: Any) -> Any:
            if (size := os.fstat(opened.fileno()).st_size) == file.stat().st_size:
                read.append(size)
            return real(opened, *more)

        return read_file

    with served(run.path.parent) as one:
        monkeypatch.setattr(routes, "_blocks", spy(routes._blocks))
        monkeypatch.setattr(hashlib, "file_digest", spy(hashlib.file_digest))
        answer = one.client.head(weights)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers.items() >= {"content-length": str(file.stat().st_size)}.items()
        assert answer.headers["content-disposition"].startswith("attachment")
        assert one.client.head(verify).status_code == 200
        for missing in (weights.replace("1", "9"), verify.replace("1", "9")):
            assert one.client.head(missing).status_code == 404
        assert read == []
        assert one.get(weights).content == file.read_bytes()
        assert all(each["ok"] for each in one.data("verify/one/generator/1")["files"])
        assert len(read) >= 2


@pytest.mark.parametrize("address", ["/", "/data/runs", "/nothing", "/static/page.css", "/run/nothing/"])
def test_every_answer_has_the_headers_that_keep_it_to_itself(open_one: Served, address: str) -> None:
    headers = open_one.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_an_address_longer_than_any_run_is_refused(open_one: Served) -> None:
    assert open_one.get("/run/" + "a" * 20_000 + "/").status_code in (400, 414)


def test_without_a_token_nothing_is_shown(closed_one: Served) -> None:
    for address in ("/", "/data/runs", "/static/page.css", "/data/run/a?since=x", "/run/a/"):
        answer = httpx.get(closed_one.url + address)
        assert answer.status_code == 403
        assert "link" in answer.text
        assert TOKEN not in answer.text


@pytest.mark.parametrize("wrong", ["x", TOKEN + "x", TOKEN[:-1], "%00", "\xff", "a" * 1000])
def test_a_wrong_token_is_refused_after_a_while(closed_one: Served, wrong: str) -> None:
    begun = time.monotonic()
    answer = httpx.get(closed_one.url + "/", params={"token": wrong}, timeout=60)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert time.monotonic() - begun > 0.3


def test_the_link_with_the_token_gives_a_cookie_that_opens_everything(closed_one: Served) -> None:
    with httpx.Client(base_url=closed_one.url, timeout=60) as browser:
        first = browser.get("/", params={"token": TOKEN})
        cookie = first.headers["set-cookie"]
        assert first.status_code == 200
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path" not in cookie, "a proxy's prefix is known to the browser alone"
        assert TOKEN not in cookie
        assert 'url=./"' in first.text, "it leads to the same page without the token"
        assert TOKEN not in first.text
        assert browser.get("/data/runs").status_code == 200
        assert browser.get("/data/runs?token=wrong").status_code == 200


@pytest.mark.parametrize("value", ["", "x", "a" * 64, '"', "=;=", "\x7f"])
def test_a_made_up_cookie_opens_nothing(closed_one: Served, value: str) -> None:
    answer = httpx.get(closed_one.url + "/data/runs", headers={"cookie": f"modtrain-1={value}"})
    assert answer.status_code == 403


@pytest.mark.parametrize("odd", ['a={"x":1}', "a", "=", ";;", "a=[1]; b=\u00e4", "_xsrf=2|a|b", "modtrain-1=old"])
def test_a_malformed_cookie_of_another_site_does_not_hide_the_own_one(closed_one: Served, odd: str) -> None:
    own = f"modtrain-1={Access(token=TOKEN).secret}"
    for cookies in (f"{odd}; {own}", f"{own};{odd}"):
        answer = httpx.get(closed_one.url + "/data/runs", headers={"cookie": cookies.encode()})
        assert answer.status_code == 200
    assert httpx.get(closed_one.url + "/data/runs", headers={"cookie": odd.encode()}).status_code == 403


def test_a_deep_link_with_the_token_leads_to_the_top_where_the_cookie_is_for_everything(closed_one: Served) -> None:
    answer = httpx.get(closed_one.url + "/run/a/b/", params={"token": TOKEN})
    assert "set-cookie" not in answer.headers
    assert f'url=../../../?token={TOKEN}"' in answer.text


def test_a_script_may_give_the_token_with_each_request(closed_one: Served) -> None:
    assert httpx.get(closed_one.url + "/data/runs", params={"token": TOKEN}).status_code == 200


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (TOKEN, 0o640, "chmod 600"),
        ("short", 0o600, "at least 16"),
        ("two words are no good token", 0o600, "at least 16"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_token_file_that_is_no_good_is_refused(tmp_path: Path, content: str | None, mode: int, says: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(InputError, match=says):
        read_token(file)


def test_a_token_file_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
