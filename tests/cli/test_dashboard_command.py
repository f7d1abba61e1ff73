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

from modtrain.cli.dashboard import _link, _print_addresses
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
        output = ""
        while "Ctrl-C" not in output:
            line = process.stdout.readline()
            assert line, ended(process).err
            output += line
        link = re.search(r"http://\S+", output)
        assert link is not None
        yield process, output
    finally:
        process.kill()
        process.communicate()


def link_of(output: str) -> str:
    return re.search(r"http://\S+", output)[0]  # type: ignore[index]


def test_it_prints_a_link_that_opens_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with begun(tmp_path) as (process, output):
        link = link_of(output)
        port = httpx.URL(link).port
        assert link == f"http://127.0.0.1:{port}/"
        assert f"ssh -L {port}:127.0.0.1:{port} " in output
        assert httpx.get(link, timeout=60).status_code == 200
        with httpx.Client(timeout=60) as page:
            assert page.get(link + "data/runs").status_code == 200
            process.send_signal(signal.SIGINT)  # the connection of the page is still open
            result = ended(process)
        assert result.code in (0, 130)
        assert "Traceback" not in result.err
        assert result.err == ""


def test_a_token_is_printed_in_the_link_alone(tmp_path: Path) -> None:
    with begun(tmp_path, "--token") as (_, output):
        link = link_of(output)
        token = httpx.URL(link).params["token"]
        assert len(token) >= 32
        assert output.count(token) == 1
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
def test_a_token_from_a_file_gives_a_link_that_opens(tmp_path: Path, token: str) -> None:
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
    """A folder with the arguments of $BROWSER, and the file that it was sent to, if any."""
    seen = tmp_path / "seen"
    seen.mkdir()
    script = tmp_path / "browser"
    copy = (
        f'case "$1" in file:*) file="${{1#file://}}"; cp "$file" {seen}/page; stat -c %a "$file" > {seen}/mode;; esac'
    )
    script.write_text(f'#!/bin/sh\n{copy}\necho "$@" > {seen}/.arguments\nmv {seen}/.arguments {seen}/arguments\n')
    script.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_browser_is_sent_to_the_link_without_the_token_in_its_arguments(
    tmp_path: Path, browser: Path, number: signal.Signals
) -> None:
    (tmp_path / "runs").mkdir()
    with begun(tmp_path / "runs", "--open", "--token") as (process, output):
        arguments = until(lambda: (browser / "arguments").exists() and (browser / "arguments").read_text().strip())
        token = httpx.URL(link_of(output)).params["token"]
        assert token not in arguments, "`ps` shows it to all"
        assert f'url={link_of(output)}"' in (browser / "page").read_text()
        assert (browser / "mode").read_text().strip() == "600"
        file = Path(arguments.removeprefix("file://"))
        assert file.exists()
        until(lambda: httpx.get(link_of(output), timeout=60).status_code == 200)
        process.send_signal(number)
        result = ended(process)
        assert result.code in (0, 130, 128 + number)
        assert result.err == ""
        assert not file.exists()


def test_a_browser_is_sent_directly_to_a_link_without_a_token(tmp_path: Path, browser: Path) -> None:
    (tmp_path / "runs").mkdir()
    with begun(tmp_path / "runs", "--open") as (_, output):
        arguments = until(lambda: (browser / "arguments").exists() and (browser / "arguments").read_text().strip())
        assert arguments == link_of(output)
        assert not (browser / "page").exists()


def test_a_server_for_others_answers_under_its_addresses_and_names_alone(tmp_path: Path) -> None:
    with begun(tmp_path, "--host", "0.0.0.0", "--token") as (_, output):
        link = httpx.URL(link_of(output))
        near = link.copy_with(host="127.0.0.1")
        for host, code in ((f"10.1.2.3:{link.port}", 200), (link.host, 200), ("evil.example", 421), ("", 421)):
            assert httpx.get(near, headers={"host": host}, timeout=60).status_code == code


def test_a_root_that_is_not_utf_8_is_served(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"od\xffd")
    root.mkdir()
    with begun(root) as (_, output):
        assert "od\\xffd: http://" in output
        assert httpx.get(link_of(output), timeout=60).status_code == 200


def test_the_next_free_port_is_used() -> None:
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(listen("127.0.0.1", None))
        number = taken.getsockname()[1]
        assert number >= PORT
        other = stack.enter_context(listen("127.0.0.1", None))
        assert other.getsockname()[1] > number


def test_a_given_port_that_is_in_use_is_an_error(tmp_path: Path, terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = terminal("dashboard", tmp_path, "--port", port)
    assert output.code == 2
    assert f"Port {port}" in output.err
    assert "--port" in output.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "--token"),
        (("--host", "::"), "--token"),
        (("--host", "192.0.2.1", "--token"), "Cannot listen"),
        (("--host", "no such host", "--token"), "Cannot listen"),
        (("--port", "99999"), "Port 99999"),
        (("--prefix", "node"), "--prefix node"),
        (("--prefix", "/a/../b c"), "--prefix"),
        (("--token-file", "/no/such/file"), "cannot be read"),
        (("--export", "/proc/x"), "--export /proc/x cannot be created: no files can be created in this place."),
    ],
    ids=str,
)
def test_a_wrong_option_is_an_error_of_one_sentence(
    tmp_path: Path, terminal: Terminal, options: tuple[str, ...], says: str
) -> None:
    output = terminal("dashboard", tmp_path, *options)
    assert output.code == 2
    assert says in output.err
    assert output.err.count("\n") == 1


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
def test_the_ssh_command_leads_to_the_address_that_it_listens_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, link: str, near: str
) -> None:
    assert _link(host, 8787, Access()) == link
    _print_addresses(tmp_path, host, 8787, link, moved=False)
    assert f" -L 8787:{near}:8787 " in capsys.readouterr().out


def test_a_root_that_does_not_exist_is_an_error(tmp_path: Path, terminal: Terminal) -> None:
    output = terminal("dashboard", tmp_path / "nothing")
    assert output.code == 2
    assert "is not a folder" in output.err


def test_a_port_beyond_the_last_one_is_an_error() -> None:
    with pytest.raises(InputError, match="Port 70000"):
        listen("127.0.0.1", 70_000)


def test_a_read_only_folder_is_shown(tmp_path: Path) -> None:
    runs, shown = tmp_path / "runs", tmp_path / "shown"
    (runs / "broken").mkdir(parents=True)
    (runs / "broken" / "run.json").write_text("{")
    with _mounted(shown, ["bindfs", "-r", str(runs), str(shown)]), begun(shown) as (_, output):
        rows = httpx.get(link_of(output) + "data/runs", timeout=60).json()["runs"]
        assert [row["path"] for row in rows] == ["broken"]
        assert httpx.get(link_of(output) + "run/broken/", timeout=60).status_code == 200
