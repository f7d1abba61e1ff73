"""A launcher that loses its terminal or a race leaves the run as it should be, and says why."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modtrain.cli import launch_view
from modtrain.cli.launch_view import LaunchView
from modtrain.errors import InputError
from modtrain.monitoring.status import Status, build_status
from modtrain.scheduling import launcher_lock
from modtrain.scheduling.backends.base import BackendOptions, Job
from modtrain.scheduling.backends.local import LocalBackend
from modtrain.scheduling.job_record import JobId, Record
from modtrain.scheduling.launcher import Launch
from modtrain.storage.liveness import launcher_path
from modtrain.storage.process_identity import ProcessIdentity
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from tests.support.command import typed
from tests.support.launches import pid_after
from tests.support.runs import make_run

JOINT = [["generator", "discriminator"]]


def launch(recipe: Path, root: Path, backend: str, **streams: Any) -> subprocess.Popen[bytes]:
    how = ("--recipe", recipe, "--root", root, "--name", "run", "--backend", backend, "--nodes", 1)
    words = [sys.executable, "-m", "modtrain", "launch", *how, "--epochs", 500, "--pause-s", 0.05]
    return subprocess.Popen([str(word) for word in words], **streams)


def read_until(descriptor: int, words: bytes) -> None:
    """Read output until it contains these words."""
    seen = b""
    while words not in seen:
        seen += os.read(descriptor, 4096)


@pytest.mark.parametrize("backend", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_closed_terminal_has_the_workers_publish_and_exit_as_the_launch_has_said(
    backend: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = launch(
        tiny_recipe, tmp_path, backend, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal
    )
    os.close(theirs)
    read_until(ours, b"When this terminal is closed, the workers publish and exit")
    run = Run.open(tmp_path / "run")
    pid_after(run, "generator", steps=5)
    os.close(ours)
    assert process.wait(timeout=120) == 75
    newest, stop = run.store("generator").latest(), run.stop_request()
    assert stop is not None
    assert stop.reason == "the terminal was closed"
    assert newest is not None
    assert newest.step >= 5
    assert run.read_report("generator").state == "stopped"


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGHUP, "the terminal was closed"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_while_the_workers_are_started_ends_the_launch_with_a_sentence_and_a_note_in_the_run(
    number: signal.Signals, cause: str, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = LocalBackend.submit

    def slowly(backend: LocalBackend, jobs: Sequence[Job]) -> list[str]:
        os.kill(os.getpid(), number)
        return submit(backend, jobs)

    monkeypatch.setattr(LocalBackend, "submit", slowly)
    run = make_run(tmp_path / "run", tiny_recipe, JOINT, epochs=500)
    before = signal.signal(signal.SIGHUP, lambda *_: None)  # the tests may run under nohup
    try:
        result = typed("launch", run.path, "--backend", "local")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (result.code, result.err) == (
        75,
        f"modtrain: The launch was ended while it started its workers ({cause}); `modtrain launch {run.path}` starts "
        "them.\n",
    )
    assert build_status(read_snapshot(run))["state"] == "stopped"
    assert str(run.stop_request()) == cause
    assert not launcher_path(run.path).exists()


def test_cancel_has_the_launcher_end_the_jobs_that_only_it_can_end(tiny_recipe: Path, tmp_path: Path) -> None:
    """As on `ray`, whose instance no other process can ask."""
    run = make_run(tmp_path / "run", tiny_recipe, JOINT, epochs=500, params={"pause_s": 0.05})
    started = Launch(run, "local", BackendOptions())
    started.start()
    Record(backend="ray", needs_launcher=True, jobs={0: JobId("ray", "run.generator@log")}).write(run)
    job = str(started.members[0].id)
    os.kill(int(job.split(":")[1]), signal.SIGSTOP)  # it cannot exit by itself, as a starting worker does
    watching = threading.Thread(target=lambda: list(started.watch(lambda message: None)))
    watching.start()
    result = typed("cancel", run.path)
    watching.join()
    assert (result.code, result.out.splitlines()[0]) == (0, "Ended 1 job of run.")
    assert (started.outcome(), started.backend.status([job])[job].exit_code) == (3, -signal.SIGKILL)
    assert build_status(read_snapshot(run))["state"] == "cancelled"
    assert "no live job" in typed("cancel", run.path).out


@pytest.mark.parametrize(
    ("needs_launcher", "launcher", "state"),
    [
        (True, "alive", "queued"),
        (True, "dead", "created"),
        (True, "gone", "created"),
        (True, "elsewhere", "queued"),
        (False, "dead", "queued"),
    ],
)
def test_a_run_is_queued_only_while_something_may_begin_its_jobs(
    needs_launcher: bool, launcher: str, state: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, JOINT)
    run.jobs_path.mkdir(exist_ok=True)
    Record(backend="local", needs_launcher=needs_launcher, jobs={0: JobId("local", "host:1:1")}).write(run)
    own = vars(ProcessIdentity.current())
    identities = {"alive": own, "dead": own | {"started": 1}, "elsewhere": own | {"host": "elsewhere"}}
    if launcher in identities:
        launcher_path(run.path).write_text(json.dumps(identities[launcher]))
    assert build_status(read_snapshot(run))["state"] == state


def test_of_two_launches_at_the_same_time_the_second_names_the_first(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, JOINT)
    run.jobs_path.mkdir(exist_ok=True)
    ask = launcher_lock.launcher_pid

    def slowly(folder: Path, *, strict: bool) -> int | None:
        answer = ask(folder, strict=strict)
        time.sleep(0.3)  # both have asked before one of them writes
        return answer

    monkeypatch.setattr(launcher_lock, "launcher_pid", slowly)
    fork = multiprocessing.get_context("fork")
    answers, both = fork.Queue(), fork.Barrier(3)

    def claim() -> None:
        both.wait(30)
        try:
            launcher_lock.claim(run)
            answers.put("")
        except InputError as error:
            answers.put(str(error))
        both.wait(30)

    processes = [fork.Process(target=claim) for _ in range(2)]
    for process in processes:
        process.start()
    both.wait(30)
    first, second = sorted(answers.get(timeout=30) for _ in range(2))
    both.wait(30)
    assert first == ""
    assert second.startswith(f"run is already launched by process {processes[0].pid}") or second.startswith(
        f"run is already launched by process {processes[1].pid}"
    )


@pytest.mark.parametrize(
    ("exit_code", "line", "reason"),
    [
        (1, "Epoch 40 of 40: loss 0.1", "exit code 1"),
        (1, "ModuleNotFoundError: No module named 'torch'", "ModuleNotFoundError: No module named 'torch'"),
        (2, "modtrain: --device is wrong.", "--device is wrong."),
        (127, "/bin/sh: python: not found", "/bin/sh: python: not found"),
        (-9, "", "signal 9"),
        (
            4,
            "Epoch 40 of 40",
            "another worker trains it: another launch of this run, or a job of an earlier one, is running.",
        ),
    ],
)
def test_the_last_line_of_a_log_is_a_reason_only_where_it_is_an_error(
    exit_code: int, line: str, reason: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    launch = Launch(make_run(tmp_path / "run", tiny_recipe, JOINT), "local", BackendOptions())
    (member,) = launch.members
    member.end(exit_code)
    launch.run.jobs_path.mkdir(exist_ok=True)
    launch.log_path(member).write_text(f"begins\n{line}\n" if line else "")
    assert launch.failure(member) == reason


def test_a_cancelled_launch_has_one_word_for_it(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, JOINT)
    view = LaunchView(Launch(run, "local", BackendOptions()), time.monotonic())
    run.request_stop("cancelled", kind="cancelled")
    view.launch.members[0].end(3)
    monkeypatch.setattr(view.launch, "watch", lambda notify: [[]])
    assert view.follow() == 3
    words = f"cancelled; `modtrain launch {run.path}` resumes it."
    lines = capsys.readouterr().out.splitlines()
    assert (lines[-3].split()[1:], lines[-1]) == (
        ["generator+discriminator", "cancelled"],
        "C" + words.replace(";", ".")[1:],
    )
    assert "stopped" not in "".join(lines).lower()
    assert words in " ".join(typed("status", run.path).out.split())


def test_a_status_that_cannot_be_read_is_said_once_and_the_launch_goes_on(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, JOINT)
    view = LaunchView(Launch(run, "local", BackendOptions()), time.monotonic())
    asked: list[Status] = []

    def status() -> Status:
        asked.append(build_status(read_snapshot(run)))
        if len(asked) < 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return asked[-1]

    monkeypatch.setattr(launch_view, "REFRESH_S", 0.0)
    monkeypatch.setattr(view.launch, "watch", lambda notify: [[]] * 3)
    monkeypatch.setattr(view, "status", status)
    view.follow()
    out = capsys.readouterr().out
    assert out.count("The status of run cannot be read now: Input/output error. The workers continue.") == 1
    assert len(asked) == 3
