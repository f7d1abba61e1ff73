"""Launches of real runs on local and ray: a killed worker is started again as if nothing had happened."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modtrain.cli.launch_view import LaunchView
from modtrain.errors import RunMoved
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.status import build_status
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.launcher import Launch
from modtrain.scheduling.profile import Profile
from modtrain.storage import filesystem
from modtrain.storage.liveness import launcher_path
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from tests.support.faults import Faults
from tests.support.launches import LONG, is_final, pid_after, to_the_end
from tests.support.runs import finish, make_run, weights_of

RAY_SLOWLY = ["local", pytest.param("ray", marks=pytest.mark.slow)]
LOCAL_SLOWLY = [pytest.param("local", marks=pytest.mark.slow), "ray"]


@pytest.fixture
def launched(request: pytest.FixtureRequest) -> Callable[[Run], Launch]:
    """A launch of a run on each backend, one thread a worker."""
    name: str = request.param
    address = request.getfixturevalue("raylets").address if name == "ray" else None
    return lambda run: Launch(run, name, BackendOptions(address=address, profile=Profile(cpus=1)))


@pytest.mark.parametrize("launched", RAY_SLOWLY, indirect=True)
def test_a_run_whose_only_worker_is_killed_ends_with_the_very_weights_of_one_that_was_not(
    launched: Callable[[Run], Launch], tmp_path: Path, tiny_recipe: Path
) -> None:
    joint = [["generator", "discriminator"]]
    undisturbed = make_run(tmp_path / "undisturbed", tiny_recipe, joint, params={"batches": 20})
    finish(undisturbed)
    run = make_run(tmp_path / "killed", tiny_recipe, joint, params=LONG)
    launch = launched(run)
    launch.start()
    os.kill(pid_after(run, "generator", steps=20), signal.SIGKILL)
    to_the_end(launch)
    assert launch.outcome() == 0
    assert weights_of(run) == weights_of(undisturbed)
    assert len({checkpoint.writer for checkpoint in run.store("generator").history()}) == 2


@pytest.mark.parametrize("launched", LOCAL_SLOWLY, indirect=True)
def test_every_worker_may_be_killed_and_the_run_still_finishes(
    launched: Callable[[Run], Launch], tmp_path: Path, tiny_recipe: Path
) -> None:
    placement = [["generator"], ["discriminator"]]
    run = make_run(tmp_path / "run", tiny_recipe, placement, params=LONG, exchange_every=5)
    launch = launched(run)
    launch.start()
    for module in run.modules:
        os.kill(pid_after(run, module, steps=5), signal.SIGKILL)
    to_the_end(launch)
    assert launch.outcome() == 0
    assert is_final(run)
    assert [run.read_report(module).state for module in run.modules] == ["finished", "finished"]


def test_the_progress_of_a_launch_does_not_fall_below_what_a_killed_worker_has_published(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], params=LONG, exchange_every=5)
    launch = Launch(run, "local", BackendOptions(profile=Profile(cpus=1)))
    view = LaunchView(launch, time.monotonic())
    launch.start()
    is_killed, after = False, []
    for _ in launch.watch(lambda message: None):
        newest, last = (run.store(module).latest() for module in run.modules)  # the last one is published last
        status, total = view.status(), run.spec.epochs * LONG["batches"]
        assert status["progress"] >= (last.step / total if last else 0.0), status
        if is_killed:
            after.append(status)
        elif newest and newest.step >= 25:
            os.kill(pid_after(run, "generator", steps=25), signal.SIGKILL)
            is_killed = True
    assert launch.outcome() == 0
    assert [member.restarts for member in launch.members] == [1]
    restarting = [status for status in after if status["state"] == "starting"]
    assert restarting
    assert {status["left_s"] for status in restarting} == {None}
    assert after[-1]["progress"] == 1.0


@pytest.mark.parametrize(("number", "most"), [(errno.EIO, 3), (errno.ESTALE, 40)])
def test_a_launcher_whose_storage_does_not_answer_says_so_once_and_goes_on(
    number: int, most: int, tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], epochs=1)
    launch = Launch(run, "local", BackendOptions(profile=Profile(cpus=1)))
    launch.start()
    faults = Faults(run.path, lambda _, call: call.startswith("listdir"), number, most=most)
    faults.install(monkeypatch)
    messages = to_the_end(launch)
    assert len(faults.hits) == most
    assert messages == [f"{os.strerror(number)} ({run.path})"]
    assert launch.outcome() == 0
    assert is_final(run)


def test_a_run_that_is_moved_while_it_trains_ends_its_launch_at_once_and_says_so_where_it_is_now(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator"], ["discriminator"]], epochs=500, params=LONG)
    launch = Launch(run, "local", BackendOptions(profile=Profile(cpus=1)))
    launch.start()
    processes = [(pid_after(run, module, steps=1), run.read_report(module).process) for module in run.modules]
    moved = Run.open(run.path.rename(tmp_path / "elsewhere"))
    messages: list[str] = []
    with pytest.raises(RunMoved, match="no longer holds a run: it was moved or deleted"):
        for _ in launch.watch(messages.append):
            pass
    launch.release()
    assert messages == [], "no restart that cannot be"
    assert not run.path.exists()
    # A fork is gone a moment after the process that stands for it.
    assert filesystem.wait_until(
        lambda: not any(process.is_running() for _, process in processes) or None, timeout_s=10
    )
    launcher_path(moved.path).unlink()  # of this process, as if it had ended
    status = build_status(read_snapshot(moved))
    assert [worker["state"] for worker in status["workers"]] == ["lost", "lost"]
    for alarm, (pid, process) in zip(find_alarms(status), processes, strict=True):
        assert alarm.says == (
            f"{alarm.module} died without a report ({process.host}, process {pid}): it trained in {run.path}, and a "
            "run that is moved ends its workers."
        )
        assert f"`modtrain launch {moved.path}` resumes it" in alarm.do


@pytest.mark.parametrize("launched", RAY_SLOWLY, indirect=True)
def test_a_worker_that_diverges_makes_the_others_publish_and_leave_and_its_exit_code_is_the_launch_s(
    launched: Callable[[Run], Launch], tmp_path: Path, tiny_recipe: Path
) -> None:
    placement = [["generator"], ["discriminator"]]
    values: dict[str, Any] = {"params": {"batches": 10, "nan_at": 12}, "max_staleness": 0}
    run = make_run(tmp_path / "run", tiny_recipe, placement, **values)
    launch = launched(run)
    launch.start()
    output = to_the_end(launch)
    assert launch.outcome() == 5
    assert [member.exit_code for member in launch.members] == [5, 3]
    assert "generator failed" in str(run.stop_request())
    assert any("generator failed" in sentence for sentence in output)


def test_a_worker_that_is_killed_while_the_run_is_stopped_is_not_started_again(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], params=LONG)
    launch = Launch(run, "local", BackendOptions(profile=Profile(cpus=1)))
    launch.start()
    pid = pid_after(run, "generator", steps=0)
    run.request_stop("enough")
    os.kill(pid, signal.SIGKILL)
    to_the_end(launch)
    assert [member.restarts for member in launch.members] == [0]
    assert launch.outcome() != 0
