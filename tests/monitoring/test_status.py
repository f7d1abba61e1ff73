"""`modtrain status` of runs that others have damaged, moved or closed, and in terminals of every width."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modtrain.scheduling.launcher_lock import claim
from modtrain.storage.checkpoint import META, WEIGHTS
from modtrain.storage.run import Run
from tests.support.command import Terminal
from tests.support.runs import finish, make_run
from tests.support.serving import served


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


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
    said = type_("status", run.path)
    assert "…" not in said.out
    for word in ("generator", "discriminator", "finished", "v1", "1/1"):
        assert word in said.out


def test_a_finished_run_whose_heartbeats_are_lost_is_finished(run: Run, type_: Terminal) -> None:
    for module in run.modules:
        (run.module_path(module) / "heartbeat.json").write_text("not JSON")
    assert json.loads(type_("status", run.path, "--json").out)["state"] == "finished"


def test_a_killed_module_is_where_it_has_published_and_its_launcher_starts_it_again(run: Run, type_: Terminal) -> None:
    for module in run.modules:
        beat = run.module_path(module) / "heartbeat.json"
        old = {"state": "training", "pid": 2**22 + 1, "started": 1, "step": 1, "epoch": 0}
        beat.write_text(json.dumps(json.loads(beat.read_text()) | old))
    told = json.loads(type_("status", run.path, "--json").out)
    assert (told["state"], told["launcher"]) == ("failed", None)
    generator = told["modules"]["generator"]
    assert (generator["state"], generator["epoch"], generator["step"]) == (
        "lost",
        1,
        run.store("generator").meta(1).step,
    )
    (run.path / "jobs").mkdir()
    claim(run)
    told = json.loads(type_("status", run.path, "--json").out)
    assert (told["state"], told["launcher"]) == ("running", os.getpid())


@pytest.mark.parametrize("losses", [7, [1], "many", {"generator": 3}, {"generator": {"loss": "x"}}, None])
def test_a_foreign_heartbeat_costs_only_what_it_should_have_said(run: Run, type_: Terminal, losses: object) -> None:
    beat = run.module_path("generator") / "heartbeat.json"
    beat.write_text(json.dumps(json.loads(beat.read_text()) | {"losses": losses}))
    assert type_("status", run.path).code == 0
    said = type_("status", run.path, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["modules"]["generator"]["losses"] == {}


@pytest.mark.parametrize("record", ['{"jobs": 7}', '{"jobs": {"0": 7}}', '{"profile": 7}', '{"profile": [1]}'])
def test_a_damaged_record_of_jobs_is_said_in_a_sentence(run: Run, type_: Terminal, record: str) -> None:
    (run.path / "jobs").mkdir()
    (run.path / "jobs" / "jobs.json").write_text(record)
    said = type_("launch", run.path, "--backend", "local")
    assert said.code == 2
    assert "jobs.json is damaged" in said.err


@pytest.mark.parametrize("damage", ["meta", "weights", "not its own"])
def test_a_damaged_version_is_said_everywhere_alike(
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
    says = f"Version {newest} of generator is damaged; readers go on with version {before}."
    told = json.loads(type_("status", run.path, "--json").out)
    (row,) = json.loads(type_("watch", tmp_path, "--json").out)["runs"]
    with served(tmp_path) as page:
        shown = page.data("run/runs/apples")
        (listed,) = page.data("runs")["runs"]
    for alarms in (told["alarms"], row["alarms"], shown["alarms"], listed["alarms"]):
        assert [alarm["says"] for alarm in alarms] == [says]
    modules = (told["modules"]["generator"], *(each["modules"][0] for each in (row, shown, listed)))
    assert [module["version"] for module in modules] == [before] * 4


@pytest.mark.parametrize(("name", "value"), [("format", 5), ("placement", [[]])])
def test_what_this_version_does_not_know_is_not_opened(run: Run, type_: Terminal, name: str, value: object) -> None:
    spec = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(spec | {name: value}))
    said = type_("status", run.path)
    assert said.code == 2
    assert f"run.json is damaged or of another version: {name}" in said.err


def test_a_mistyped_name_is_answered_with_what_there_is_whatever_else_lies_there(run: Run, type_: Terminal) -> None:
    for number in range(7):
        (run.path.parent / f"other-{number}").mkdir()
        (run.path.parent / f"other-{number}" / "run.json").write_text("{}")
    said = type_("status", run.path.parent / "aples")
    assert said.code == 2
    assert "(no such folder)" in said.err
    assert "and 3 more. Did you mean 'apples'?" in said.err
    assert "has other-2," in type_("status", run.path.parent).err
    assert "is a run, and no sweep; `modtrain status" in type_("sweep-status", run.path).err


def test_a_folder_that_others_have_closed_does_not_hide_what_was_asked_for(run: Run) -> None:
    closed = run.path.parent / "closed"
    closed.mkdir(mode=0)
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*as_anybody, sys.executable, "-m", "modtrain", "status", str(run.path.parent / "aples")]
    said = subprocess.run(command, capture_output=True, text=True)
    closed.chmod(0o700)
    assert said.returncode == 2, said.stderr
    assert "Did you mean 'apples'?" in said.stderr


def test_names_that_others_gave_do_not_move_the_cursor(run: Run, type_: Terminal) -> None:
    (run.path.parent / "\u202eevil\x1b[2J").mkdir()
    (run.path.parent / "\u202eevil\x1b[2J" / "run.json").write_text("{}")
    said = type_("status", run.path.parent / "nothing")
    assert "evil" in said.err
    assert not {"\u202e", "\x1b"} & set(said.err)


def test_a_reader_that_goes_away_is_no_error(run: Run) -> None:
    command = f"{sys.executable} -m modtrain history {run.path} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert said.stdout.strip() in ("0", "141")
    assert said.stderr == ""
