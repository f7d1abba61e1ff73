"""`status --watch` and `watch`: on a terminal in place, on a pipe line by line, and an end that says how it ended."""

from __future__ import annotations

import copy
import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from modtrain.bench.sample_runs import make
from modtrain.cli.catalog_table import UNSEARCHED, new_lines, notes, render
from modtrain.cli.status import RunView, exit_code_of
from modtrain.cli.terminal import Printed
from modtrain.errors import BackendSilent
from modtrain.monitoring.catalog import Catalog
from modtrain.scheduling.backends.base import JobState
from modtrain.scheduling.launcher_lock import claim
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from tests.support.command import Terminal, ended, start
from tests.support.runs import finish, make_run, start_worker

BOTH = [["generator", "discriminator"]]


@pytest.fixture
def modtrain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


def kill_before_the_end(run: Run, module: str) -> None:
    """Make the folder of a module that of a killed worker that had not published its last version."""
    heartbeat = run.heartbeat_path(module)
    heartbeat.write_text(json.dumps(json.loads(heartbeat.read_text()) | {"pid": 2**22 + 1, "started": 1}))
    published = run.published_path(module)
    published.write_text("".join(published.read_text().splitlines(keepends=True)[:-1]))
    shutil.rmtree(run.store(module).folder(max(run.store(module).versions())))


def training(run: Run) -> subprocess.Popen[str]:
    """A worker that has come so far as to train."""
    process = start_worker(run, "generator,discriminator")
    assert filesystem.wait_until(lambda: run.read_report("generator").step or None, timeout_s=120)
    return process


def lines_until(process: subprocess.Popen[str], ready: Callable[[str], bool]) -> str:
    """What it has printed when a line is as wanted."""
    assert process.stdout
    result = ""
    for line in process.stdout:
        result += line
        if ready(line):
            return result
    raise AssertionError(result)


def test_watching_a_run_prints_its_epochs_and_ends_with_it(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, BOTH, epochs=4, params={"pause_s": 0.1})
    worker = training(run)
    result = ended(start("status", run.path, "--watch"))
    worker.communicate(timeout=120)
    assert result.code == 0, result.err
    assert "generator+discriminator" in result.out
    assert "finished" in result.out.splitlines()[-1]


def test_watching_a_run_on_a_pipe_prints_no_line_for_each_version(
    tmp_path: Path, modtrain: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = RunView(make(tmp_path / "run", live=True)).refresh() | {"alarms": []}
    for module in current["modules"].values():
        module["version"] = module["version"] or 0
    several = [copy.deepcopy(current) for _ in range(20)]
    for number, each in enumerate(several):
        for module in each["modules"].values():
            module["version"] += number
    for worker in several[-1]["workers"]:
        worker["state"] = "finished"
    answers = iter(several)
    monkeypatch.setattr("modtrain.cli.status.REFRESH_S", 0.0)
    monkeypatch.setattr(RunView, "settle", lambda view: None)
    monkeypatch.setattr(RunView, "refresh", lambda view: next(answers))
    result = modtrain("status", tmp_path / "run", "--watch")
    first = [line.split()[0] for line in result.out.splitlines()]
    assert first == [worker["modules"][0] for worker in current["workers"]] * 2, result.out


def test_watching_a_run_whose_worker_dies_says_what_to_do(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, BOTH, epochs=1000, params={"pause_s": 0.05})
    worker = training(run)
    watching = start("status", run.path, "--watch")
    lines_until(watching, lambda line: "running" in line)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    result = ended(watching)
    assert result.code == 1
    assert "died without a report" in result.out
    assert f"modtrain launch {run.path}" in result.out


def test_watching_a_run_ends_with_the_code_of_what_failed(
    tmp_path: Path, tiny_recipe: Path, modtrain: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.cli.status.SETTLED_S", 0.0)
    run = make_run(tmp_path / "run", tiny_recipe, BOTH, params={"nan_at": 4})
    with pytest.raises(Exception, match="nan"):
        finish(run)
    result = modtrain("status", run.path, "--watch")
    assert (result.code, "learning rate" in result.out) == (5, True)
    stopped = make_run(tmp_path / "stopped", tiny_recipe, BOTH)
    stopped.request_stop("lunch")
    says = f"stopped: lunch; `modtrain launch {stopped.path}` resumes it."
    watched = modtrain("status", stopped.path, "--watch")
    assert (watched.code, watched.out.splitlines()[-1]) == (3, says)
    shown = modtrain("status", stopped.path)
    assert says.replace(" ", "") in "".join(shown.out.split())
    catalog = Catalog(tmp_path)
    catalog.refresh()
    assert "stopped  stopped (lunch), 0%, epoch 0/3" in list(new_lines(Printed(), catalog.rows()["runs"], []))


@pytest.mark.parametrize("words", [("status", "root/run", "--watch"), ("watch", "root")])
def test_ctrl_c_ends_watching_and_nothing_else(tmp_path: Path, tiny_recipe: Path, words: tuple[str, ...]) -> None:
    run = make_run(tmp_path / "root" / "run", tiny_recipe, BOTH, epochs=1000, params={"pause_s": 0.05})
    worker = training(run)
    command, *rest = words
    watching = start(command, tmp_path / rest[0], *rest[1:])
    lines_until(watching, lambda line: "run" in line or "running" in line)
    watching.send_signal(signal.SIGINT)
    result = ended(watching)
    assert result.code in (130, -signal.SIGINT), "a shell says 130 to both"
    assert result.err == ""
    assert worker.poll() is None
    run.request_stop("the test is over")
    worker.communicate(timeout=120)


def test_a_folder_of_runs_is_followed_line_by_line(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    watching = start("watch", tmp_path)
    result = lines_until(watching, lambda line: line.startswith("run  running"))
    assert "torn  " in result
    assert result.index("torn") < result.index("run  running"), "what is broken comes first"
    heartbeat = run.heartbeat_path("translator")
    failed = {"state": "failed", "exit_code": 5, "trouble": "'loss' became nan"}
    heartbeat.write_text(json.dumps(json.loads(heartbeat.read_text()) | failed))
    lines_until(watching, lambda line: line.startswith("! run: translator failed: 'loss' became nan."))
    watching.send_signal(signal.SIGINT)
    assert ended(watching).code == 130


def test_an_incomplete_search_is_reported_once(tmp_path: Path) -> None:
    catalog, printed = Catalog(make(tmp_path / "run", live=False).path), Printed()
    catalog.refresh()
    rows, table = [catalog.row("")], {"unsearched": True, "silent": ""}
    assert UNSEARCHED not in list(new_lines(printed, rows, []))
    assert list(new_lines(printed, rows, notes(table))) == [UNSEARCHED]
    assert list(new_lines(printed, rows, notes(table))) == []
    for unsearched in (True, False):
        out = Console(file=io.StringIO(), width=300)
        out.print(render("runs", rows, notes(table | {"unsearched": unsearched}), 300, 50))
        assert (UNSEARCHED in out.file.getvalue()) == unsearched  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ({"finished": 0}, 0),
        ({"lost": None, "failed": 7}, 1),
        ({"lost": None, "failed": 5}, 5),
        ({"stopped": 3, "failed": 7}, 7),
        ({"finished": 0, "lost": None}, 1),
        ({"finished": 0, "preempted": 75}, 75),
    ],
)
def test_the_exit_code_of_a_run_is_that_of_the_cause(states: dict[str, int | None], code: int) -> None:
    workers = [{"state": state, "exit_code": its} for state, its in states.items()]
    run = {"stop": None, "evaluation_failure": None}
    assert exit_code_of({"workers": workers, **run}) == code
    assert exit_code_of({"workers": workers[::-1], **run}) == code


def test_json_is_one_document(tmp_path: Path, tiny_recipe: Path, modtrain: Terminal) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, BOTH)
    finish(run)
    data = json.loads(modtrain("watch", tmp_path, "--json").out)
    (row,) = data["runs"]
    assert data["unsearched"] is False
    assert (row["path"], row["state"], row["alarms"]) == ("run", "finished", [])
    assert json.loads(modtrain("status", run.path, "--json").out)["alarms"] == []
    result = modtrain("status", run.path, "--json", "--watch")
    assert (result.code, "use one of them" in result.err) == (2, True)
    assert modtrain("watch", tmp_path / "missing").code == 2


def test_names_that_would_move_the_cursor_are_shown_instead(tmp_path: Path) -> None:
    good = make(tmp_path / "good", live=False)
    odd = tmp_path / os.fsdecode(b"a\x1b[2J\n\xff")
    odd.mkdir()
    (odd / "run.json").write_bytes((good.path / "run.json").read_bytes())
    watching = start("watch", tmp_path)
    result = lines_until(watching, lambda line: line.startswith("a"))
    watching.send_signal(signal.SIGINT)
    ended(watching)
    assert r"a\x1b[2J\n\xff  created" in result
    assert "\x1b" not in result


def test_on_a_terminal_what_is_shown_is_renewed_in_place(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "modtrain", "watch", str(tmp_path)]
    environment = {**os.environ, "COLUMNS": "100", "LINES": "30", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as watching:
        os.close(theirs)
        read_until(ours, "1 running")
        run.request_stop("lunch")
        result = read_until(ours, "A stop was requested (lunch)")
        assert "\x1b[1A" in result, "the lines before are written over"
        watching.send_signal(signal.SIGINT)
        read_until(ours, "\x1b[?25h")
        assert watching.wait(timeout=60) == 130
    os.close(ours)


def read_until(descriptor: int, wanted: str, timeout_s: float = 120) -> str:
    """What a program writes to its terminal until it has written something."""
    result, deadline = "", time.monotonic() + timeout_s
    while wanted not in result:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, result
        result += os.read(descriptor, 65536).decode(errors="replace")
    return result


def test_a_terminal_that_cannot_be_renewed_gets_lines(tmp_path: Path) -> None:
    make(tmp_path / "run", live=True)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "modtrain", "watch", str(tmp_path)]
    environment = {**os.environ, "COLUMNS": "100", "LINES": "30", "TERM": "dumb"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as watching:
        os.close(theirs)
        assert "\x1b" not in read_until(ours, "run  running")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=60) == 130
    os.close(ours)


def test_watching_a_folder_without_runs_prints_that_there_are_none(tmp_path: Path) -> None:
    watching = start("watch", tmp_path)
    lines_until(watching, lambda line: line == "There is no run or sweep here yet.\n")
    make(tmp_path / "run", live=False)
    lines_until(watching, lambda line: line.startswith("run  finished"))
    watching.send_signal(signal.SIGINT)
    assert ended(watching).code == 130


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_numbers_are_never_cut_however_long_a_name_is(tmp_path: Path, width: int) -> None:
    make(tmp_path / ("long-" * 20 + "name"), live=False)
    make(tmp_path / "short", live=False)
    catalog = Catalog(tmp_path)
    catalog.refresh()
    out = Console(file=io.StringIO(), width=width)
    out.print(render("runs", catalog.rows()["runs"], [], width, 50))
    assert isinstance(out.file, io.StringIO)
    _, _, head, *rows = out.file.getvalue().splitlines()
    assert head.split()[:4] == ["run", "state", "done", "epoch"]
    for row in rows:
        name, state, done, epoch, *_ = row.split()
        assert (state, done, epoch) == ("finished", "100%", "99/100")
        assert name == "short" or name.startswith("long-")
        assert "…" not in row.removeprefix(name)


def test_a_run_that_waits_for_a_dead_worker_has_no_time_left(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    kill_before_the_end(run, "translator")
    catalog = Catalog(tmp_path)
    catalog.refresh()
    (row,) = catalog.rows()["runs"]
    assert row["left_s"] is None
    assert {module["name"]: module["state"] for module in row["modules"]}["translator"] == "lost"


def test_a_scheduler_that_does_not_answer_once_changes_no_state(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, BOTH)
    (run.path / "jobs").mkdir()
    record = {"backend": "slurm", "jobs": {"0": {"backend": "slurm", "id": f"{run.path}/jobs/0.journal@7"}}}
    (run.path / "jobs" / "jobs.json").write_text(json.dumps(record))
    answers = iter([{0: JobState(phase="pending", reason="Resources")}])

    def asked(run: Run) -> dict[int, JobState]:
        try:
            return next(answers)
        except StopIteration:
            raise BackendSilent("squeue does not answer.") from None

    monkeypatch.setattr("modtrain.scheduling.job_record.job_states", asked)
    monkeypatch.setattr("modtrain.cli.status.JOBS_S", 0.0)
    view = RunView(run)
    statuses = [view.refresh() for _ in range(3)]
    assert [status["workers"][0]["state"] for status in statuses] == ["queued"] * 3
    assert view.backend_is_silent


def test_an_alarm_of_a_launched_run_does_not_advise_to_launch_it(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    kill_before_the_end(run, "translator")
    (run.path / "jobs").mkdir()
    claim(run)
    catalog = Catalog(tmp_path)
    catalog.refresh()
    (row,) = catalog.rows()["runs"]
    for alarms in (row["alarms"], RunView(run).refresh()["alarms"]):
        result = next(alarm["do"] for alarm in alarms if alarm["module"] == "translator")
        assert result.startswith("Its launcher restarts it")
