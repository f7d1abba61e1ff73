"""`launch`, `status`, `stop` and `worker` as real processes on the local backend."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modtrain.cli import main
from modtrain.cli.launch_view import LaunchView
from modtrain.monitoring.status import build_status
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.launcher import Launch
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from tests.support import SUPPORT
from tests.support.command import Terminal, ended, start
from tests.support.runs import finish, make_run

PAINTING = SUPPORT / "painting.py"
CHECKING = "Checking the recipe; --no-check leaves this out."
LONG = ("--epochs", 500, "--pause-s", 0.05)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("the runs")


@pytest.fixture(scope="module")
def launch(tiny_recipe: Path, root: Path) -> Callable[..., tuple[object, ...]]:
    def words(name: str, *more: object, recipe: Path = tiny_recipe) -> tuple[object, ...]:
        return ("launch", "--recipe", recipe, "--backend", "local", "--root", root, "--name", name, *more)

    return words


@pytest.fixture(scope="module")
def finished(root: Path, launch: Callable[..., tuple[object, ...]]) -> tuple[Path, str]:
    """A run of two workers that reached its end, and what its launcher printed."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["modtrain", *map(str, launch("finished", recipe=PAINTING))])
        with pytest.raises(SystemExit) as left:
            main()
        out.seek(0)
        printed = out.read()
    assert left.value.code == 0, printed
    return root / "finished", printed


def wait_for(ready: Callable[[], Any], timeout_s: float = 90) -> Any:
    value = filesystem.wait_until(lambda: ready() or None, timeout_s=timeout_s)
    assert value
    return value


def training(path: Path) -> bool:
    """Whether every module has come past its first steps."""
    if not (path / "run.json").exists():
        return False
    run = Run.open(path)
    return all((run.read_report(module).step or 0) > 0 for module in run.modules)


def test_a_launch_prints_lines_then_metrics_the_grid_and_the_time(finished: tuple[Path, str]) -> None:
    out = finished[1]
    assert out.startswith("finished  painting.py, 2 epochs, 2 workers on local\n")
    for expected in ("painter    ", "critic    ", "finished\n", "score  ", "not finite", "took  "):
        assert expected in out
    grid = next(line.split(None, 1)[1].strip() for line in out.splitlines() if line.startswith("grid"))
    assert Path(grid).read_bytes().startswith(b"\x89PNG")
    assert "\x1b" not in out


def test_status_is_a_table_for_people_and_json_for_programs(finished: tuple[Path, str], type_: Terminal) -> None:
    status = json.loads(type_("status", finished[0], "--json").out)
    assert {key: status[key] for key in ("run", "recipe", "state")} == {
        "run": "finished",
        "recipe": str(PAINTING),
        "state": "finished",
    }
    painter = status["modules"]["painter"]
    assert (painter["version"], painter["epoch"], painter["epochs"], painter["step"]) == (2, 2, 2, 10)
    assert (painter["state"], painter["worker"], set(painter["metrics"])) == ("finished", 0, {"loss"})
    assert set(painter["peers"]["critic"]) >= {"version", "epoch", "behind"}
    assert painter["published_at"].endswith("Z")
    table = type_("status", finished[0]).out
    assert "painter" in table
    assert " critic v" in table
    assert "2/2   10" in table
    assert max(map(len, table.splitlines()[3:])) <= 80


def test_a_launch_whose_reader_leaves_goes_on_to_its_end(launch: Callable[..., tuple[object, ...]], root: Path) -> None:
    with start(*launch("unread", "--epochs", 1, "--nodes", 1)) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "unread  tiny.py, 1 epoch, 1 worker on local\n"
        process.stdout.close()
        assert (process.wait(timeout=300), process.stderr.read()) == (0, f"{CHECKING}\n")
    run = Run.open(root / "unread")
    assert run.is_finished(run.modules)


def test_launching_a_finished_run_again_starts_nothing(
    finished: tuple[Path, str], launch: Callable[..., tuple[object, ...]], type_: Terminal
) -> None:
    files = [finished[0] / "jobs/0.log", finished[0] / "evaluation/metrics.jsonl"]
    before = [file.read_bytes() for file in files], Run.open(finished[0]).store("painter").versions()
    assert type_(*launch("finished", recipe=PAINTING)).code == 0
    again = type_("launch", finished[0])
    assert (again.code, "score  " in again.out) == (0, True)
    assert ([file.read_bytes() for file in files], Run.open(finished[0]).store("painter").versions()) == before


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_closing_words_of_a_launch_name_what_was_trained_against_an_old_peer(
    evaluated: bool, tiny_recipe: Path, tmp_path: Path, type_: Terminal
) -> None:
    recipe = tmp_path / "own.py"
    recipe.write_text(tiny_recipe.read_text().replace("" if evaluated else "    evaluate=evaluate,\n", ""))
    run = make_run(tmp_path / "run", recipe, [["generator", "discriminator"]], epochs=3)
    finish(run)
    store = run.store("generator")
    newest = store.latest()
    assert newest is not None
    against = replace(newest, peers={"discriminator": {"versions": [0], "epoch": 0}})
    (store.folder(newest.version) / "meta.json").write_bytes(against.seal())
    result = type_("launch", run.path, "--backend", "local")
    assert result.code == 0, result.err
    words = " ".join(result.out.split())
    assert ("no metrics" in words) != evaluated
    assert "! generator is at epoch 3 and trained last against discriminator of epoch 0." in words
    assert "or set max_staleness in a new run, so that generator waits for it." in words


def test_the_time_that_a_launch_took_is_that_of_the_command(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    LaunchView(Launch(Run.open(finished[0]), "local", BackendOptions()), time.monotonic() - 3600).print_result()
    assert "took  1 h 0 min\n" in capsys.readouterr().out


def test_options_that_contradict_the_run_are_listed(
    finished: tuple[Path, str], launch: Callable[..., tuple[object, ...]], type_: Terminal
) -> None:
    result = type_(*launch("finished", "--epochs", 1, "--painter.lr", 3, "--nodes", 1, recipe=PAINTING))
    assert result.code == 2
    for difference in ("epochs is 2, not 1", "painter.lr is 0.001, not 3.0", "nodes is 2, not 1", "another --name"):
        assert difference in result.err
    assert "contradicts the run" in type_("launch", finished[0], "--name", "other").err


def test_a_worker_takes_exactly_one_group_of_the_placement(finished: tuple[Path, str], type_: Terminal) -> None:
    result = type_("worker", finished[0], "--modules", "painter,critic")
    assert result.code == 2
    assert "its placement is painter | critic" in result.err
    assert "Did you mean 'painter'?" in type_("worker", finished[0], "--modules", "paintr").err
    assert "Give --modules" in type_("worker", finished[0]).err


def test_stopping_a_finished_run_says_so(finished: tuple[Path, str], type_: Terminal) -> None:
    assert "nothing to stop" in type_("stop", finished[0]).out
    assert not (finished[0] / "stop").exists()


def test_a_run_that_has_only_begun_can_be_looked_at(
    tmp_path: Path, finished: tuple[Path, str], type_: Terminal
) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half/run.json").write_bytes((finished[0] / "run.json").read_bytes())
    (tmp_path / "half/modules/painter/checkpoints/00000000").mkdir(parents=True)
    (tmp_path / "half/modules/painter/heartbeat.json").write_text("{torn")
    status = json.loads(type_("status", tmp_path / "half", "--json").out)
    assert (status["state"], status["modules"]["painter"]["state"]) == ("created", "created")
    assert "created" in type_("status", tmp_path / "half").out


def test_nan_ends_the_launch_with_its_own_code_and_the_reason(
    launch: Callable[..., tuple[object, ...]], type_: Terminal
) -> None:
    result = type_(*launch("nan", "--nodes", 1, "--nan-at", 12))
    assert result.code == 5
    assert "generator+discriminator failed: 'loss' of generator became nan at step 12" in result.out
    assert "worker.log" in result.out


def test_a_recipe_that_fails_in_the_worker_is_said(
    tmp_path: Path, launch: Callable[..., tuple[object, ...]], type_: Terminal
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(PAINTING.read_text().replace("nn.Conv2d(3, 3, 1)", "nn.Conv2d(3, 3, 1 // 0)"))
    result = type_(*launch("broken", "--nodes", 1, "--no-check", recipe=broken))
    assert result.code == 1
    assert "ZeroDivisionError" in result.out


def test_detached_it_returns_at_once_and_stop_ends_it(
    root: Path, launch: Callable[..., tuple[object, ...]], type_: Terminal
) -> None:
    result = ended(start(*launch("detached", "--nodes", 1, *LONG, "--detach")))
    assert result.code == 0, result.err
    assert "is running in the background" in result.out
    path = root / "detached"
    wait_for(lambda: training(path))
    assert json.loads(type_("status", path, "--json").out)["state"] == "running"
    again = type_("launch", path)
    assert again.code == 2
    assert "is already launched" in again.err
    assert "Asked the workers of detached" in type_("stop", path, "--reason", "enough").out
    wait_for(lambda: build_status(read_snapshot(Run.open(path)))["state"] == "stopped")
    wait_for(lambda: "Stopped (enough)" in (path / "jobs/launch.log").read_text())
    assert "detached was stopped (enough) already." in type_("stop", path).out


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_device_that_this_machine_lacks_is_refused_before_anything_is_created(
    root: Path, tiny_recipe: Path, type_: Terminal, backend: str
) -> None:
    for command in (["launch"], ["sweep", "--vary", "lr=0.1,0.2"]):
        words = [
            "--recipe",
            tiny_recipe,
            "--root",
            root,
            "--name",
            "no-gpu",
            "--device",
            "cuda:99",
            "--backend",
            backend,
        ]
        refused = type_(*command, *words)
        assert (refused.code, "--device cuda:99 is not available" in refused.err) == (2, True)
    assert not (root / "no-gpu").exists()


def test_ctrl_c_publishes_and_a_second_launch_goes_on(root: Path, launch: Callable[..., tuple[object, ...]]) -> None:
    process = start(*launch("interrupted", "--nodes", 1, *LONG))
    wait_for(lambda: training(root / "interrupted"))
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.code == 130, result.out + result.err
    assert "Stop requested: the workers publish and exit." in result.out
    assert f"`modtrain launch {root / 'interrupted'}` resumes it." in result.out
    step = Run.open(root / "interrupted").store("generator").latest()
    assert step is not None
    assert step.full

    process = start("launch", root / "interrupted")
    wait_for(lambda: Run.open(root / "interrupted").read_report("generator").state == "running")
    process.send_signal(signal.SIGTERM)
    result = ended(process)
    assert result.code == 75, result.out + result.err
    assert "on local" in result.out  # as it was launched before
    newest = Run.open(root / "interrupted").store("generator").latest()
    assert newest is not None
    assert newest.step >= step.step


def test_a_second_ctrl_c_ends_the_workers_at_once(root: Path, launch: Callable[..., tuple[object, ...]]) -> None:
    process = start(*launch("impatient", "--nodes", 1, *LONG))
    wait_for(lambda: training(root / "impatient"))
    pid = Run.open(root / "impatient").read_report("generator").process.pid
    os.kill(pid, signal.SIGSTOP)  # it cannot obey
    process.send_signal(signal.SIGINT)
    wait_for(lambda: (root / "impatient/stop").exists())
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.code == 130, result.out + result.err
    assert "Ending all workers now" in result.out
    assert wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_a_new_unnamed_run_is_made_but_the_unfinished_one_of_before_is_named(tmp_path: Path, type_: Terminal) -> None:
    run = make_run(tmp_path / "painting-1", PAINTING, [["painter", "critic"]])
    words = ["launch", "--recipe", PAINTING, "--root", tmp_path, "--dry-run"]
    result = type_(*words)
    assert "painting-2" in result.out
    assert "painting-1 is not finished" in result.err
    finish(run)
    assert "not finished" not in type_(*words).err


def test_a_root_that_is_a_file_is_said(tmp_path: Path, type_: Terminal) -> None:
    (tmp_path / "file").write_text("")
    result = type_("launch", "--recipe", PAINTING, "--root", tmp_path / "file", "--dry-run")
    assert (result.code, "is a file, but must be a folder" in result.err) == (2, True)
