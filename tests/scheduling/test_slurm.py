"""Launches on a real Slurm of three nodes: finished, cancelled, requeued, at the time limit, stopped, refused."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modtrain.cli.options import CHECKING
from modtrain.scheduling.standalone_worker import are_all_expected
from modtrain.storage import filesystem
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.run import Run
from tests.support import SUPPORT
from tests.support.command import Result, ended, start, typed, until
from tests.support.executable import executable
from tests.support.files import below
from tests.support.runs import finish, make_run, weights_of
from tests.support.slurm import Queued, Slurm
from tests.support.three import recipe_of_three

pytestmark = pytest.mark.timeout(900)  # jobs wait for jobs, and the cores may be busy

TINY = SUPPORT / "tiny.py"
JOINT = ("--nodes", 1)
LONG = ("--batches", 300, "--pause-s", 0.4)
"""Minutes of training, unless the recipe's pauses are switched off."""
HELD = "--directive=--hold"
"""Stays in the queue until it is released."""
HOSTILE = "a; rm -rf $HOME 'x\"y"


@dataclass(frozen=True)
class Launched:
    """A run on Slurm, and its jobs."""

    path: Path
    slurm: Slurm

    @property
    def run(self) -> Run:
        return Run.open(self.path)

    @property
    def jobs(self) -> list[str]:
        """Slurm's ids, by worker."""
        record = self.path / "jobs" / "jobs.json"
        jobs = json.loads(record.read_text())["jobs"] if record.exists() else {}
        return [job["id"].rpartition("@")[2] for _, job in sorted(jobs.items())]

    def job(self, worker: int = 0) -> Queued:
        return self.slurm.queue()[self.jobs[worker]]

    def log(self, worker: int = 0) -> str:
        return (self.path / "jobs" / f"{worker}.log").read_text()

    def journal(self, kind: str, worker: int = 0) -> list[list[str]]:
        """The lines of one kind that the job script wrote."""
        lines = filesystem.read_lines(self.path / "jobs" / f"{worker}.journal")
        return [line.split() for line in lines if line.startswith(f"{kind} ")]

    def links(self, worker: int = 0) -> list[str]:
        """The ids of a worker's chain."""
        return [self.jobs[worker], *(line[2] for line in self.journal("continued", worker))]

    def step(self, worker: int) -> int:
        """Step of a worker in its heartbeat."""
        return self.run.read_report(self.run.modules[worker]).step or 0

    def published(self, worker: int) -> int:
        """Step of a worker's newest version, which can be resumed."""
        newest = self.run.store(self.run.modules[worker]).latest()
        assert newest is not None
        assert newest.full
        return newest.step

    def trains(self) -> bool:
        """Whether the heartbeat of every worker reports steps."""
        reports = [self.run.read_report(module) for module in self.run.modules]
        return all(report.state == "running" and (report.step or 0) > 0 for report in reports)

    def until_finished(self, timeout_s: float = 300) -> None:
        until(lambda: self.run.is_finished(self.run.modules), timeout_s)
        for job in self.jobs:
            self.slurm.until_over(job)

    def status(self) -> dict[str, Any]:
        result = typed("status", self.path, "--json")
        assert result.code == 0, result.err
        status: dict[str, Any] = json.loads(result.out)
        return status

    def states(self) -> list[str]:
        return [worker["state"] for worker in self.status()["workers"]]


class Cluster:
    """Launches runs of the tiny recipe in one folder."""

    def __init__(self, slurm: Slurm, root: Path) -> None:
        self.slurm, self.root = slurm, root

    def words(self, name: str, *more: object, recipe: Path = TINY) -> list[object]:
        where = ["--backend", "slurm", "--root", self.root, "--name", name, "--poll-s", 0.5]
        return ["launch", "--recipe", recipe, *where, *more]

    def launch(self, name: str, *more: object, recipe: Path = TINY) -> Launched:
        result = typed(*self.words(name, *more, recipe=recipe))
        assert result.code == 0, result.err + result.out
        return self.launched(name)

    def launched(self, name: str) -> Launched:
        return Launched(self.root / name, self.slurm)

    def slowed(self, name: str) -> Path:
        """A copy of the tiny recipe that pauses only while there is a file `slowly` beside it."""
        path = self.root / f"recipe of {name}" / "tiny.py"
        path.parent.mkdir()
        path.with_name("slowly").touch()
        pause = 'time.sleep(self.params.pause_s if Path(__file__).with_name("slowly").exists() else 0)'
        text = TINY.read_text().replace("time.sleep(self.params.pause_s)", pause)
        path.write_text(text.replace("import torch\n", "from pathlib import Path\n\nimport torch\n", 1))
        return path

    def speed_up(self, name: str) -> None:
        """End the pauses of a slowed run."""
        (self.root / f"recipe of {name}" / "slowly").unlink()


@pytest.fixture(scope="module")
def cluster(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(slurm, tmp_path_factory.mktemp("the runs"))


@pytest.fixture(autouse=True)
def logs(cluster: Cluster) -> Iterator[None]:
    """The ends of all logs of jobs, which pytest shows with a failure."""
    yield
    for path in sorted(cluster.root.glob("*/jobs/*.[jl]o*")):  # journals and logs
        logging.warning("%s:\n%s", path, path.read_text(errors="replace")[-2000:])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """The weights of a joint run without interruptions."""

    def weights(**values: Any) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("reference")
        run = make_run(folder / "run", TINY, [["generator", "discriminator"]], **values)
        finish(run)
        return weights_of(run)

    return weights


@pytest.fixture(scope="module")
def three(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Launched, Result]:
    """A run of three modules that uses all nodes until `short` waits for one, and the output of its launch."""
    recipe = recipe_of_three(tmp_path_factory.mktemp("recipe") / "three.py", cluster.slowed("three"))
    words = cluster.words("three", "--cpus", 2, "--pause-s", 3, "--walltime", "00:10:00", recipe=recipe)
    return cluster.launched("three"), typed(*words)


@pytest.fixture(scope="module")
def short(three: tuple[Launched, Result], cluster: Cluster) -> tuple[Launched, dict[str, Any]]:
    """Ten epochs of six seconds in jobs that leave after thirty, and its status while no node was free."""
    limits = ("--walltime", "00:01:00", "--publish-before-s", 30, "--exclude", "n[2-3]")
    run = cluster.launch("short", *JOINT, "--epochs", 10, "--pause-s", 0.6, *limits)
    until(lambda: run.job().reason in ("Resources", "Priority"))
    status = run.status()
    cluster.speed_up("three")
    return run, status


@dataclass(frozen=True)
class Runs:
    """Runs of several tests, launched as soon as nodes are free, so that each test waits less."""

    signalled: Launched
    chain: Launched
    moved: subprocess.Popen[str]
    hostile: Launched
    by_hand: Launched
    shown: str


@pytest.fixture(scope="module")
def runs(three: tuple[Launched, Result], short: tuple[Launched, Any], cluster: Cluster, home: Path) -> Iterator[Runs]:
    three[0].until_finished()
    signalled = cluster.launch("signalled", *LONG, "--exclude", "n[1,3]", recipe=cluster.slowed("signalled"))
    for job in signalled.jobs:
        cluster.slurm.until_running(job)
    moved = start(*cluster.words("moved", *JOINT, *LONG, "--exclude", "n1", "--wait", recipe=cluster.slowed("moved")))
    place = cluster.launched("moved")
    until(lambda: place.jobs)
    cluster.slurm.until_running(place.jobs[0])  # on n3: it must not use n2 while the signalled jobs are requeued
    chained = (*JOINT, *LONG, "--chain", 3, "--exclude", "n[2-3]")
    chain = cluster.launch("chain", *chained, recipe=cluster.slowed("chain"))
    ten = (*JOINT, "--epochs", 10, "--prologue", 'export SAID="so  it is"', "--epilogue", 'echo "$SAID: $code"')
    hostile = Cluster(cluster.slurm, cluster.root / "100 %j $(touch canary) ä").launch(HOSTILE, *ten)
    elsewhere = Cluster(cluster.slurm, cluster.root / "back\\slash `touch canary`")
    shown = typed(*elsewhere.words(HOSTILE, *ten, "--dry-run"))
    by_hand = elsewhere.launched(HOSTILE)
    assert by_hand.jobs == []
    cluster.slurm.run("sbatch", by_hand.path / "jobs" / "0.sh")
    yield Runs(signalled, chain, moved, hostile, by_hand, shown.out)
    moved.kill()
    moved.communicate()


@pytest.fixture(scope="module")
def nan(runs: Runs, cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """A launch of two workers, one of which diverges; started when nodes are free for both."""
    process = start(*cluster.words("nan", "--nan-at", 12, "--batches", 100, "--pause-s", 0.1, "--chain", 2, "--wait"))
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder that a script with wrong quoting would delete."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "precious").write_text("still here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


def test_a_launch_records_its_jobs_and_returns_while_they_run_to_the_end(
    three: tuple[Launched, Result], short: tuple[Launched, Any]
) -> None:
    run, result = three
    assert result.code == 0, result.err
    assert "Jobs submitted; you can log out." in result.out
    assert [job in result.out for job in run.jobs] == [True] * 3
    run.until_finished()
    assert sorted(run.job(worker).node for worker in range(3)) == ["n1", "n2", "n3"]
    assert len(read_evaluations(run.run.evaluations_path)) >= 1
    assert (run.status()["state"], run.states()) == ("finished", ["finished"] * 3)
    again = typed("launch", run.path)
    assert (again.code, "No job had to be submitted." in again.out) == (0, True)


def test_status_shows_a_job_without_a_node_as_queued_with_the_reason(short: tuple[Launched, dict[str, Any]]) -> None:
    run, status = short
    assert (status["state"], status["workers"][0]["state"]) == ("queued", "queued")
    assert status["workers"][0]["why"] in ("Resources", "Priority")
    assert status["workers"][0]["job"] == run.jobs[0]


def test_workers_publish_and_continue_after_a_signal_and_do_not_continue_after_a_cancel(
    runs: Runs, cluster: Cluster
) -> None:
    run, slurm = runs.signalled, cluster.slurm
    first, other = run.jobs
    until(run.trains)
    slurm.run("scancel", "--signal=USR2", "--batch", first)
    slurm.run("scancel", "--signal=TERM", "--full", other)
    steps = []
    for worker, job in enumerate(run.jobs):
        assert slurm.until(job, lambda job: job.state == "PENDING").restarts == 1
        assert [line[2] for line in run.journal("ended", worker)] == ["75"]
        steps.append(run.published(worker))
    until(lambda: run.trains() and all(run.step(worker) > steps[worker] > 0 for worker in (0, 1)))

    slurm.run("scancel", first)
    gone = slurm.until_over(first)
    assert (gone.state, gone.restarts) == ("CANCELLED", 1)
    assert run.log().count("published and left") == 2
    assert run.published(0) > steps[0]
    assert run.states() == ["preempted", "running"]
    result = typed("launch", run.path)
    assert result.code == 0, result.err
    assert "live already" in result.out
    assert (run.jobs[0] != first, run.jobs[1]) == (True, other)

    slurm.until_running(run.jobs[0])
    assert "Ended 2 jobs" in typed("cancel", run.path).out
    assert [run.job(worker).state for worker in (0, 1)] == ["CANCELLED"] * 2
    assert run.status()["state"] == "cancelled"


def test_a_hostile_name_is_safe_and_a_script_submitted_by_hand_trains_the_same_weights(
    runs: Runs, nan: subprocess.Popen[str], home: Path, reference: Any, cluster: Cluster
) -> None:
    weights = reference(epochs=10)
    for run in (runs.hostile, runs.by_hand):
        until(lambda run=run: run.run.is_finished(run.run.modules) and run.journal("ended"))  # type: ignore[misc]
        assert weights_of(run.run) == weights
        until(lambda run=run: "so  it is: 0\n" in run.log())  # type: ignore[misc]
        assert run.status()["state"] == "finished"
        assert [record.epoch for record in read_evaluations(run.run.evaluations_path)] == list(range(1, 11))
    assert (home / "precious").read_text() == "still here"
    assert not below(cluster.root, "canary")
    assert not (Path.cwd() / "canary").exists()
    script = runs.by_hand.path / "jobs" / "0.sh"
    assert script.read_text() in runs.shown
    assert "Nothing was submitted" in runs.shown
    assert runs.by_hand.jobs == []


def test_a_launch_that_waits_returns_the_exit_code_of_a_failed_worker_and_ends_the_others_and_their_chains(
    nan: subprocess.Popen[str], cluster: Cluster
) -> None:
    result = ended(nan)
    assert result.code == 5, result.out + result.err
    assert "generator failed: 'loss' of generator became nan at step 12" in result.out
    run = cluster.launched("nan")
    stop = run.run.stop_request()
    assert stop is not None
    assert (stop.kind, stop.sender) == ("worker_failed", "generator")
    for worker, code in enumerate((5, 3)):
        assert [cluster.slurm.until_over(link).exit_code for link in run.links(worker)] == [code, 0]
        assert [line[2] for line in run.journal("ended", worker)] == [str(code)]
    assert run.states() == ["failed", "stopped"]


def test_a_run_whose_node_goes_down_continues_on_another_node_and_repeats_nothing(
    runs: Runs, cluster: Cluster, reference: Any
) -> None:
    run, slurm = cluster.launched("moved"), cluster.slurm
    until(lambda: run.jobs and run.trains())
    lost = run.job().node
    slurm.set_node(lost, "DOWN")
    try:
        slurm.until(run.jobs[0], lambda job: job.state == "PENDING" and job.restarts == 1)
        assert slurm.until_running(run.jobs[0]).node not in (lost, "n1")
    finally:
        slurm.set_node(lost, "RESUME")
    cluster.speed_up("moved")
    result = ended(runs.moved)
    assert result.code == 0, result.out + result.err
    assert "mean" in result.out
    assert weights_of(run.run) == reference(params={"batches": 300})
    for module in run.run.modules:
        history = run.run.store(module).history()
        assert [checkpoint.version for checkpoint in history] == list(range(len(history)))
        assert sorted(history, key=lambda checkpoint: checkpoint.step) == list(history)
        writers = [checkpoint.writer for checkpoint in history]
        assert len(dict.fromkeys(writers)) == 2
        assert writers == sorted(writers, key=writers.index), "one writer after the other"


def test_a_chain_continues_the_run_job_by_job_and_ends_with_it(runs: Runs, cluster: Cluster) -> None:
    run, slurm = runs.chain, cluster.slurm
    links = run.links()
    assert len(links) == 3
    until(run.trains)
    slurm.run("scancel", "--signal=USR2", "--batch", links[0])
    assert slurm.until_over(links[0]).restarts == 0
    cluster.speed_up("chain")
    run.until_finished()
    assert [slurm.until_over(link).exit_code for link in links] == [75, 0, 0]
    assert [line[1] for line in run.journal("started")] == links[:2]
    assert run.log().count("nothing to continue") == 1
    assert run.states() == ["finished"]


def test_cancel_right_after_a_launch_removes_the_jobs_from_the_queue(cluster: Cluster) -> None:
    run = cluster.launch("withdrawn", HELD)
    waiting = typed("status", run.path)
    assert waiting.out.count("is queued as job") == 2
    assert "JobHeldUser" in waiting.out
    assert "queued and exit once they start" in typed("stop", run.path).out
    assert "Ended 2 jobs" in typed("cancel", run.path).out
    assert [run.job(worker).state for worker in (0, 1)] == ["CANCELLED"] * 2
    assert run.status()["state"] == "cancelled"
    assert "has no live job" in typed("cancel", run.path).out


def test_a_worker_whose_peer_is_queued_for_long_is_requeued_and_ctrl_c_removes_queued_jobs(
    cluster: Cluster,
) -> None:
    process = start(*cluster.words("late", HELD, "--wait", "--peer-timeout", 15))
    run, slurm = cluster.launched("late"), cluster.slurm
    until(lambda: run.jobs)
    first, _ = run.jobs
    slurm.run("scontrol", "release", first)
    slurm.until(first, lambda job: job.state == "PENDING" and job.restarts == 1)
    assert "Waited 15 s for discriminator" in run.log()
    assert "Left to come back later." in run.log()
    assert run.run.stop_request() is None
    assert run.states() == ["queued", "queued"]
    until(lambda: len(run.journal("started")) == 2 and run.run.read_report("generator").state == "waiting")
    status = run.status()
    assert (status["state"], [worker["state"] for worker in status["workers"]]) == ("running", ["waiting", "queued"])
    assert are_all_expected(run.run)
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.code == 130, result.out + result.err
    assert (slurm.until_over(first).exit_code, run.job(1).state) == (3, "CANCELLED")
    assert not are_all_expected(run.run), "a worker whose job is gone is not waited for"


def test_the_message_of_sbatch_is_shown_and_the_corrected_command_starts_the_same_run(cluster: Cluster) -> None:
    for options, why in (
        (("--queue", "nowhere"), "invalid partition specified: nowhere"),
        (("--memory-gb", 99), "Memory specification can not be satisfied"),
        (("--directive=--nodelist=n9",), "Invalid node name"),
    ):
        result = typed(*cluster.words("refused", *JOINT, *options))
        assert result.code == 2, result.out
        *notes, message = result.err.splitlines()
        assert notes in ([CHECKING], [])  # the run exists after the first refusal
        assert "sbatch refused" in message
        assert why in message
    again = typed("launch", cluster.root / "refused")
    assert (again.code, "Invalid node name" in again.err) == (2, True), (
        "it is submitted to Slurm again, not run on this machine"
    )
    assert "created" in typed("status", cluster.root / "refused").out
    run = cluster.launch("refused", *JOINT, "--queue", "long", HELD)  # with other options than before
    assert run.states() == ["queued"]
    assert "Ended 1 job" in typed("cancel", run.path).out


def test_launch_shows_at_once_that_slurm_can_never_place_a_job(cluster: Cluster) -> None:
    result = typed(*cluster.words("too big", *JOINT, "--cpus", 99))
    assert (result.code, "PartitionConfig" in result.out) == (0, True)
    assert "PartitionConfig" in typed("status", cluster.root / "too big").out
    assert "Ended 1 job" in typed("cancel", cluster.root / "too big").out


def test_launch_without_sbatch_is_an_error_with_advice_and_dry_run_still_writes_the_scripts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cluster.root))
    result = typed(*cluster.words("nowhere"))
    assert result.code == 2
    assert "sbatch is not on this machine" in result.err
    assert typed(*cluster.words("nowhere", "--dry-run")).code == 0
    assert (cluster.root / "nowhere" / "jobs" / "1.sh").exists()


@pytest.mark.parametrize("taken", [1, 3])
def test_all_jobs_of_a_launch_are_submitted_or_none(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """With an `sbatch` that accepts `taken` jobs and refuses the next, as at a site's limit; a worker has two jobs."""
    executable(
        tmp_path / "sbatch",
        f"PATH={shlex.quote(os.environ['PATH'])}\n"
        f'echo >>{tmp_path}/calls; [ "$(wc -l <{tmp_path}/calls)" -le {taken} ] && exec sbatch "$@"\n'
        'echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = set(cluster.slurm.queue())
    result = typed(*cluster.words(f"half {taken}", HELD, "--chain", 2))
    assert result.code == 2
    assert "QOSMaxSubmitJobPerUserLimit" in result.err
    new = [job for id_, job in cluster.slurm.queue().items() if id_ not in before and job.name.startswith("half")]
    assert [job.state for job in new] == ["CANCELLED"] * taken
    assert cluster.launched(f"half {taken}").jobs == []


def test_an_unreachable_scheduler_is_an_error_and_nothing_is_submitted_twice(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cluster.launch("unreachable", *JOINT, HELD)
    config = (cluster.slurm.folder / "slurm.conf").read_text().splitlines()
    lines = [line if not line.startswith("SlurmctldPort=") else "SlurmctldPort=1" for line in config]
    (tmp_path / "slurm.conf").write_text("\n".join([*lines, "MessageTimeout=2", ""]))
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        status = typed("status", run.path)
        refused = [typed("launch", run.path), typed(*cluster.words("unreachable too", *JOINT))]
    assert (status.code, "queued" in status.out) == (8, True), "the state in the folder is shown all the same"
    assert [result.code for result in refused] == [8, 8]
    for result in refused:
        assert "Unable to contact slurm controller" in result.err
    assert len(run.jobs) == 1
    assert run.states() == ["queued"]
    assert "Ended 1 job" in typed("cancel", run.path).out


def test_a_machine_that_belongs_to_no_cluster_is_a_scheduler_that_does_not_answer(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "sbatch: fatal: Could not establish a configuration source"
    executable(tmp_path / "bin" / "sbatch", f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    result = typed("launch", "--recipe", tiny_recipe, "--root", tmp_path, "--backend", "slurm", "--nodes", 1)
    assert (result.code, message in result.err) == (8, True)


def test_a_run_longer_than_its_time_limit_finishes_without_intervention(
    short: tuple[Launched, Any], reference: Any, slurm: Slurm
) -> None:
    run, _ = short
    run.until_finished()
    assert weights_of(run.run) == reference(epochs=10)
    assert run.job().restarts >= 2
    assert len(run.journal("started")) == run.job().restarts + 1
    assert [line[2] for line in run.journal("ended")] == [*["75"] * run.job().restarts, "0"]
    assert run.job().state == "COMPLETED"
    assert "The job's time ends: published and left" in run.log()
    assert [record.epoch for record in read_evaluations(run.run.evaluations_path)] == list(range(1, 11))
