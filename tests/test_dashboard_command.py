"""`modtrain dashboard`: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from modtrain.cli.showing import _link, _say
from modtrain.dashboard.guard import Access
from modtrain.dashboard.serve import PORT, listen
from modtrain.errors import InputError
from tests.command import Terminal, ended, start
from tests.store_faults.mounts import _mounted


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
        with httpx.stream("GET", link + "events/runs", timeout=60) as events:
            lines = events.iter_lines()  # kept: whoever drops it closes the page
            next(lines)
            process.send_signal(signal.SIGINT)
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
