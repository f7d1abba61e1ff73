"""`modtrain status` of damaged, moved and closed runs, and in terminals of every width."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modtrain.monitoring.status import build_status
from modtrain.scheduling.launcher_lock import claim
from modtrain.storage.checkpoint import META, WEIGHTS
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from tests.support.command import Terminal
from tests.support.runs import finish, make_run
from tests.support.serving import served


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    made = make_run(tmp_path / "runs" / "apples", tiny_recipe, [["generator", "discriminator"]], epochs=1)
    finish(made)
    return made


@pytest.mark.parametrize("columns", [40, 59, 60, 80, 99, 100, 200])
def test_names_and_numbers_are_never_cut(
    run: Run, type_: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = type_("status", run.path)
    assert "…" not in result.out
    for word in ("generator", "discriminator", "finished", "v1", "1/1"):
        assert word in result.out


def test_a_finished_run_whose_heartbeats_are_damaged_is_finished(run: Run, type_: Terminal) -> None:
    for module in run.modules:
        (run.module_path(module) / "heartbeat.json").write_text("not JSON")
    assert json.loads(type_("status", run.path, "--json").out)["state"] == "finished"


def test_a_killed_module_is_at_its_published_step_and_its_run_continues_where_a_launcher_restarts_it(
    tmp_path: Path, tiny_recipe: Path, type_: Terminal
) -> None:
    run = make_run(tmp_path / "apples", tiny_recipe, [["generator", "discriminator"]], epochs=4)
    for module in run.modules:
        publisher = Publisher(run.store(module), "worker")
        publisher.publish({WEIGHTS: b"w"}, epoch=0, step=0)
        publisher.publish({WEIGHTS: b"w"}, epoch=1, step=10)
        process = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": 1}
        report = {**process, "state": "running", "step": 1, "steps": 40, "epoch": 0}
        run.heartbeat_path(module).write_text(json.dumps(report))
    status = json.loads(type_("status", run.path, "--json").out)
    assert (status["state"], status["launcher"], status["progress"]) == ("lost", None, 0.25)
    generator = status["modules"]["generator"]
    assert (generator["state"], generator["epoch"], generator["step"]) == ("lost", 1, 10)
    run.jobs_path.mkdir()
    claim(run)
    status = json.loads(type_("status", run.path, "--json").out)
    assert (status["state"], status["launcher"]) == ("running", os.getpid())


def test_a_peer_that_published_while_the_run_was_read_is_not_ahead_of_itself(
    tmp_path: Path, tiny_recipe: Path, type_: Terminal
) -> None:
    run = make_run(tmp_path / "apples", tiny_recipe, [["generator"], ["discriminator"]], epochs=4)
    Publisher(run.store("generator"), "worker").publish({WEIGHTS: b"w"}, epoch=0, step=0)
    peers = {"generator": {"versions": [1], "epoch": 1}}
    Publisher(run.store("discriminator"), "worker").publish({WEIGHTS: b"w"}, epoch=1, step=10, peers=peers)
    status = json.loads(type_("status", run.path, "--json").out)
    assert status["modules"]["discriminator"]["peers"]["generator"]["behind"] == 0


def test_while_a_run_trains_it_is_said_how_many_steps_a_peer_is_behind(
    tmp_path: Path, tiny_recipe: Path, type_: Terminal
) -> None:
    run = make_run(tmp_path / "apples", tiny_recipe, [["generator"], ["discriminator"]], epochs=4)
    publisher = Publisher(run.store("discriminator"), "worker")
    publisher.publish({WEIGHTS: b"w"}, epoch=0, step=5)
    peers = {"discriminator": {"versions": [0], "epoch": 0, "step": 5}}
    Publisher(run.store("generator"), "worker").publish({WEIGHTS: b"w"}, epoch=0, step=10, peers=peers)
    publisher.publish({WEIGHTS: b"w"}, epoch=0, step=30)
    run.published_path("discriminator").unlink()  # a launch does not read it, and it may be older than the folders
    shown = build_status(read_snapshot(run))["modules"]["generator"]["peers"]["discriminator"]
    assert (shown["behind"], shown["behind_steps"]) == (1, 25)
    assert "discriminator v0, 1 behind (25 steps)" in type_("status", run.path).out


def test_a_worker_that_was_killed_after_its_last_checkpoint_is_finished(run: Run, type_: Terminal) -> None:
    for module in run.modules:
        path = run.heartbeat_path(module)
        report = {"state": "running", "pid": 2**22 + 1, "started": 1, "exit_code": None}
        path.write_text(json.dumps(json.loads(path.read_text()) | report))
    status = json.loads(type_("status", run.path, "--json").out)
    assert (status["state"], status["alarms"]) == ("finished", [])


@pytest.mark.parametrize("losses", [7, [1], "many", {"generator": 3}, {"generator": {"loss": "x"}}, None])
def test_a_foreign_field_of_a_heartbeat_costs_only_that_field(run: Run, type_: Terminal, losses: object) -> None:
    beat = run.module_path("generator") / "heartbeat.json"
    beat.write_text(json.dumps(json.loads(beat.read_text()) | {"losses": losses}))
    assert type_("status", run.path).code == 0
    result = type_("status", run.path, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["modules"]["generator"]["losses"] == {}


@pytest.mark.parametrize("record", ['{"jobs": 7}', '{"jobs": {"0": 7}}', '{"profile": 7}', '{"profile": [1]}'])
def test_a_damaged_record_of_jobs_is_named_in_one_sentence(run: Run, type_: Terminal, record: str) -> None:
    (run.path / "jobs").mkdir()
    (run.path / "jobs" / "jobs.json").write_text(record)
    result = type_("launch", run.path, "--backend", "local")
    assert result.code == 2
    assert "jobs.json is damaged" in result.err


@pytest.mark.parametrize("damage", ["meta", "weights", "not its own"])
def test_a_damaged_version_is_reported_by_every_view_alike(
    tmp_path: Path, tiny_recipe: Path, type_: Terminal, damage: str
) -> None:
    run = make_run(tmp_path / "runs" / "apples", tiny_recipe, [["generator", "discriminator"]], epochs=3)
    finish(run)
    store = run.store("generator")
    *_, before, newest = store.versions()
    if damage == "meta":
        (store.folder(newest) / META).write_text("{}")
    elif damage == "weights":
        os.truncate(store.folder(newest) / WEIGHTS, 100)
    else:
        (store.folder(newest) / META).write_bytes((store.folder(before) / META).read_bytes())
    message = f"Version {newest} of generator is damaged; readers use version {before}."
    status = json.loads(type_("status", run.path, "--json").out)
    (row,) = json.loads(type_("watch", tmp_path, "--json").out)["runs"]
    with served(tmp_path) as page:
        shown = page.data("run/runs/apples")
        (listed,) = page.data("runs")["runs"]
    for alarms in (status["alarms"], row["alarms"], shown["alarms"], listed["alarms"]):
        assert [alarm["says"] for alarm in alarms] == [message]
    modules = (status["modules"]["generator"], *(each["modules"][0] for each in (row, shown, listed)))
    assert [module["version"] for module in modules] == [before] * 4


@pytest.mark.parametrize(("name", "value"), [("format", 5), ("placement", [[]])])
def test_a_manifest_of_an_unknown_version_is_not_opened(run: Run, type_: Terminal, name: str, value: object) -> None:
    spec = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(spec | {name: value}))
    result = type_("status", run.path)
    assert result.code == 2
    assert f"run.json is damaged or of another version: {name}" in result.err


def test_a_mistyped_name_is_answered_with_the_names_of_the_runs_there(run: Run, type_: Terminal) -> None:
    for number in range(7):
        (run.path.parent / f"other-{number}").mkdir()
        (run.path.parent / f"other-{number}" / "run.json").write_text("{}")
    result = type_("status", run.path.parent / "aples")
    assert result.code == 2
    assert "(no such folder)" in result.err
    assert "and 3 more. Did you mean 'apples'?" in result.err
    assert "has other-2," in type_("status", run.path.parent).err
    assert "is a run, not a sweep; `modtrain status" in type_("sweep-status", run.path).err


def test_a_closed_folder_beside_a_run_does_not_hide_it(run: Run) -> None:
    closed = run.path.parent / "closed"
    closed.mkdir(mode=0)
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*unprivileged, sys.executable, "-m", "modtrain", "status", str(run.path.parent / "aples")]
    result = subprocess.run(command, capture_output=True, text=True)
    closed.chmod(0o700)
    assert result.returncode == 2, result.stderr
    assert "Did you mean 'apples'?" in result.stderr


def test_control_characters_in_names_do_not_reach_the_terminal(run: Run, type_: Terminal) -> None:
    (run.path.parent / "\u202eevil\x1b[2J").mkdir()
    (run.path.parent / "\u202eevil\x1b[2J" / "run.json").write_text("{}")
    result = type_("status", run.path.parent / "nothing")
    assert "evil" in result.err
    assert not {"\u202e", "\x1b"} & set(result.err)


def test_a_closed_pipe_is_no_error(run: Run) -> None:
    command = f"{sys.executable} -m modtrain history {run.path} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stdout.strip() in ("0", "141")
    assert result.stderr == ""
