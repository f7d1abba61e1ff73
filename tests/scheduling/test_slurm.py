"""Launches on a real Slurm of three nodes: to the end, cancelled, requeued, out of time, told to stop, refused."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modtrain.scheduling.standalone_worker import are_all_expected
from modtrain.storage import filesystem
from modtrain.storage.evaluations import evaluations
from modtrain.storage.run import Run
from tests.support import SUPPORT
from tests.support.command import Said, ended, start, typed, until
from tests.support.runs import finish, make_run, weights_of
from tests.support.slurm import Queued, Slurm

pytestmark = pytest.mark.timeout(900)  # jobs wait for jobs, and the cores may be busy

TINY = SUPPORT / "tiny.py"
JOINT = ("--nodes", 1)
LONG = ("--batches", 300, "--pause-s", 0.4)
"""Minutes of training, as long as it is slowed down."""
HELD = "--directive=--hold"
"""Waits in the queue until somebody releases it."""
HOSTILE = "a; rm -rf $HOME 'x\"y"

THREE = """
import dataclasses, importlib.util, sys

spec = importlib.util.spec_from_file_location("tiny_of_three", {tiny!r})
sys.modules["tiny_of_three"] = tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

def critic_loss(nets, batch, params):
    return {{"loss": nets.critic(batch["real"]).square().mean()}}

critic = dataclasses.replace(tiny.recipe.modules["discriminator"], loss=critic_loss, reads=("discriminator",))
recipe = dataclasses.replace(tiny.recipe, modules={{**tiny.recipe.modules, "critic": critic}})
"""


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
        """Slurm's ids, worker by worker."""
        record = self.path / "jobs" / "jobs.json"
        says = json.loads(record.read_text())["jobs"] if record.exists() else {}
        return [job["id"].rpartition("@")[2] for _, job in sorted(says.items())]

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
        """Where a worker is, as its heartbeat says."""
        return int(self.run.heartbeat(self.run.modules[worker]).get("step", 0))

    def published(self, worker: int) -> int:
        """The step of a worker's newest version, which can be gone on from."""
        newest = self.run.store(self.run.modules[worker]).latest()
        assert newest is not None
        assert newest.full
        return newest.step

    def trains(self) -> bool:
        """Whether every worker is past its first steps, as its heartbeat says."""
        beats = [self.run.heartbeat(module) for module in self.run.modules]
        return all(beat.get("state") == "training" and beat.get("step", 0) > 0 for beat in beats)

    def until_finished(self, timeout_s: float = 300) -> None:
        until(lambda: self.run.is_finished(self.run.modules), timeout_s)
        for job in self.jobs:
            self.slurm.until_over(job)

    def status(self) -> dict[str, Any]:
        said = typed("status", self.path, "--json")
        assert said.code == 0, said.err
        found: dict[str, Any] = json.loads(said.out)
        return found

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
        said = typed(*self.words(name, *more, recipe=recipe))
        assert said.code == 0, said.err + said.out
        return self.found(name)

    def found(self, name: str) -> Launched:
        return Launched(self.root / name, self.slurm)

    def slowed(self, name: str) -> Path:
        """A copy of the tiny recipe that makes its pauses only as long as there is a file `slowly` beside it."""
        path = self.root / f"recipe of {name}" / "tiny.py"
        path.parent.mkdir()
        path.with_name("slowly").touch()
        pause = 'time.sleep(self.params.pause_s if Path(__file__).with_name("slowly").exists() else 0)'
        text = TINY.read_text().replace("time.sleep(self.params.pause_s)", pause)
        path.write_text(text.replace("import torch\n", "from pathlib import Path\n\nimport torch\n", 1))
        return path

    def hurry(self, name: str) -> None:
        """Let a run that is slowed down go on as fast as it can."""
        (self.root / f"recipe of {name}" / "slowly").unlink()


@pytest.fixture(scope="module")
def cluster(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(slurm, tmp_path_factory.mktemp("the runs"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """The weights of a joint run that nobody interrupted."""

    def weights(**values: Any) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("reference")
        run = make_run(folder / "run", TINY, [["generator", "discriminator"]], **values)
        finish(run)
        return weights_of(run)

    return weights


@pytest.fixture(scope="module")
def three(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Launched, Said]:
    """Three modules that take all three nodes until `short` waits for one, and what was said at their launch."""
    recipe = tmp_path_factory.mktemp("recipe") / "three.py"
    recipe.write_text(THREE.format(tiny=str(cluster.slowed("three"))))
    words = cluster.words("three", "--cpus", 2, "--pause-s", 3, "--walltime", "00:10:00", recipe=recipe)
    return cluster.found("three"), typed(*words)


@pytest.fixture(scope="module")
def short(three: tuple[Launched, Said], cluster: Cluster) -> tuple[Launched, dict[str, Any]]:
    """Ten epochs of six seconds in jobs that leave after thirty; and its status while there was no node for it."""
    limits = ("--walltime", "00:01:00", "--publish-before-s", 30, "--exclude", "n[2-3]")
    run = cluster.launch("short", *JOINT, "--epochs", 10, "--pause-s", 0.6, *limits)
    until(lambda: run.job().reason in ("Resources", "Priority"))
    found = run.status()
    cluster.hurry("three")
    return run, found


@dataclass(frozen=True)
class Begun:
    """Runs of several tests, begun as soon as there is room, so that no test waits for its own begun."""

    signalled: Launched
    chain: Launched
    moved: subprocess.Popen[str]
    hostile: Launched
    by_hand: Launched
    shown: str


@pytest.fixture(scope="module")
def begun(three: tuple[Launched, Said], short: tuple[Launched, Any], cluster: Cluster, home: Path) -> Iterator[Begun]:
    three[0].until_finished()
    signalled = cluster.launch("signalled", *LONG, "--exclude", "n[1,3]", recipe=cluster.slowed("signalled"))
    for job in signalled.jobs:
        cluster.slurm.until_running(job)
    moved = start(*cluster.words("moved", *JOINT, *LONG, "--exclude", "n1", "--wait", recipe=cluster.slowed("moved")))
    place = cluster.found("moved")
    until(lambda: place.jobs)
    cluster.slurm.until_running(place.jobs[0])  # on n3: it must not take n2 while those that are signalled are away
    chained = (*JOINT, *LONG, "--chain", 3, "--exclude", "n[2-3]")
    chain = cluster.launch("chain", *chained, recipe=cluster.slowed("chain"))
    ten = (*JOINT, "--epochs", 10, "--prologue", 'export SAID="so  it is"', "--epilogue", 'echo "$SAID: $code"')
    hostile = Cluster(cluster.slurm, cluster.root / "100 %j $(touch canary) ä").launch(HOSTILE, *ten)
    elsewhere = Cluster(cluster.slurm, cluster.root / "back\\slash `touch canary`")
    shown = typed(*elsewhere.words(HOSTILE, *ten, "--dry-run"))
    by_hand = elsewhere.found(HOSTILE)
    assert by_hand.jobs == []
    cluster.slurm.run("sbatch", by_hand.path / "jobs" / "0.sh")
    yield Begun(signalled, chain, moved, hostile, by_hand, shown.out)
    moved.kill()
    moved.communicate()


@pytest.fixture(scope="module")
def nan(begun: Begun, cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """A launch of two workers of which one diverges, to be begun when there is room for both again."""
    process = start(*cluster.words("nan", "--nan-at", 12, "--batches", 100, "--pause-s", 0.1, "--chain", 2, "--wait"))
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that a script that is not careful would delete."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "precious").write_text("still here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


def test_a_launch_records_its_jobs_and_returns_and_nobody_has_to_stay(
    three: tuple[Launched, Said], short: tuple[Launched, Any]
) -> None:
    run, said = three
    assert said.code == 0, said.err
    assert "Jobs submitted; you can log out." in said.out
    assert [job in said.out for job in run.jobs] == [True] * 3
    run.until_finished()
    assert sorted(run.job(worker).node for worker in range(3)) == ["n1", "n2", "n3"]
    assert len(evaluations(run.run)) >= 1
    assert (run.status()["state"], run.states()) == ("finished", ["finished"] * 3)
    again = typed("launch", run.path)
    assert (again.code, "submitted" in again.out) == (0, False)


def test_a_job_without_a_node_is_queued_and_the_reason_is_said(short: tuple[Launched, dict[str, Any]]) -> None:
    run, found = short
    assert (found["state"], found["workers"][0]["state"]) == ("queued", "queued")
    assert found["workers"][0]["why"] in ("Resources", "Priority")
    assert found["workers"][0]["job"] == run.jobs[0]


def test_signals_make_workers_publish_and_go_on_and_one_that_is_cancelled_stays_away(
    begun: Begun, cluster: Cluster
) -> None:
    run, slurm = begun.signalled, cluster.slurm
    first, other = run.jobs
    until(run.trains)
    slurm.run("scancel", "--signal=USR2", "--batch", first)
    slurm.run("scancel", "--signal=TERM", "--full", other)
    steps = []
    for worker, job in enumerate(run.jobs):
        assert slurm.until(job, lambda found: found.state == "PENDING").restarts == 1
        assert [line[2] for line in run.journal("ended", worker)] == ["75"]
        steps.append(run.published(worker))
    until(lambda: run.trains() and all(run.step(worker) > steps[worker] > 0 for worker in (0, 1)))

    slurm.run("scancel", first)
    gone = slurm.until_over(first)
    assert (gone.state, gone.restarts) == ("CANCELLED", 1)
    assert run.log().count("published and left") == 2
    assert run.published(0) > steps[0]
    assert run.states() == ["preempted", "training"]
    said = typed("launch", run.path)
    assert said.code == 0, said.err
    assert "live already" in said.out
    assert (run.jobs[0] != first, run.jobs[1]) == (True, other)

    slurm.until_running(run.jobs[0])
    assert "Ended 2 jobs" in typed("cancel", run.path).out
    assert [run.job(worker).state for worker in (0, 1)] == ["CANCELLED"] * 2
    assert run.status()["state"] == "stopped"


def test_a_hostile_name_is_safe_and_a_script_that_is_submitted_by_hand_gives_the_same_run(
    begun: Begun, nan: subprocess.Popen[str], home: Path, reference: Any, cluster: Cluster
) -> None:
    weights = reference(epochs=10)
    for run in (begun.hostile, begun.by_hand):
        until(lambda run=run: run.run.is_finished(run.run.modules) and run.journal("ended"))  # type: ignore[misc]
        assert weights_of(run.run) == weights
        until(lambda run=run: "so  it is: 0\n" in run.log())  # type: ignore[misc]
        assert run.status()["state"] == "finished"
        assert len(evaluations(run.run)) == 1
    assert (home / "precious").read_text() == "still here"
    assert not [path for path in cluster.root.rglob("canary") if path.name == "canary"]
    assert not (Path.cwd() / "canary").exists()
    script = begun.by_hand.path / "jobs" / "0.sh"
    assert script.read_text() in begun.shown
    assert "Nothing was submitted" in begun.shown
    assert begun.by_hand.jobs == []


def test_a_launch_that_waits_ends_with_the_code_of_a_worker_that_failed_and_the_others_and_their_chains_end(
    nan: subprocess.Popen[str], cluster: Cluster
) -> None:
    said = ended(nan)
    assert said.code == 5, said.out + said.err
    assert "generator failed: 'loss' of generator became nan at step 12" in said.out
    run = cluster.found("nan")
    assert str(run.run.stop_requested()).startswith("generator failed:")
    for worker, code in enumerate((5, 3)):
        assert [cluster.slurm.until_over(link).exit_code for link in run.links(worker)] == [code, 0]
        assert [line[2] for line in run.journal("ended", worker)] == [str(code)]
    assert run.states() == ["failed", "stopped"]


def test_a_run_on_a_node_that_goes_down_goes_on_elsewhere_and_is_trained_once(
    begun: Begun, cluster: Cluster, reference: Any
) -> None:
    run, slurm = cluster.found("moved"), cluster.slurm
    until(lambda: run.jobs and run.trains())
    lost = run.job().node
    slurm.set_node(lost, "DOWN")
    try:
        slurm.until(run.jobs[0], lambda found: found.state == "PENDING" and found.restarts == 1)
        assert slurm.until_running(run.jobs[0]).node not in (lost, "n1")
    finally:
        slurm.set_node(lost, "RESUME")
    cluster.hurry("moved")
    said = ended(begun.moved)
    assert said.code == 0, said.out + said.err
    assert "mean" in said.out
    assert weights_of(run.run) == reference(params={"batches": 300})
    for module in run.run.modules:
        history = run.run.store(module).history()
        assert [checkpoint.version for checkpoint in history] == list(range(len(history)))
        assert sorted(history, key=lambda checkpoint: checkpoint.step) == list(history)
        writers = [checkpoint.writer for checkpoint in history]
        assert len(dict.fromkeys(writers)) == 2
        assert writers == sorted(writers, key=writers.index), "one after the other"


def test_a_chain_goes_on_link_by_link_and_ends_where_the_run_does(begun: Begun, cluster: Cluster) -> None:
    run, slurm = begun.chain, cluster.slurm
    links = run.links()
    assert len(links) == 3
    until(run.trains)
    slurm.run("scancel", "--signal=USR2", "--batch", links[0])
    assert slurm.until_over(links[0]).restarts == 0
    cluster.hurry("chain")
    run.until_finished()
    assert [slurm.until_over(link).exit_code for link in links] == [75, 0, 0]
    assert [line[1] for line in run.journal("started")] == links[:2]
    assert run.log().count("nothing to go on with") == 1
    assert run.states() == ["finished"]


def test_cancel_right_after_a_launch_takes_the_jobs_out_of_the_queue(cluster: Cluster) -> None:
    run = cluster.launch("withdrawn", HELD)
    waiting = typed("status", run.path)
    assert waiting.out.count("is queued as job") == 2
    assert "JobHeldUser" in waiting.out
    assert "queued and leave as they start" in typed("stop", run.path).out
    assert "Ended 2 jobs" in typed("cancel", run.path).out
    assert [run.job(worker).state for worker in (0, 1)] == ["CANCELLED"] * 2
    assert run.status()["state"] == "stopped"
    assert "has no live job" in typed("cancel", run.path).out


def test_a_worker_whose_peer_is_late_comes_back_later_and_ctrl_c_takes_what_waits_out_of_the_queue(
    cluster: Cluster,
) -> None:
    process = start(*cluster.words("late", HELD, "--wait", "--peer-timeout", 15))
    run, slurm = cluster.found("late"), cluster.slurm
    until(lambda: run.jobs)
    first, _ = run.jobs
    slurm.run("scontrol", "release", first)
    slurm.until(first, lambda found: found.state == "PENDING" and found.restarts == 1)
    assert "Waited 15 s for discriminator" in run.log()
    assert "Left to come back later." in run.log()
    assert run.run.stop_requested() is None
    assert run.states() == ["queued", "queued"]
    until(lambda: len(run.journal("started")) == 2 and run.run.heartbeat("generator").get("state") == "waiting")
    found = run.status()
    assert (found["state"], [worker["state"] for worker in found["workers"]]) == ("running", ["waiting", "queued"])
    assert are_all_expected(run.run)
    process.send_signal(signal.SIGINT)
    said = ended(process)
    assert said.code == 130, said.out + said.err
    assert (slurm.until_over(first).exit_code, run.job(1).state) == (3, "CANCELLED")
    assert not are_all_expected(run.run), "nobody waits for one whose job is gone"


def test_what_slurm_refuses_is_said_and_the_corrected_command_begins_the_same_run(cluster: Cluster) -> None:
    for options, why in (
        (("--queue", "nowhere"), "invalid partition specified: nowhere"),
        (("--memory-gb", 99), "Memory specification can not be satisfied"),
        (("--directive=--nodelist=n9",), "Invalid node name"),
    ):
        said = typed(*cluster.words("refused", *JOINT, *options))
        assert said.code == 2, said.out
        assert "sbatch did not take" in said.err
        assert why in said.err
        assert len(said.err.splitlines()) == 1
    again = typed("launch", cluster.root / "refused")
    assert (again.code, "Invalid node name" in again.err) == (2, True), "by Slurm again, and not on this machine"
    assert "stopped" in typed("status", cluster.root / "refused").out
    run = cluster.launch("refused", *JOINT, "--queue", "long", HELD)  # with other options than before
    assert run.states() == ["queued"]
    assert "Ended 1 job" in typed("cancel", run.path).out


def test_a_job_that_slurm_takes_but_can_never_place_is_seen_at_once(cluster: Cluster) -> None:
    said = typed(*cluster.words("too big", *JOINT, "--cpus", 99))
    assert (said.code, "PartitionConfig" in said.out) == (0, True)
    assert "PartitionConfig" in typed("status", cluster.root / "too big").out
    assert "Ended 1 job" in typed("cancel", cluster.root / "too big").out


def test_without_sbatch_a_launch_says_where_to_go_and_dry_run_still_writes_the_scripts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(cluster.root))
    said = typed(*cluster.words("nowhere"))
    assert said.code == 2
    assert "sbatch is not on this machine" in said.err
    assert typed(*cluster.words("nowhere", "--dry-run")).code == 0
    assert (cluster.root / "nowhere" / "jobs" / "1.sh").exists()


@pytest.mark.parametrize("taken", [1, 3])
def test_of_several_jobs_all_are_submitted_or_none(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """An `sbatch` that takes so many jobs and refuses the next, as a site's limit does; each worker has two here."""
    (tmp_path / "sbatch").write_text(
        f"#!/bin/bash\nPATH={shlex.quote(os.environ['PATH'])}\n"
        f'echo >>{tmp_path}/calls; [ "$(wc -l <{tmp_path}/calls)" -le {taken} ] && exec sbatch "$@"\n'
        'echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1\n'
    )
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = set(cluster.slurm.queue())
    said = typed(*cluster.words(f"half {taken}", HELD, "--chain", 2))
    assert said.code == 2
    assert "QOSMaxSubmitJobPerUserLimit" in said.err
    new = [job for id_, job in cluster.slurm.queue().items() if id_ not in before and job.name.startswith("half")]
    assert [job.state for job in new] == ["CANCELLED"] * taken
    assert cluster.found(f"half {taken}").jobs == []


def test_a_scheduler_that_does_not_answer_is_said_and_nothing_is_submitted_twice(
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
    assert (status.code, "not started" in status.out) == (8, True), "what the folder says is shown all the same"
    assert [said.code for said in refused] == [8, 8]
    for said in refused:
        assert "Unable to contact slurm controller" in said.err
    assert len(run.jobs) == 1
    assert run.states() == ["queued"]
    assert "Ended 1 job" in typed("cancel", run.path).out


def test_ten_epochs_under_a_time_limit_that_allows_some_end_finished_without_a_person(
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
    assert len(evaluations(run.run)) == 1
