"""Launching what is launched already, what has ended, and what was begun otherwise."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import Diverged, InputError, ModtrainError, StopRequested
from modtrain.scheduling.backends.base import BackendOptions, JobState, python_path
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_record import JobId, Record, worker_jobs
from modtrain.scheduling.launcher import Launch, launch
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage.liveness import launcher_pid
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.storage.run_state import worker_states
from tests.support.command import ended, start
from tests.support.launches import LONG, is_final, pid_after, to_the_end
from tests.support.runs import finish, make_run, start_worker

PLACEMENT = [["generator"], ["discriminator"]]


def local(run: Run) -> Launch:
    return Launch(run, "local", BackendOptions(profile=Profile(cpus=1)))


def test_a_second_launch_adopts_what_lives_and_submits_nothing(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT, params=LONG)
    first, second = local(run), local(run)
    assert len(first.start()) == 2
    assert second.start() == []
    assert [member.id for member in second.members] == [member.id for member in first.members]
    to_the_end(second)
    assert second.outcome() == 0
    assert is_final(run)
    assert local(run).start() == []


def test_a_launcher_that_took_over_tells_how_far_the_workers_are(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT, params={"pause_s": 0.1}, epochs=500)
    first = start("launch", run.path, "--backend", "local")
    pids = {module: pid_after(run, module, steps=1) for module in run.modules}
    first.kill()
    first.communicate()
    second = start("launch", run.path, "--backend", "local")
    assert second.stdout
    output = ""
    while "generator" not in output or "running" not in output:
        output = second.stdout.readline()
        assert output, second.communicate()
    run.request_stop("seen")
    assert ended(second).code == 3
    assert {module: run.read_report(module).process.pid for module in run.modules} == pids


def test_a_launch_on_another_backend_adopts_what_lives_on_the_first(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT, params=LONG)
    first, second = local(run), Launch(run, "ray", BackendOptions())
    try:
        first.start()
        assert second.start() == []
    finally:
        first.cancel()


def test_only_what_is_missing_is_submitted(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT, params={"batches": 3})
    finish(run)
    (run.store("discriminator").folder(run.store("discriminator").versions()[-1])).rename(tmp_path / "lost")
    again = local(run)
    assert [member.name for member in again.start()] == ["discriminator"]
    to_the_end(again)
    assert again.outcome() == 0


def test_a_run_that_a_live_process_launches_is_refused(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        us = {"host": socket.gethostname(), "pid": other.pid, "started": process_started(other.pid)}
        (run.path / "jobs").mkdir()
        (run.path / "jobs" / "launcher.json").write_text(json.dumps(us))
        with pytest.raises(InputError, match=f"already launched by process {other.pid}"):
            local(run).start()
        other.kill()
    started = local(run)
    assert len(started.start()) == 2
    started.cancel()


def test_a_worker_that_was_started_by_hand_is_not_doubled(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.scheduling.launcher_lock.EXIT_S", 0.1)
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT, params=LONG)
    with start_worker(run, "generator") as worker:
        try:
            pid_after(run, "generator", steps=0)
            with pytest.raises(InputError, match="already being trained"):
                local(run).start()
        finally:
            worker.kill()
    assert not (run.path / "jobs" / "jobs.json").exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_when_it_is_launched_again(tmp_path: Path, tiny_recipe: Path) -> None:
    joint = [["generator", "discriminator"]]
    run = make_run(tmp_path / "run", tiny_recipe, joint, params=LONG)
    started = local(run)
    started.start()
    pid_after(run, "generator", steps=0)
    run.request_stop("enough")
    to_the_end(started)
    assert started.outcome() == 3
    assert not is_final(run)
    again = local(run)
    again.start()
    assert run.stop_request() is None
    to_the_end(again)
    assert again.outcome() == 0
    assert is_final(run)


def test_a_stop_while_the_jobs_are_being_submitted_is_obeyed(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT)
    started = local(run)
    monkeypatch.setattr(Run, "clear_stop", lambda self: self.request_stop("just now"))
    assert started.start() == []
    to_the_end(started)
    assert started.outcome() == 3


def test_a_run_begun_otherwise_is_refused_with_the_differences(tmp_path: Path, tiny_recipe: Path) -> None:
    config: dict[str, Any] = {"recipe": str(tiny_recipe), "root": str(tmp_path), "name": "run", "nodes": 1}
    made = plan_run(find_target(Config(**config))).write()
    finish(made)
    assert plan_run(find_target(Config(**config))).run == made
    with pytest.raises(InputError, match=r"epochs is 3, not 2; lr is 0.01, not 0.5"):
        launch(Config(**config, epochs=2, params={"lr": 0.5}))


def test_a_run_in_which_nothing_was_published_takes_the_settings_of_the_corrected_command(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    config: dict[str, Any] = {"recipe": str(tiny_recipe), "root": str(tmp_path), "name": "run", "nodes": 1}
    wrong = launch_fails(Config(**config, params={"batches": 2, "lr": -1.0}, backend="local", check=False))
    assert wrong.spec.params["lr"] == -1.0
    run = launch(Config(**config, params={"batches": 2}, backend="local"))
    assert (run.path, run.spec.params["lr"]) == (wrong.path, 0.01)
    assert run.is_finished(run.modules)


def launch_fails(config: Config) -> Run:
    with pytest.raises(ModtrainError):
        launch(config)
    return Run.open(Path(config.root) / str(config.name))


def test_launch_is_a_function_for_scripts(tmp_path: Path, tiny_recipe: Path) -> None:
    config = Config(recipe=str(tiny_recipe), root=str(tmp_path), backend="local", nodes=1, params={"batches": 2})
    run = launch(config)
    assert run.name == "tiny-1"
    assert is_final(run)
    assert launcher_pid(run.path) is None, "this process may live on, but the launch is over"


def test_launch_does_not_return_a_run_that_was_stopped(tmp_path: Path, tiny_recipe: Path) -> None:
    config = Config(
        recipe=str(tiny_recipe), root=str(tmp_path), name="run", nodes=1, params=LONG, epochs=50, backend="local"
    )
    run = plan_run(find_target(config)).write()
    with ThreadPoolExecutor() as threads:
        launched = threads.submit(launch, config)
        pid_after(run, "generator", 1)
        run.request_stop("enough")
        with pytest.raises(StopRequested, match=r"run was stopped \(enough.*launch it to resume it"):
            launched.result()


@pytest.mark.slow
def test_launch_raises_what_a_worker_failed_of(tmp_path: Path, tiny_recipe: Path) -> None:
    config = Config(recipe=str(tiny_recipe), root=str(tmp_path), backend="local", nodes=1)
    with pytest.raises(Diverged, match=r"generator\+discriminator failed: .*nan"):
        launch(config.model_copy(update={"params": {"batches": 2, "nan_at": 1}, "check": False}))


def test_a_finished_run_is_over_at_once(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]], params={"batches": 2})
    finish(run)
    started = local(run)
    assert started.start() == []
    assert to_the_end(started) == []
    assert started.outcome() == 0


def test_a_job_that_ended_without_a_report_failed_or_not_by_its_exit_code(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT)
    journals = [run.jobs_path / f"{number}.journal" for number in range(2)]
    run.jobs_path.mkdir()
    for journal, code in zip(journals, (1, 137), strict=True):
        journal.write_text(f"started 7 n1 1\nended 7 {code} 2\n")
    jobs = {number: JobId("slurm", f"{journal}@7") for number, journal in enumerate(journals)}
    Record(backend="slurm", jobs=jobs).write(run)
    monkeypatch.setattr(
        "modtrain.scheduling.job_record.job_states", lambda run: dict.fromkeys(jobs, JobState(phase="ended"))
    )
    assert worker_states(read_snapshot(run, jobs=worker_jobs(run))) == ["failed", "lost"]
    run.request_stop("cancelled", kind="cancelled")
    assert worker_states(read_snapshot(run, jobs=worker_jobs(run))) == ["cancelled", "cancelled"]


WITH_A_SLOW_MODULE = """
from pathlib import Path
import dataclasses, importlib.util, sys, time
spec = importlib.util.spec_from_file_location("tiny", {tiny!r})
tiny = importlib.util.module_from_spec(spec)
sys.modules["tiny"] = tiny
spec.loader.exec_module(tiny)

def slow(nets, batch, params):
    time.sleep(0.2)
    return {{"loss": nets.costly(batch["real"]).square().mean()}}

costly = dataclasses.replace(tiny.recipe.modules["discriminator"], loss=slow, reads=())
recipe = dataclasses.replace(tiny.recipe, modules={{"costly": costly, **tiny.recipe.modules}})
"""


def test_modules_are_grouped_by_costs_that_another_process_measures(tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = tmp_path / "three.py"
    recipe.write_text(WITH_A_SLOW_MODULE.format(tiny=str(tiny_recipe)))
    plan = plan_run(find_target(Config(recipe=str(recipe), root=str(tmp_path / "runs"), nodes=2)))
    assert plan.run.spec.placement == [["costly"], ["generator", "discriminator"]]


ON_RAY = """
import sys
import tempfile
from modtrain.scheduling.launcher import Launch
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.profile import Profile
from modtrain.storage.run import Run

run = Run.open(sys.argv[1])
launch = Launch(run, "ray", BackendOptions(profile=Profile(cpus=1)))
launch.start()
for _ in launch.watch(print):
    pass
sys.exit(launch.outcome())
"""


def test_ray_without_a_cluster_is_an_instance_of_our_own_that_nobody_else_reaches_and_that_leaves_nothing(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, PLACEMENT, params=LONG | {"pause_s": 0.2})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | python_path()
    environment["TMPDIR"] = temporary = tempfile.mkdtemp(dir="/tmp")  # short, as Ray's sockets need it; and ours alone
    code = "import signal; signal.signal(signal.SIGINT, lambda *_: None)\n" + ON_RAY
    command = [sys.executable, "-c", code, str(run.path)]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as launcher:
        pid = pid_after(run, "generator", steps=5)
        pid_after(run, "discriminator", steps=5)
        ports = listening(temporary)
        assert len(ports) > 3
        assert not {address for address in ports if not re.match(r"0*(FFFF0000)?0100007F:", address)}
        os.killpg(launcher.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
        time.sleep(1)
        assert pid_after(run, "generator", steps=5) == pid
        run.request_stop("Ctrl-C")
        result, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 3, result
    assert result == ""
    assert list(Path(temporary).glob("modtrain-ray-*")) == []
    shutil.rmtree(temporary)
    assert [run.read_report(module).state for module in run.modules] == ["stopped", "stopped"]


def listening(temporary: str) -> set[str]:
    """The TCP addresses that the processes with this TMPDIR listen on, as the kernel writes them."""
    sockets = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is over meanwhile
            if f"TMPDIR={temporary}\0".encode() in (process / "environ").read_bytes():
                sockets |= {str(link.readlink()) for link in (process / "fd").iterdir()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}
