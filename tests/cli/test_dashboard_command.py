"""`modtrain dashboard`: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from modtrain.cli.dashboard import _link, _say
from modtrain.dashboard.access import Access
from modtrain.dashboard.server import PORT, listen, read_token
from modtrain.errors import InputError
from tests.support.command import Terminal, ended, start, until
from tests.support.serving import served
from tests.support.store_faults.mounts import _mounted


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


@contextlib.contextmanager
def begun(root: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and the link that it printed."""
    process = start("dashboard", root, *options)
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, ended(process).err
            said += line
        link = re.search(r"http://\S+", said)
        assert link is not None
        yield process, said
    finally:
        process.kill()
        process.communicate()


def link_of(said: str) -> str:
    return re.search(r"http://\S+", said)[0]  # type: ignore[index]


def test_it_prints_a_link_that_opens_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with begun(tmp_path) as (process, said):
        link = link_of(said)
        port = httpx.URL(link).port
        assert link == f"http://127.0.0.1:{port}/"
        assert f"ssh -L {port}:127.0.0.1:{port} " in said
        assert httpx.get(link, timeout=60).status_code == 200
        with httpx.Client(timeout=60) as page:
            assert page.get(link + "data/runs").status_code == 200
            process.send_signal(signal.SIGINT)  # the connection of the page is still open
            found = ended(process)
        assert found.code in (0, 130)
        assert "Traceback" not in found.err
        assert found.err == ""


def test_a_token_stands_in_the_link_alone(tmp_path: Path) -> None:
    with begun(tmp_path, "--token") as (_, said):
        link = link_of(said)
        token = httpx.URL(link).params["token"]
        assert len(token) >= 32
        assert said.count(token) == 1
        assert httpx.get(link, timeout=60).status_code == 200
        assert httpx.get(link.partition("?")[0], timeout=60).status_code == 403


TOKENS = (
    "q+Zk/8eT0m+YxkA4hVb3Uw==",
    "abcdefgh&ijklmnop",
    "abcdefgh#ijklmnop",
    "percent%41%zz?;token",
    "plain-token_0123",
)


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_of_ones_own_gives_a_link_that_opens(tmp_path: Path, token: str) -> None:
    """`openssl rand -base64 24` has + and / in it."""
    file = tmp_path / "token"
    file.write_text(token + "\n")
    file.chmod(0o600)
    access = Access(token=read_token(file))
    with served(tmp_path, access) as one:
        link = _link("127.0.0.1", one.port, access)
        assert parse_qs(urlsplit(link).query) == {"token": [token]}
        assert httpx.get(link, timeout=60).status_code == 200


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What $BROWSER was told, and the file that it was sent to, if any, in a folder."""
    seen = tmp_path / "seen"
    seen.mkdir()
    script = tmp_path / "browser"
    copy = (
        f'case "$1" in file:*) file="${{1#file://}}"; cp "$file" {seen}/page; stat -c %a "$file" > {seen}/mode;; esac'
    )
    script.write_text(f'#!/bin/sh\n{copy}\necho "$@" > {seen}/.told\nmv {seen}/.told {seen}/told\n')
    script.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_browser_is_sent_to_the_link_without_a_word_of_the_token(
    tmp_path: Path, browser: Path, number: signal.Signals
) -> None:
    (tmp_path / "runs").mkdir()
    with begun(tmp_path / "runs", "--open", "--token") as (process, said):
        told = until(lambda: (browser / "told").exists() and (browser / "told").read_text().strip())
        token = httpx.URL(link_of(said)).params["token"]
        assert token not in told, "whoever asks ps for it reads it"
        assert f'url={link_of(said)}"' in (browser / "page").read_text()
        assert (browser / "mode").read_text().strip() == "600"
        file = Path(told.removeprefix("file://"))
        assert file.exists()
        until(lambda: httpx.get(link_of(said), timeout=60).status_code == 200)
        process.send_signal(number)
        found = ended(process)
        assert found.code in (0, 130, 128 + number)
        assert found.err == ""
        assert not file.exists()


def test_a_browser_without_a_token_is_sent_straight_there(tmp_path: Path, browser: Path) -> None:
    (tmp_path / "runs").mkdir()
    with begun(tmp_path / "runs", "--open") as (_, said):
        told = until(lambda: (browser / "told").exists() and (browser / "told").read_text().strip())
        assert told == link_of(said)
        assert not (browser / "page").exists()


def test_who_listens_for_others_is_asked_by_its_addresses_and_names_alone(tmp_path: Path) -> None:
    with begun(tmp_path, "--host", "0.0.0.0", "--token") as (_, said):
        link = httpx.URL(link_of(said))
        near = link.copy_with(host="127.0.0.1")
        for host, code in ((f"10.1.2.3:{link.port}", 200), (link.host, 200), ("evil.example", 421), ("", 421)):
            assert httpx.get(near, headers={"host": host}, timeout=60).status_code == code


def test_a_root_that_is_no_text_is_served(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"od\xffd")
    root.mkdir()
    with begun(root) as (_, said):
        assert "od\\xffd: http://" in said
        assert httpx.get(link_of(said), timeout=60).status_code == 200


def test_the_next_free_port_is_taken_and_said() -> None:
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(listen("127.0.0.1", None))
        number = taken.getsockname()[1]
        assert number >= PORT
        other = stack.enter_context(listen("127.0.0.1", None))
        assert other.getsockname()[1] > number


def test_a_taken_port_that_was_asked_for_is_an_error(tmp_path: Path, terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = terminal("dashboard", tmp_path, "--port", port)
    assert said.code == 2
    assert f"Port {port}" in said.err
    assert "--port" in said.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "--token"),
        (("--host", "::"), "--token"),
        (("--host", "192.0.2.1", "--token"), "Cannot listen"),
        (("--host", "no such host", "--token"), "Cannot listen"),
        (("--port", "99999"), "no port 99999"),
        (("--prefix", "node"), "--prefix node"),
        (("--prefix", "/a/../b c"), "--prefix"),
        (("--token-file", "/no/such/file"), "cannot be read"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path, terminal: Terminal, options: tuple[str, ...], says: str
) -> None:
    said = terminal("dashboard", tmp_path, *options)
    assert said.code == 2
    assert says in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "link", "near"),
    [
        ("::1", "http://[::1]:8787/", "[::1]"),
        ("::", f"http://{socket.gethostname()}:8787/", "[::1]"),
        ("0.0.0.0", f"http://{socket.gethostname()}:8787/", "127.0.0.1"),
        ("fe80::1", "http://[fe80::1]:8787/", "[fe80::1]"),
        ("node7", "http://node7:8787/", "node7"),
    ],
)
def test_what_it_says_leads_to_the_address_that_it_listens_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, link: str, near: str
) -> None:
    assert _link(host, 8787, Access()) == link
    _say(tmp_path, host, 8787, link, moved=False)
    assert f" -L 8787:{near}:8787 " in capsys.readouterr().out


def test_a_root_that_is_not_there_is_said(tmp_path: Path, terminal: Terminal) -> None:
    said = terminal("dashboard", tmp_path / "nothing")
    assert said.code == 2
    assert "is no folder" in said.err


def test_a_port_below_the_first_allowed_one_is_an_error_in_words() -> None:
    with pytest.raises(InputError, match="no port"):
        listen("127.0.0.1", 70_000)


def test_a_folder_that_nobody_can_write_to_is_shown(tmp_path: Path) -> None:
    runs, shown = tmp_path / "runs", tmp_path / "shown"
    (runs / "broken").mkdir(parents=True)
    (runs / "broken" / "run.json").write_text("{")
    with _mounted(shown, ["bindfs", "-r", str(runs), str(shown)]), begun(shown) as (_, said):
        rows = httpx.get(link_of(said) + "data/runs", timeout=60).json()["runs"]
        assert [row["path"] for row in rows] == ["broken"]
        assert httpx.get(link_of(said) + "run/broken/", timeout=60).status_code == 200
