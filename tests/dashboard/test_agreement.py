"""The list, the page and the terminal show the same states and numbers at the same moment."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modtrain.dashboard.page_data import Source
from modtrain.dashboard.sweep_page import read_curves
from modtrain.scheduling.config import Config
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS, LAUNCHER_FILE
from modtrain.storage.process_identity import process_started
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.storage.run_state import DESCRIPTIONS
from modtrain.sweeps.sweep import Sweep, new_sweep
from modtrain.sweeps.trial import values_by_epoch
from tests.support.command import Terminal
from tests.support.runs import finish, make_run
from tests.support.serving import served

MODULES = ("generator", "discriminator")


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


def ended_process() -> dict[str, Any]:
    """The identity of a process of this machine that no longer runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = {"host": socket.gethostname(), "pid": process.pid, "started": process_started(process.pid)}
    process.communicate()
    return identity


def this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": process_started(os.getpid())}


def halfway(root: Path, name: str, recipe: Path, process: dict[str, Any]) -> Run:
    """A run of two workers whose modules are at different steps, beyond their newest versions."""
    run = make_run(root / name, recipe, [[module] for module in MODULES], epochs=4)
    for module, (epoch, step) in zip(MODULES, ((2, 27), (1, 19)), strict=True):
        publisher = Publisher(run.store(module), "a-writer")
        for number in range(1, epoch + 1):
            publisher.publish({"state.pt": b"s"}, epoch=number, step=10 * number, metrics={"loss": 0.5})
        beat = {"state": "running", "at": time.time(), "epoch": epoch, "step": step, "steps": 40, "left_s": 77.0}
        filesystem.replace_file(run.heartbeat_path(module), json.dumps({**process, **beat}).encode())
    return run


RUN = ("recipe", "state", "progress", "epoch", "epochs", "left_s")
MODULE = ("state", "version", "epoch", "step")


def agreed(root: Path, name: str, terminal: Terminal) -> dict[str, Any]:
    """The status of a run, after it was compared with its row, its page and the lanes on it."""
    source = Source(root)
    source.catalog.settle()
    (row,) = (row for row in source.runs()["runs"] if row["name"] == name)
    page = source.run(name)
    status = json.loads(terminal("status", root / name, "--json").out)
    for key in RUN:
        assert row[key] == page["run"][key] == status[key], key
    for of_row, of_page, lane in zip(row["modules"], page["modules"], page["lanes"], strict=True):
        of_status = status["modules"][of_page["name"]]
        for key in MODULE:
            assert of_row[key] == of_page[key] == of_status[key], key
        assert lane["versions"][-1]["version"] == of_page["version"]
    assert page["run"]["interruption"] == status["interruption"]
    assert page["run"]["continuation"] == status["continuation"]
    assert page["run"]["epoch"] == min(module["epoch"] for module in page["modules"])
    assert [worker["state"] for worker in page["workers"]] == [worker["state"] for worker in status["workers"]]
    assert {status["state"], *(module["state"] for module in page["modules"])} <= DESCRIPTIONS.keys()
    return dict(status)


def test_of_a_live_run(tmp_path: Path, tiny_recipe: Path, terminal: Terminal) -> None:
    halfway(tmp_path, "one", tiny_recipe, this_process())
    status = agreed(tmp_path, "one", terminal)
    assert (status["state"], status["epoch"], status["left_s"]) == ("running", 1, 77.0)
    assert {name: module["step"] for name, module in status["modules"].items()} == {
        "generator": 27,
        "discriminator": 19,
    }


def test_of_a_killed_run(tmp_path: Path, tiny_recipe: Path, terminal: Terminal) -> None:
    run = halfway(tmp_path, "one", tiny_recipe, ended_process())
    status = agreed(tmp_path, "one", terminal)
    assert (status["state"], status["epoch"], status["left_s"]) == ("lost", 1, None)
    assert status["progress"] > 0
    assert status["interruption"] is None
    run.request_stop("cancelled", kind="cancelled")
    assert agreed(tmp_path, "one", terminal)["interruption"] == f"cancelled; `modtrain launch {run.path}` resumes it."


def test_of_a_finished_run(tmp_path: Path, tiny_recipe: Path, terminal: Terminal) -> None:
    finish(make_run(tmp_path / "one", tiny_recipe, [[*MODULES]], epochs=1))
    status = agreed(tmp_path, "one", terminal)
    assert (status["state"], status["progress"]) == ("finished", 1.0)


def evaluated(run: Run, epoch: int, value: float) -> None:
    run.evaluation_path.mkdir(exist_ok=True)
    by_module = dict.fromkeys(MODULES, epoch)
    line = {"versions": by_module, "epochs": by_module, "metrics": {"mean": value}, "grid": None, "at": 1.0}
    with run.evaluations_path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_an_export_is_of_one_moment_while_training_goes_on(tmp_path: Path, tiny_recipe: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = {"host": socket.gethostname(), "pid": process.pid, "started": process_started(process.pid)}
    run = halfway(tmp_path, "one", tiny_recipe, identity)
    evaluated(run, 1, 0.5)
    source = Source(tmp_path, refresh_s=math.inf)  # as an export reads: the list first, then each page
    (row,) = source.runs()["runs"]
    for module in MODULES:
        Publisher(run.store(module), "a-writer").publish({"state.pt": b"s"}, epoch=3, step=30, metrics={"loss": 0.5})
    evaluated(run, 2, 0.9)
    process.communicate()
    page = source.run("one")
    assert row["state"] == page["run"]["state"] == "running"
    assert [record["metrics"]["mean"] for record in page["evaluations"]] == [row["metric"]["value"]] == [0.5]
    for of_row, of_page, lane in zip(row["modules"], page["modules"], page["lanes"], strict=True):
        assert of_row["state"] == of_page["state"] == "running"
        assert of_row["version"] == of_page["version"] == lane["versions"][-1]["version"] == lane["present"][-1]
        assert of_row["epoch"] == of_page["epoch"]
    after = Source(tmp_path)
    after.catalog.settle()
    (row,) = after.runs()["runs"]
    assert (row["state"], row["metric"]["value"]) == ("lost", 0.9), "what an export begun now would show"


def test_alarms_about_the_curves_of_a_run_that_has_ended_stay_in_the_list(
    tmp_path: Path, tiny_recipe: Path, terminal: Terminal
) -> None:
    run = finish_run(tmp_path / "one", tiny_recipe)
    lines = [{"step": n, "epoch": 1, "lr": 0.1, "at": 5.0, "loss": 0.5} for n in range(100)]
    run.metrics_path("generator").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = Source(tmp_path)
    source.catalog.settle()
    (row,) = source.runs()["runs"]
    page, status = source.run("one"), json.loads(terminal("status", run.path, "--json").out)
    says = ["The loss of generator has not changed for 30 lines of its curve; it is 0.5."]
    for alarms in (row["alarms"], page["alarms"], status["alarms"]):
        assert [alarm["says"] for alarm in alarms] == says
    (run.path / "jobs").mkdir(exist_ok=True)
    (run.path / "stop").write_text("{}")  # something else changes
    source.catalog.refresh()
    assert [alarm["says"] for alarm in source.catalog.row("one")["alarms"]] == says


def finish_run(path: Path, recipe: Path) -> Run:
    run = make_run(path, recipe, [[*MODULES]], epochs=1)
    finish(run)
    return run


def test_restarts_are_counted_without_what_a_user_resumed_and_a_module_that_rests_is_named(
    tmp_path: Path, tiny_recipe: Path, terminal: Terminal
) -> None:
    run = halfway(tmp_path, "one", tiny_recipe, this_process())
    with run.workers_path("generator").open("a") as file:
        for exit_code in (None, 75, 3, 5, 0):  # killed, preempted; stopped, diverged, finished
            left = [] if exit_code is None else [{"what": "left", "at": 5.0, "exit_code": exit_code}]
            file.writelines(json.dumps(line) + "\n" for line in [{"what": "began", "at": 5.0}, *left])
        file.write(json.dumps({"what": "began", "at": 5.0}) + "\n")
    for module, rates in (("generator", (0.1, 0.0)), ("discriminator", (0.0, 0.1))):
        lines = [{"step": n, "epoch": 1, "lr": rate, "at": 5.0, "loss": 0.5} for n, rate in enumerate(rates)]
        run.metrics_path(module).write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = Source(tmp_path).run("one")
    status = json.loads(terminal("status", run.path, "--json").out)
    for workers in (page["workers"], status["workers"]):
        assert [worker["restarts"] for worker in workers] == [2, 0]
    assert "2 workers, 2 restarts" in terminal("status", run.path).out
    assert {module["name"]: module["rests"] for module in page["modules"]} == dict(
        zip(MODULES, (True, False), strict=True)
    )


@pytest.mark.parametrize("is_launched", [True, False])
def test_of_a_sweep_between_two_trials(
    tmp_path: Path, tiny_recipe: Path, terminal: Terminal, is_launched: bool
) -> None:
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1, nodes=1), {"lr": [0.005, 0.01, 0.02]}, metric="mean")
    sweep = Sweep.create(tmp_path / "rates", spec)
    finish(sweep.begin(0))
    sweep.begin(1)
    (sweep.path / JOBS).mkdir(exist_ok=True)
    if is_launched:
        (sweep.path / JOBS / LAUNCHER_FILE).write_text(json.dumps(this_process()))
    counts = {"finished": 1, "created": 1, "queued": 1} if is_launched else {"finished": 1, "created": 2}
    source = Source(tmp_path)
    (row,) = source.runs()["runs"]
    page = source.sweep("rates")
    status = json.loads(terminal("sweep-status", sweep.path, "--json").out)
    assert row["state"] == page["sweep"]["state"] == ("running" if is_launched else "stopped")
    assert row["counts"] == page["sweep"]["counts"] == counts
    assert {state: count for state, count in status["counts"].items() if count} == row["counts"]
    states = {trial["number"]: trial["state"] for trial in status["trials"]}
    assert {trial["number"]: trial["state"] for trial in page["trials"]} == states


def test_the_curves_of_a_trial_are_the_values_that_pruning_compares(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "one", tiny_recipe, [[*MODULES]], epochs=5)
    run.evaluation_path.mkdir()
    with run.evaluations_path.open("w") as file:
        for epochs, value in (((4, 4), 0.8), ((5, 4), 0.5), ((5, 5), 0.6), ((5, 5), 0.7)):
            by_module = dict(zip(MODULES, epochs, strict=True))
            line = {"versions": by_module, "epochs": by_module, "metrics": {"mean": value}, "at": 1.0}
            file.write(json.dumps(line) + "\n")
    for module in MODULES:
        publisher = Publisher(run.store(module), "a-writer")
        for epoch in (1, 2):
            publisher.publish({"state.pt": b"s"}, epoch=epoch, step=10 * epoch, metrics={"loss": 1 / epoch})
    for metric, values in (("mean", {4: 0.8, 5: 0.6}), ("generator.loss", {1: 1.0, 2: 0.5})):
        assert read_curves(run, metric)[metric] == values_by_epoch(run, metric) == values


def test_the_page_has_the_descriptions_of_all_states(tmp_path: Path) -> None:
    with served(tmp_path) as one:
        text = one.get("/").text
    states = json.loads(text.partition('id="states">')[2].partition("</script>")[0])
    assert states == DESCRIPTIONS
