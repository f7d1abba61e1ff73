"""The `stop` file: a request of this program, of `touch`, and of anything else that has the name."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from modtrain.errors import StopRequested
from modtrain.storage.run import Run
from modtrain.storage.stop_request import (
    StopKind,
    StopRequest,
    clear_stop_request,
    read_stop_request,
    write_stop_request,
)
from modtrain.training.shutdown import Shutdown
from tests.support.runs import make_run


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    return make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]])


@pytest.mark.parametrize("kind", get_args(StopKind))
def test_a_request_keeps_its_kind_reason_and_sender(tmp_path: Path, kind: StopKind) -> None:
    assert read_stop_request(tmp_path) is None
    request = StopRequest(kind=kind, reason="generator failed: \u001b[2J\nlunch", sender="generator+discriminator")
    write_stop_request(tmp_path, request)
    assert read_stop_request(tmp_path) == request
    clear_stop_request(tmp_path)
    clear_stop_request(tmp_path)
    assert read_stop_request(tmp_path) is None


def test_a_failed_worker_is_named_in_the_message() -> None:
    request = StopRequest(kind="worker_failed", reason="no memory", sender="generator")
    assert str(request) == "generator failed: no memory"
    assert str(StopRequest(reason="lunch", sender="generator")) == "lunch"


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no reason given"),
    "plain text": (b"generator failed: lunch\n", "generator failed: lunch"),
    "text of an old version": (b"pruned: it was among the worst", "pruned: it was among the worst"),
    "another kind": (b'{"kind": "exploded", "reason": "x", "sender": "y"}', '{"kind": "exploded", "reason": "x", "s'),
    "a field of a wrong type": (b'{"kind": "pruned", "reason": 7, "sender": "y"}', '{"kind": "pruned", "reason": 7'),
    "an unhashable kind": (b'{"kind": ["pruned"], "reason": "x", "sender": "y"}', '{"kind": ["pruned"]'),
    "a list": (b"[1, 2]", "[1, 2]"),
    "binary": (b"\xff\x00\xfe", "\ufffd\x00\ufffd"),
    "deep": (b"[" * 50_000, "[[["),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_any_other_content_is_a_request_of_kind_asked_with_its_text_as_reason(tmp_path: Path, name: str) -> None:
    content, reason = FOREIGN[name]
    (tmp_path / "stop").write_bytes(content)
    request = read_stop_request(tmp_path)
    assert request is not None
    assert request.kind == "asked"
    assert request.reason.startswith(reason)


ENTRIES: dict[str, Callable[[Path], object]] = {
    "huge": lambda path: (path.touch(), os.truncate(path, 2 << 30)),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_any_entry_called_stop_is_a_request_of_kind_asked_and_is_not_read(tmp_path: Path, name: str) -> None:
    ENTRIES[name](tmp_path / "stop")
    assert read_stop_request(tmp_path) == StopRequest()


def test_a_request_that_storage_does_not_give_is_an_error_and_not_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stop_request(tmp_path, StopRequest(reason="lunch"))

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        with pytest.raises(OSError, match="Input/output error"):
            read_stop_request(tmp_path)


def test_a_worker_that_is_asked_to_stop_stops_although_its_job_s_time_ends_or_a_signal_comes(run: Run) -> None:
    run.request_stop("lunch")
    with Shutdown(run) as shutdown:
        os.kill(os.getpid(), signal.SIGUSR2)
        reason = shutdown.reason()
        assert reason is not None
        assert reason.kind is StopRequested
    with Shutdown(run, leave_after_s=0.001) as shutdown:
        reason = shutdown.reason()
        assert reason is not None
        assert reason.kind is StopRequested
