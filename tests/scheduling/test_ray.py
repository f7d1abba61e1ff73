"""The ray backend and launches on several nodes: spreading, lost nodes, and jobs that do not fit."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import BackendSilent, InputError, ModtrainError
from modtrain.scheduling.backends import ray as ray_backend
from modtrain.scheduling.backends.base import BackendOptions, Job, JobState, Resources
from modtrain.scheduling.backends.ray import RayBackend, cluster
from modtrain.scheduling.backends.ray.placement_groups import bundle_for, share
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run
from tests.support.command import ended, start, until
from tests.support.launches import is_final, pid_after
from tests.support.raylets import NODE, SLOWLY, check_resumed, new_run, node_of, raylet_of, until_all_is_free

NODE_OF = """
import os, time
raylet = open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]
print(raylet, flush=True)
time.sleep(600)
"""
"""Prints the raylet that is the parent of the actor, which identifies its node."""


def jobs(folder: Path, count: int, **resources: Any) -> list[Job]:
    command = (sys.executable, "-c", NODE_OF)
    return [
        Job(
            name=f"{folder.name}.{number}",
            command=command,
            log=folder / f"{number}.log",
            resources=Resources(**resources),
        )
        for number in range(count)
    ]


def output_of(job: Job) -> list[str]:
    return job.log.read_text().split() if job.log.exists() else []


def nodes_of(job: Job, at_least: int = 1) -> list[str]:
    """The words of a job's log, as soon as there are enough."""
    until(lambda: len(output_of(job)) >= at_least, timeout_s=60)
    return output_of(job)


def test_workers_are_spread_over_the_nodes_and_a_lost_node_s_worker_moves_to_another(
    raylets: Any, tmp_path: Path
) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    until_all_is_free(raylets)
    wanted = jobs(tmp_path, 3)
    ids = backend.submit(wanted)
    try:
        at_first = [nodes_of(job)[0] for job in wanted]
        assert len(set(at_first)) == 3
        lost = next(node for node in raylets.worker_nodes if raylet_of(node) in at_first)
        moved = at_first.index(raylet_of(lost))
        raylets.remove_node(lost, allow_graceful=False)
        raylets.add_node(**NODE)
        assert nodes_of(wanted[moved], at_least=2)[1] != at_first[moved]
        assert [len(nodes_of(job)) for job in wanted] == [2 if number == moved else 1 for number in range(3)]
        until(lambda: backend.status(ids) == dict.fromkeys(ids, JobState(phase="running")), timeout_s=30)
    finally:
        backend.cancel(ids)


def test_a_command_dies_with_its_actor_and_is_restarted_by_the_next_actor(raylets: Any, tmp_path: Path) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    code = "import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(600)"
    job = Job(name=tmp_path.name, command=(sys.executable, "-c", code), log=tmp_path / "0.log")
    ids = backend.submit([job])
    try:
        actor, command = (int(pid) for pid in nodes_of(job, at_least=2))
        os.kill(actor, signal.SIGKILL)
        other, *_ = nodes_of(job, at_least=4)[2:]
        assert int(other) != actor
        assert not Path(f"/proc/{command}/fd/1").exists()
    finally:
        backend.cancel(ids)


def test_more_workers_than_cpus_share_them(raylets: Any, tmp_path: Path) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    until_all_is_free(raylets)
    wanted = jobs(tmp_path, 5, cpus=4)
    ids = backend.submit(wanted)
    try:
        assert len({nodes_of(job)[0] for job in wanted}) == 3
    finally:
        backend.cancel(ids)


def test_a_running_job_is_not_submitted_again_and_an_ended_one_gets_its_node_back(raylets: Any, tmp_path: Path) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    first, second = jobs(tmp_path, 2)
    ids = backend.submit([first, second])
    try:
        nodes = [nodes_of(first)[0], nodes_of(second)[0]]
        backend.cancel(ids[1:])
        assert backend.submit([first, second]) == ids
        assert nodes_of(second, at_least=2) == [nodes[1], nodes[1]]
        assert nodes_of(first) == [nodes[0]]
    finally:
        backend.cancel(ids)


def test_a_run_of_the_same_name_in_another_folder_is_another_job(raylets: Any, tmp_path: Path) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    (ours,) = jobs(tmp_path, 1)
    theirs = Job(name=ours.name, command=ours.command, log=tmp_path / "elsewhere" / "0.log")
    ids = backend.submit([theirs])
    try:
        nodes_of(theirs)
        ids += backend.submit([ours])
        nodes_of(ours)
        assert len(nodes_of(theirs)) == 1
        assert all(state.live for state in backend.status(ids).values())
    finally:
        backend.cancel(ids)


def test_a_full_cluster_is_an_error_after_a_limited_wait(
    raylets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    ids = backend.submit(jobs(tmp_path, 4))
    monkeypatch.setattr("modtrain.scheduling.backends.ray.PLACE_S", 1.0)
    (tmp_path / "other").mkdir()
    try:
        with pytest.raises(InputError, match="no room for 4 workers"):
            backend.submit(jobs(tmp_path / "other", 4))
    finally:
        backend.cancel(ids)


def test_jobs_submitted_one_by_one_are_spread_like_jobs_submitted_together(raylets: Any, tmp_path: Path) -> None:
    backend = RayBackend(BackendOptions(address=raylets.address))
    until_all_is_free(raylets)
    wanted = jobs(tmp_path, 3, concurrent_jobs=3)
    ids = [id for job in wanted for id in backend.submit([job])]
    try:
        assert len({nodes_of(job)[0] for job in wanted}) == 3
    finally:
        backend.cancel(ids)


LAUNCHER = """
import sys, time
from pathlib import Path
from modtrain.scheduling.backends.base import BackendOptions, Job
from modtrain.scheduling.backends.ray import RayBackend, cluster
address, name, log = sys.argv[1:]
command = (sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
RayBackend(BackendOptions(address=address)).submit([Job(name=name, command=command, log=Path(log))])
time.sleep(600)
"""


def test_the_commands_of_a_launcher_that_is_killed_end(raylets: Any, tmp_path: Path) -> None:
    words = [raylets.address, tmp_path.name, str(tmp_path / "0.log")]
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, *words], start_new_session=True) as launcher:
        (pid,) = nodes_of(Job(name=words[1], command=(), log=Path(words[2])))
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
    until(lambda: not process_started(int(pid)), timeout_s=30)


def test_a_cluster_that_does_not_answer_is_an_error_until_it_answers_again(
    raylets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.scheduling.backends.ray.STATUS_S", 0.5)
    backend = RayBackend(BackendOptions(address=raylets.address))
    unknown = "nobody@/nowhere/0.log"
    assert backend.status([unknown]) == {unknown: JobState(phase="unknown")}
    head = raylets.head_node.all_processes["gcs_server"][0].process.pid
    os.kill(head, signal.SIGSTOP)
    try:
        with pytest.raises(BackendSilent, match=f"Ray cluster at {raylets.address} does not answer"):
            backend.status([unknown])
    finally:
        os.kill(head, signal.SIGCONT)
    monkeypatch.setattr("modtrain.scheduling.backends.ray.STATUS_S", 30)
    assert backend.status([unknown]) == {unknown: JobState(phase="unknown")}


INSTANCE = """
import sys
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.backends.ray import RayBackend, cluster
print(RayBackend(BackendOptions()).cores(1))
"""


def test_an_instance_of_the_launch_starts_with_a_long_temporary_folder_and_leaves_no_files(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    assert len(str(tmp_path)) > 40
    command = [sys.executable, "-c", INSTANCE]
    done = subprocess.run(command, env=environment | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("available", "count", "wanted", "part"),
    [([16], 3, 4, 4), ([2], 3, 1, 2 / 3), ([1, 1], 3, 1, 0.5), ([8, 1], 3, 4, 8 / 3), ([0], 1, 1, 0), ([], 1, 1, 0)],
)
def test_the_largest_share_that_fits_every_job_is_used(
    available: list[float], count: int, wanted: float, part: float
) -> None:
    assert share(available, count, wanted) == pytest.approx(part)


def test_reservations_leave_room_for_the_workers_of_a_lost_node(tmp_path: Path) -> None:
    assert bundle_for([16, 16, 16], [0, 0, 0], jobs(tmp_path, 3, cpus=16)) == {"CPU": 8}
    assert bundle_for([16], [0], jobs(tmp_path, 3, cpus=5)) == {"CPU": 5}
    assert bundle_for([16, 16, 16], [0, 0, 0], jobs(tmp_path, 1, cpus=16, concurrent_jobs=4)) == {"CPU": 8}


@pytest.mark.parametrize(
    ("gpus", "count", "part"), [([4], 3, 1), ([2], 3, 0.5), ([1, 1], 3, 0.5), ([1], 3, 0.3333), ([0], 3, None)]
)
def test_gpus_are_shared_equally(tmp_path: Path, gpus: list[float], count: int, part: float | None) -> None:
    bundle = bundle_for([8.0] * len(gpus), gpus, jobs(tmp_path, count, gpus=1.0))
    assert bundle.get("GPU") == part


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_an_address_where_nothing_listens_is_an_error_at_once(address: str) -> None:
    backend = RayBackend(BackendOptions(address=address))
    for ask in (
        lambda: backend.check("auto"),
        lambda: backend.cores(1),
        lambda: backend.status(["run.module@/run/jobs/0.log"]),
    ):
        with pytest.raises(InputError, match=f"no Ray cluster at {address}"):
            ask()


def test_a_cluster_without_a_cpu_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CPU"):
        bundle_for([0.0], [0.0], jobs(tmp_path, 1))


@pytest.mark.slow
def test_the_worker_of_a_lost_node_moves_to_another_node_and_resumes(
    raylets: Any, tmp_path: Path, tiny_recipe: Path
) -> None:
    until_all_is_free(raylets)
    where = ("--root", tmp_path, "--name", "run", "--address", raylets.address)
    launcher = start("launch", "--recipe", tiny_recipe, *where, *SLOWLY)
    run = new_run(tmp_path / "run")
    at_first = {node_of(pid_after(run, module, steps=12)): module for module in run.modules}
    assert len(at_first) == 2
    lost = next(node for node in raylets.worker_nodes if raylet_of(node) in at_first)
    moved = at_first[raylet_of(lost)]
    raylets.remove_node(lost, allow_graceful=False)
    try:
        result = ended(launcher)
    finally:
        raylets.add_node(**NODE)
    assert result.code == 0, result
    assert is_final(run)
    check_resumed(run, moved)


@pytest.mark.slow
def test_a_launch_in_the_background_follows_the_run_on_a_cluster_to_its_end(
    raylets: Any, tmp_path: Path, tiny_recipe: Path
) -> None:
    until_all_is_free(raylets)
    where = ("--root", tmp_path, "--name", "run", "--address", raylets.address)
    result = ended(start("launch", "--recipe", tiny_recipe, "--detach", *where, *SLOWLY))
    assert result.code == 0, result
    assert "in the background" in result.out
    run = Run.open(tmp_path / "run")
    launcher = int(result.out.partition("(process ")[2].partition(")")[0])
    assert len({node_of(pid_after(run, module, steps=1)) for module in run.modules}) == 2
    until(lambda: is_final(run) and not process_started(launcher))
    assert [run.read_report(module).state for module in run.modules] == ["finished", "finished"]


def test_a_node_that_does_not_start_in_time_on_a_busy_machine_is_one_sentence_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray
    import ray._private.node

    busy = "within {} s: other programs keep it busy. Launch again when it has less to do, or with --backend local"
    source = inspect.getsource(ray._private.node)
    [own_words] = re.findall(r'"(The current node timed out during startup)\. This', source)

    def fail(**options: Any) -> None:
        raise Exception(f"{own_words}. This could happen because the GCS has become overloaded.")

    with monkeypatch.context() as patch:
        patch.setattr(ray, "init", fail)
        with pytest.raises(ModtrainError, match=busy.format(30)):
            cluster._start_instance()
        shutil.rmtree(cluster._FOLDERS.pop())
    monkeypatch.setattr(ray_backend, "JOIN_S", 0.0)
    monkeypatch.setattr(ray_backend, "CLOSE_S", 0.0)
    with pytest.raises(ModtrainError, match=busy.format(0)):
        ray_backend.Driver(None)
