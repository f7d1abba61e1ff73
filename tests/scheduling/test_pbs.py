"""Runs on PBS with real workers, by Torque's commands on a real Slurm and on a fake PBS Pro.

The contract of every backend is tested in test_backend_contract.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modtrain.cli.options import CHECKING
from modtrain.scheduling.backends.pbs import PbsBackend
from modtrain.storage.filesystem import read_lines
from modtrain.storage.run import Run
from tests.support import SUPPORT
from tests.support.command import Result, typed, until
from tests.support.executable import executable
from tests.support.fake_pbs import Cluster, FakePbs, fake_pbs
from tests.support.files import below
from tests.support.launches import pid_after
from tests.support.peaked import EARLY, check_ended_early, peaked_stages
from tests.support.runs import finish, make_run, weights_of

pytestmark = pytest.mark.timeout(900)  # jobs wait for jobs, and the cores may be busy
TINY = SUPPORT / "tiny.py"
LONG = ("--epochs", 500, "--set", "pause_s=0.05")
"""A run that is not trained to its end."""
SLOWLY = ("--set", "pause_s=0.9", "--publish-before-s", 45)
LIMIT = (*SLOWLY, "--walltime", "00:01:30")
"""45 s for each job including its start, enough for three or four epochs, and another 45 s before the server kills it,
as leaving takes long where the cores are busy."""
BY_QUEUE = (*SLOWLY, "--queue", "short")
"""The same, with a time limit that only the queue sets."""
JOINT = ("--nodes", 1)
SHORT = ("--epochs", 8, "--set", "pause_s=0.1")
"""Eight seconds: heartbeats come every two, and tests act on one before the run ends."""
HOSTILE = "a; rm -rf $HOME 'x\"y"


TORQUE_SLOWLY = ["pbspro", pytest.param("torque", marks=pytest.mark.slow)]
PBSPRO_SLOWLY = [pytest.param("pbspro", marks=pytest.mark.slow), "torque"]


@dataclass(frozen=True)
class Site:
    """A cluster, and a folder of runs."""

    dialect: str
    root: Path

    def launch(self, name: str, *options: object) -> Result:
        return typed("launch", "--backend", "pbs", "--recipe", TINY, "--root", self.root, "--name", name, *options)

    def sweep(self, name: str, *options: object) -> Result:
        """A sweep with one job per trial."""
        how = ("--backend", "pbs", "--recipe", TINY, "--root", self.root, "--name", name, "--nodes-per-trial", 1)
        return typed("sweep", *how, *options)

    def launched(self, name: str, *options: object) -> tuple[Run, list[str]]:
        """Launch a run; the run and the ids of its jobs."""
        result = self.launch(name, *options)
        assert result.code == 0, result
        run = Run.open(self.root / name)
        return run, [ids_of(result)["+".join(placed)] for placed in run.spec.placement]


@pytest.fixture(scope="module")
def pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    """A fake PBS Pro of nine nodes; see tests/support/fake_pbs."""
    shape = Cluster(nodes=9, kill_delay_s=5, queues=("workq", "short"), limits={"short": "00:01:30"})
    with fake_pbs(tmp_path_factory.mktemp("pbs") / "pro", shape) as cluster:
        yield cluster


@pytest.fixture
def pro(pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The fake PBS Pro as a user's site."""
    monkeypatch.setenv("PATH", pbs.env["PATH"])
    return Site("pbspro", tmp_path / "runs")


@pytest.fixture(params=["pbspro", "torque"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Both dialects."""
    if request.param == "torque":
        request.getfixturevalue("slurm")
        return Site("torque", tmp_path / "runs")
    pro: Site = request.getfixturevalue("pro")
    return pro


def ids_of(result: Result) -> dict[str, str]:
    """The ids that a launch prints, by worker."""
    return dict(re.findall(r"^  (\S+) +(?:submitted|live already) +(\S+)", result.out, re.MULTILINE))


def status(run: Run) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(typed("status", run.path, "--json").out)
    return status


def states(run: Run) -> list[str]:
    """States of the workers, then of the run."""
    snapshot = status(run)
    return [*(worker["state"] for worker in snapshot["workers"]), snapshot["state"]]


def until_finished(run: Run, timeout_s: float = 300) -> None:
    """Wait until every worker has finished; assert that none fails."""

    def all_finished() -> bool:
        reports = [run.read_report(module) for module in run.modules]
        assert not [report for report in reports if report.state == "failed"], reports
        return all(report.state == "finished" for report in reports)

    until(all_finished, timeout_s)
    until(lambda: states(run)[-1] == "finished")


def links(run: Run, worker: int = 0) -> list[str]:
    """Ids of the jobs that continued a worker's first one."""
    lines = read_lines(run.path / "jobs" / f"{worker}.journal")
    return [line.split()[2] for line in lines if line.startswith("continued ")]


def undisturbed(path: Path, **values: Any) -> dict[str, str]:
    """The weights of a run without interruptions."""
    run = make_run(path, TINY, [["generator", "discriminator"]], **values)
    finish(run)
    return weights_of(run)


def call(*command: object, folder: Path | None = None) -> str:
    """Run a command that succeeds; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0, (command, done)
    return done.stdout.strip()


def until_job_ended(run: Run, worker: int = 0) -> None:
    """Wait until the scheduler reports a worker's job as ended."""
    until(lambda: status(run)["workers"][worker]["job_state"] == "ended")


class Background:
    """Long runs that mostly sleep: they are launched before all other tests and checked at the end."""

    runs: dict[str, list[Run]]
    sweep: Path


@pytest.fixture(scope="module")
def background(pbs: FakePbs, slurm: object, tmp_path_factory: pytest.TempPathFactory) -> Background:
    """Runs of ten epochs under a time limit that allows three, on both sites, and a sweep of two trials."""
    background = Background()
    background.runs = {}
    with pytest.MonkeyPatch.context() as patch:
        for dialect in ("torque", "pbspro"):
            site = Site(dialect, tmp_path_factory.mktemp(dialect))
            ways: dict[str, tuple[object, ...]] = {"joint": JOINT} | ({"apart": ()} if dialect == "pbspro" else {})
            background.runs[dialect] = [
                site.launched(name, "--epochs", 10, *LIMIT, *how)[0] for name, how in ways.items()
            ]
            patch.setenv("PATH", pbs.env["PATH"])
        result = site.sweep("sweep", "--epochs", 5, "--vary", "seed=1..2", *BY_QUEUE)
    assert result.code == 0, result
    background.sweep = site.root / "sweep"
    return background


@pytest.mark.usefixtures("background")
def test_a_launch_returns_at_once_and_status_shows_its_jobs_from_the_queue_to_the_evaluation(
    site: Site, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "before.sh").write_text(f"#!/bin/bash\nwhile [ ! -e {gate} ]; do sleep 0.1; done\n")
    before = call("qsub", "before.sh", folder=tmp_path)
    run, ids = site.launched("apples", "--set", "pause_s=0.1", "--dependency", f"afterany:{before}")
    record = json.loads((run.path / "jobs" / "jobs.json").read_text())
    assert [record["jobs"][number]["id"].rpartition("@")[2] for number in "01"] == ids
    assert states(run) == ["queued", "queued", "queued"]
    gate.touch()
    until(lambda: states(run)[-1] == "running")
    until_finished(run)
    assert states(run) == ["finished", "finished", "finished"]
    assert [worker["job"] for worker in status(run)["workers"]] == ids
    until((run.path / "evaluation" / "metrics.jsonl").exists)
    if site.dialect == "pbspro":
        pbs: FakePbs = request.getfixturevalue("pbs")
        queries = query_count(pbs, ids)
        status(run)
        assert query_count(pbs, ids) == queries + 1, "one query for all jobs"


def query_count(pbs: FakePbs, ids: list[str]) -> int:
    """Number of calls of qstat with one of these ids."""
    return len([words for words in pbs.calls("qstat") if set(ids) & set(words)])


def test_a_deleted_job_publishes_is_not_continued_and_is_the_only_one_that_launch_submits_again(
    site: Site,
) -> None:
    run, ids = site.launched("apples", *LONG)
    for module in run.modules:
        pid_after(run, module, steps=15)
    call("qdel", ids[0])
    until(lambda: states(run)[0] == "preempted")
    until_job_ended(run)
    report, newest = run.read_report("generator"), run.store("generator").latest()
    assert newest is not None
    assert (newest.step, newest.full) == (report.step, True)
    assert links(run) == []
    assert states(run)[1:] == ["running", "running"]
    again = site.launch("apples")
    assert "  generator                     submitted  " in again.out
    assert "  discriminator                 live already" in again.out
    assert ids_of(again)["discriminator"] == ids[1]
    assert ids_of(again)["generator"] != ids[0]
    result = typed("cancel", run.path)
    assert "Ended 2 jobs of apples." in result.out
    assert "no live job" in typed("cancel", run.path).out


def test_a_stopped_run_continues_when_it_is_launched_again(pro: Site) -> None:
    run, (id,) = pro.launched("apples", *LONG, *JOINT)
    pid_after(run, "generator", steps=5)
    typed("stop", run.path, "--reason", "lunch")
    until(lambda: states(run) == ["stopped", "stopped"])
    until_job_ended(run)
    assert links(run) == []
    _, (new,) = pro.launched("apples")
    assert new != id
    newest = run.store("generator").latest()
    assert newest is not None
    pid_after(run, "generator", steps=newest.step + 1)
    typed("cancel", run.path)


def test_cancel_also_ends_a_successor_that_is_being_submitted(pro: Site, pbs: FakePbs) -> None:
    slow = 'qsub() { touch submitting; sleep 3; command qsub "$@"; }'
    run, ids = pro.launched("apples", *LONG, *JOINT, "--prologue", slow)
    os.kill(pid_after(run, "generator", steps=5), signal.SIGTERM)
    until((run.path / "jobs" / "submitting").exists)
    assert pbs.state(ids[0]) == "R"
    typed("cancel", run.path)
    assert len(links(run)) == 1, "the successor was submitted"
    assert [pbs.state(id) for id in (*ids, *links(run))] == ["F", "F"]
    assert status(run)["workers"][0]["job_state"] == "ended"


def test_after_usr2_a_worker_publishes_and_continues_in_another_job(pro: Site, pbs: FakePbs) -> None:
    run, (id,) = pro.launched("apples", *JOINT, *SHORT)
    pid_after(run, "generator", steps=5)
    os.kill(pbs.job(id).tasks[""].session, signal.SIGUSR2)
    until_finished(run)
    assert len(links(run)) == 1
    assert len({checkpoint.writer for checkpoint in run.store("generator").history()}) == 2


def test_the_job_of_a_failed_node_continues_on_another_node(pro: Site, pbs: FakePbs, tmp_path: Path) -> None:
    run, (id,) = pro.launched("apples", *SHORT, *JOINT)
    pid_after(run, "generator", steps=15)
    pbs.fail_node(id)
    until_finished(run)
    assert pbs.job(id).tasks[""].run_count == 2
    assert links(run) == []
    assert weights_of(run) == undisturbed(tmp_path / "undisturbed", epochs=8)


def test_a_chain_continues_the_run_job_by_job_and_repeats_nothing(pro: Site, pbs: FakePbs, tmp_path: Path) -> None:
    run, (id,) = pro.launched("apples", *SHORT, *JOINT, "--chain", 3)
    assert [pbs.state(link) for link in links(run)] == ["H", "H"], "all are submitted at once"
    os.kill(pid_after(run, "generator", steps=15), signal.SIGTERM)
    until_finished(run)
    for link in links(run):
        pbs.wait(link)
    assert [pbs.job(link).tasks[""].exit_status for link in (id, *links(run))] == [75, 0, 0]
    assert weights_of(run) == undisturbed(tmp_path / "undisturbed", epochs=8)
    assert states(run)[-1] == "finished"
    starts = [line for line in read_lines(run.path / "jobs" / "0.journal") if line.startswith("started ")]
    assert len(starts) == 2


@pytest.mark.slow
def test_a_chain_ends_with_a_failed_worker_and_a_launch_submits_a_new_one(pro: Site, pbs: FakePbs) -> None:
    run, ids = pro.launched("apples", *JOINT, "--chain", 2, "--set", "nan_at=25")
    pbs.wait(links(run)[-1])
    assert states(run)[-1] == "failed"
    assert [pbs.job(link).tasks[""].exit_status for link in (*ids, *links(run))] == [5, 0]
    _, again = pro.launched("apples")
    pbs.wait(links(run)[-1])
    assert pbs.job(again[0]).tasks[""].exit_status == 5, "the new chain runs the worker"


@pytest.mark.slow
def test_a_worker_that_overruns_its_deadline_continues_by_itself_if_it_publishes_and_by_launch_if_it_is_killed(
    pro: Site, pbs: FakePbs
) -> None:
    late = ("--walltime", "00:00:20", "--publish-before-s", 1, "--set", "batches=3", "--set", "pause_s=0.3")
    runs = {name: pro.launched(name, "--epochs", 12, *JOINT, *late) for name in ("wakes", "sleeps")}
    pids = {name: pid_after(run, "generator", steps=3) for name, (run, _) in runs.items()}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)  # as if the worker hung
    (wakes, (first,)), (sleeps, (id,)) = runs["wakes"], runs["sleeps"]
    until(lambda: "job killed: walltime" in spooled(pbs, first))
    os.kill(pids["wakes"], signal.SIGCONT)
    until(lambda: links(wakes))
    assert pbs.wait(id) == "F"
    assert pbs.shown(id)["Exit_status"] == "-29"
    assert links(sleeps) == []
    assert states(sleeps)[0] == "lost"
    assert pro.launch("sleeps", "--walltime", "01:00:00").code == 0
    until_finished(sleeps)
    typed("cancel", wakes.path)


def spooled(pbs: FakePbs, id: str) -> str:
    path = pbs.home / "spool" / f"{id}.OU"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("site", TORQUE_SLOWLY, indirect=True)
def test_no_name_is_executed_or_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "precious").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    root = Site(
        site.dialect,
        tmp_path / "Job Id: 9,job_state = F," / "Äpfel & 'Birnen' \"$(touch canary)\" `touch canary` \\ %j ${IFS}",
    )
    name = f"{HOSTILE} $(touch canary)|touch canary;#" + "x" * 120
    run, _ = root.launched(name, *JOINT, *SHORT)
    pid = pid_after(run, "generator", steps=5)
    assert states(run) == ["running", "running"]
    os.kill(pid, signal.SIGTERM)
    until_finished(run)
    assert len(links(run)) == 1
    assert (home / "precious").is_dir()
    assert not [*below(tmp_path, "canary"), *Path.cwd().glob("canary*")]
    (job_name,) = re.findall(r"^#PBS -N (.*)$", (run.path / "jobs" / "0.sh").read_text(), re.MULTILINE)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", job_name)
    assert len(job_name) <= (230 if site.dialect == "pbspro" else 15)


def test_every_option_of_a_profile_reaches_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Cluster(queues=("workq", "long"), accounts=("physics",), resources=("skylake",))
    python = tmp_path / "my python"
    python.write_text(f'#!/bin/sh\necho "by my python" >&2\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    profile = tmp_path / "site.yaml"
    profile.write_text(
        f"backend: pbs\nqueue: long\naccount: physics\nwalltime: 1-02:00:00\ncpus: 2\nmemory_gb: 1.5\ngpus: 1\n"
        f"constraint: skylake\nmail: me@example.org\nmail_on: abe\ndependency: after:100\ndirectives: -P p12\n"
        f"leave_out: -j\nprologue: [cd /, 'echo before $NOT_SET']\nepilogue: echo after\npython: {python}\npoll_s: 1\n"
    )
    with fake_pbs(tmp_path / "pbs", shape) as pbs:
        monkeypatch.setenv("PATH", pbs.env["PATH"])
        pbs.submit("#!/bin/bash\n#PBS -A physics\n")
        site = Site("pbspro", tmp_path / "runs")
        run, (id,) = site.launched("apples", *JOINT, "--profile", profile, *SHORT)
        shown = pbs.shown(id)
        os.kill(pid_after(run, "generator", steps=5), signal.SIGTERM)
        until_finished(run)
        (following,) = links(run)
        until_job_ended(run)
        assert (pbs.job(id).depend, pbs.job(following).depend) == ([["after", "100.fakepbs"]], []), (
            "only the first job has the dependency"
        )
    assert (shown["queue"], shown["Account_Name"], shown["project"]) == ("long", "physics", "p12")
    assert shown["Resource_List.select"] == "1:ncpus=2:mem=1536mb:ngpus=1:skylake=True"
    assert (shown["Resource_List.walltime"], shown["Join_Path"]) == ("26:00:00", "n")
    assert (shown["Mail_Users"], shown["Mail_Points"]) == ("me@example.org", "abe")
    log = (run.path / "jobs" / "0.log").read_text().splitlines()
    assert [log.count(line) for line in ("before", "by my python", "after")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("dialect", "options", "directives"),
    [
        ("pbspro", ("--constraint", "cpu_type=skylake"), {"-l select=1:ncpus=1:cpu_type=skylake"}),
        ("torque", ("--constraint", "skl", "--cpus", 2, "--gpus", 1), {"-l nodes=1:ppn=2:gpus=1:skl"}),
        ("torque", ("--memory-gb", 4), {"-l nodes=1:ppn=1,mem=4096mb"}),
        ("pbspro", ("--reservation", "R12", "--queue", "long"), {"-q R12"}),
        ("torque", ("--reservation", "R12", "--queue", "long"), {"-q long", "-l advres=R12"}),
        ("torque", ("--qos", "high"), {"-l qos=high"}),
        ("torque", ("--mail", "me@example.org"), {"-M me@example.org", "-m ae"}),
        ("pbspro", ("--dependency", "afterok:1,after:2"), {"-W depend=afterok:1,after:2"}),
    ],
)
def test_a_job_option_becomes_a_directive_of_the_dialect(
    dialect: str, options: tuple[object, ...], directives: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without qsub
    result = Site(dialect, tmp_path / "runs").launch("apples", *JOINT, "--dry-run", "--dialect", dialect, *options)
    written = {line.removeprefix("#PBS ") for line in result.out.splitlines() if line.startswith("#PBS ")}
    assert directives <= written
    plain = Site(dialect, tmp_path / "runs").launch("pears", *JOINT, "--dry-run", "--dialect", dialect)
    assert len(written) <= len([line for line in plain.out.splitlines() if line.startswith("#PBS ")]) + len(directives)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--queue", "nowhere"), "0.sh: qsub: Unknown queue."),
        (("--account", "nobody"), "0.sh: qsub: Invalid Account."),
        (("--constraint", "skylark"), "0.sh: qsub: Unknown resource: skylark."),
        (("--directive", "-J 5-5"), "0.sh: qsub: illegal -J value."),
        (("--exclude", "n1"), "PBS cannot exclude nodes"),
        (("--qos", "high"), "PBS Pro has no quality of service"),
        (("--address", "host:1"), "--address host:1 is not for pbs"),
    ],
)
def test_an_option_that_the_cluster_refuses_is_one_sentence_and_nothing_is_submitted(
    strict: FakePbs, options: tuple[object, ...], sentence: str, tmp_path: Path
) -> None:
    before = strict.run("qstat", "-x").stdout
    result = Site("pbspro", tmp_path / "runs").launch("apples", "--account", "physics", *options)
    *notes, message = result.err.splitlines()
    assert result.code == 2, result
    assert notes in ([CHECKING], [])  # what needs no scheduler to be refused is refused before the check
    assert sentence in message
    assert strict.run("qstat", "-x").stdout == before


@pytest.fixture(scope="module")
def strict_pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    with fake_pbs(tmp_path_factory.mktemp("pbs") / "strict", Cluster(accounts=("physics",))) as cluster:
        yield cluster


@pytest.fixture
def strict(strict_pbs: FakePbs, monkeypatch: pytest.MonkeyPatch) -> FakePbs:
    """A cluster that accepts only known accounts."""
    monkeypatch.setenv("PATH", strict_pbs.env["PATH"])
    return strict_pbs


@pytest.mark.parametrize("chain", [1, 2])
def test_all_jobs_of_a_launch_are_submitted_or_none(
    chain: int, pro: Site, pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    qsub = executable(
        tmp_path / "bin" / "qsub",
        f'[ "$1" = --version ] || echo x >>{calls}\n'
        f'if [ "$(wc -l <{calls})" -gt {chain} ]; then echo "qsub: Job violates queue limits" >&2; exit 4; fi\n'
        f'[ "$1" = --version ] && exec {pbs.home}/bin/qsub "$@"\n{pbs.home}/bin/qsub "$@" | tee -a {tmp_path}/taken',
    )
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{qsub.parent}:{os.environ['PATH']}")
        result = pro.launch("apples", *LONG, "--chain", chain, "--directive", "-h")
    checking, message = result.err.splitlines()
    assert (result.code, checking) == (2, CHECKING), result
    assert "1.sh: qsub: Job violates queue limits." in message
    assert [pbs.state(id) for id in (tmp_path / "taken").read_text().split()] == ["F"] * chain


@pytest.mark.parametrize(
    ("answer", "resources"),
    [
        ("echo 'pbs_version = 2021.1.3.20220217134230'", "select=1"),
        ("echo 'pbs_version = 19.1.3' >&2", "select=1"),
        ("printf 'Version: 6.1.2\\nCommit: 661e092552de43a785c15d39a3634a541d86898e\\n' >&2", "nodes=1"),
        ("echo 'version: 2.4.16' >&2", "nodes=1"),
    ],
)
def test_the_dialect_is_detected_from_qsub(
    answer: str, resources: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(executable(tmp_path / "bin" / "qsub", answer).parent))
    result = Site("", tmp_path / "runs").launch("apples", *JOINT, "--dry-run")
    assert f"\n#PBS -l {resources}:" in result.out


@pytest.mark.usefixtures("slurm")
def test_torque_s_commands_on_slurm_are_detected_as_torque(tmp_path: Path) -> None:
    result = Site("torque", tmp_path / "runs").launch("apples", *JOINT, "--dry-run")
    assert "\n#PBS -l nodes=1:ppn=1\n" in result.out


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "qsub is not on this machine: submit from a login node of the cluster"),
        (
            "echo 'Unknown option --version'; echo 'usage: qsub [options] SGE 8.1.9'; exit 1",
            "Cannot tell the PBS dialect",
        ),
    ],
)
def test_a_missing_or_foreign_qsub_is_an_error_and_no_folder_is_created(
    answer: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "PATH", str(executable(tmp_path / "bin" / ("qsub" if answer else "other"), answer or "true").parent)
    )
    for dry in ((), ("--dry-run",)):
        result = Site("", tmp_path / "runs").launch("apples", *dry)
        assert (result.code, result.err.count("\n")) == (2, 1), result
        assert sentence in result.err
        assert "--dialect torque" in result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("site", PBSPRO_SLOWLY, indirect=True)
def test_scripts_written_without_qsub_and_submitted_by_hand_train_the_same_weights(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "precious").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        result = site.launch(HOSTILE, *JOINT, "--dry-run", "--dialect", site.dialect)
    assert result.code == 0, result
    (line,) = re.findall(r"^# To submit it by hand: (.*)$", result.out, re.MULTILINE)
    call("/bin/bash", "-c", line, folder=tmp_path)
    run = Run.open(site.root / HOSTILE)
    until_finished(run)
    assert weights_of(run) == undisturbed(tmp_path / "undisturbed")
    assert (tmp_path / "home" / "precious").is_dir()


def counts(sweep: Path) -> dict[str, int]:
    """Number of trials in each state."""
    counts: dict[str, int] = json.loads(typed("sweep-status", sweep, "--json").out)["counts"]
    return counts


def events(journal: Path) -> list[str]:
    """The events in a journal, without changes of ids."""
    return [line.split()[0] for line in read_lines(journal) if not line.startswith("renamed ")]


def submissions(pbs: FakePbs, prefix: str) -> list[str]:
    """The submitted scripts whose names begin with `prefix`."""
    return [words[-1] for words in pbs.calls("qsub") if words[-1].startswith(prefix)]


def test_a_sweep_is_an_array_with_a_limit_and_only_missing_trials_are_submitted_again(pro: Site, pbs: FakePbs) -> None:
    vary = ("--vary", "lr=0.01,0.02", "--vary", "seed=1..2")
    before = len(submissions(pbs, "array-"))
    result = pro.sweep("grid", *vary, "--max-running", 2)
    assert "submitted 4 of 4 trials (4 tasks)" in result.out, result
    assert len(submissions(pbs, "array-")) == before + 1
    sweep = pro.root / "grid"
    task = json.loads((sweep / "jobs" / "jobs.json").read_text())["tasks"]["0"].rpartition("@")[2]
    id = task.replace("[0]", "[]")
    array = pbs.shown(id)
    assert (array["array_indices_submitted"], array["max_run_subjobs"]) == ("0-3", "2")
    assert counts(sweep).keys() <= {"queued", "starting", "running", "finished"}
    running = set()
    while pbs.state(id) != "F":
        running.add([task.state in "RE" for task in pbs.job(id).tasks.values()].count(True))
        time.sleep(0.1)
    assert max(running) <= 2
    assert counts(sweep) == {"finished": 4}
    assert "submitted 0 of 4 trials" in pro.sweep("grid", *vary).out
    shutil.rmtree(sweep / "trial-0002")
    assert "submitted 1 of 4 trials (1 task)" in pro.sweep("grid", *vary).out
    assert "-J" not in (sweep / "jobs" / submissions(pbs, "array-")[-1]).read_text()
    until(lambda: counts(sweep) == {"finished": 4})


@pytest.mark.slow
def test_the_workers_of_a_trial_may_finish_at_other_epochs_than_each_other_and_the_sweep(
    pro: Site, tmp_path: Path
) -> None:
    where = ("--backend", "pbs", "--recipe", peaked_stages(tmp_path, TINY), "--root", pro.root, "--name", "early")
    words = ("sweep", *where, "--nodes-per-trial", 3, "--vary", "seed=1", *EARLY)
    assert "submitted 1 of 1 trial (3 tasks)" in typed(*words).out
    until(lambda: counts(pro.root / "early") == {"finished": 1})
    check_ended_early(Run.open(pro.root / "early" / "trial-0000"))
    assert "submitted 0 of 1 trial" in typed(*words).out


def test_bad_trials_are_pruned_in_a_sweep_of_plain_jobs(pro: Site) -> None:
    bad = ("--vary", "lr=0.01,1e-7", "--prune", "--metric", "generator.loss", "--minimize", "--max-running", 1)
    result = pro.sweep("pruned", *bad, "--epochs", 12, "--set", "pause_s=0.1", "--poll-s", 1)
    assert result.code == 0, result
    assert "trial 1 is pruned: halving at epoch" in result.out
    assert counts(pro.root / "pruned") == {"finished": 1, "pruned": 1}
    assert not list((pro.root / "pruned" / "jobs").glob("array-*.sh"))


@pytest.mark.parametrize("site", TORQUE_SLOWLY, indirect=True)
def test_a_cancelled_sweep_continues_with_its_unfinished_trials(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = site.root / "seeds"
    result = site.sweep("seeds", "--vary", "seed=1..4", "--max-running", 2, *LONG)
    assert "submitted 4 of 4 trials" in result.out, result
    until(lambda: counts(sweep) == {"running": 2, "queued": 2})
    for number in (0, 1):
        pid = pid_after(Run.open(sweep / f"trial-000{number}"), "generator", steps=1)
    os.kill(pid, signal.SIGTERM)
    until(lambda: "continued" in events(sweep / "jobs" / "1.journal"))
    with monkeypatch.context() as patch:  # a server so slow that trials obey the request before it is asked again
        query = PbsBackend.query
        patch.setattr(PbsBackend, "query", lambda backend, ids: (time.sleep(2), query(backend, ids))[1])
        assert "Ended the jobs of 4 trials" in typed("cancel", sweep).out
    assert counts(sweep).keys() <= {"cancelled", "created"}
    assert "submitted 4 of 4 trials" in typed("sweep", sweep).out
    assert counts(sweep).keys() <= {"queued", "starting", "running"}
    assert "Ended the jobs of 4 trials" in typed("cancel", sweep).out
    assert "Ended the jobs of 0 trials" in typed("cancel", sweep).out


@pytest.mark.parametrize("site", PBSPRO_SLOWLY, indirect=True)
def test_a_task_of_an_array_continues_repeatedly_as_a_plain_job(site: Site, tmp_path: Path) -> None:
    sweep = site.root / "seeds"
    result = site.sweep("seeds", "--vary", "seed=1..2", "--epochs", 9, "--set", "pause_s=0.1")
    assert result.code == 0, result
    until((sweep / "trial-0000" / "run.json").exists)
    trial = Run.open(sweep / "trial-0000")
    for again, steps in enumerate((5, 25), start=1):
        os.kill(pid_after(trial, "generator", steps=steps), signal.SIGTERM)
        until(lambda so_often=again: events(sweep / "jobs" / "0.journal").count("continued") == so_often)  # type: ignore[misc]
        assert counts(sweep).get("stopped", 0) == 0, "another job continues it"
    until(lambda: counts(sweep) == {"finished": 2})
    # Sorted, as the next job may start before its id is written.
    expected = sorted([*["started", "ended"] * 3, *["continued"] * 2])
    until(lambda: sorted(events(sweep / "jobs" / "0.journal")) == expected)
    assert weights_of(trial) == undisturbed(tmp_path / "undisturbed", epochs=9, seed=1)


def test_a_run_longer_than_its_time_limit_finishes_without_intervention(
    background: Background, site: Site, tmp_path: Path
) -> None:
    for run in background.runs[site.dialect]:
        until_finished(run)
        for worker in status(run)["workers"]:
            assert len(links(run, worker["worker"])) >= 2, "several jobs were needed"
            assert worker["job"] == links(run, worker["worker"])[-1]
    assert weights_of(background.runs[site.dialect][0]) == undisturbed(tmp_path / "undisturbed", epochs=10)


def test_a_sweep_longer_than_the_time_limit_of_its_queue_finishes_without_intervention(
    background: Background, pro: Site, pbs: FakePbs, tmp_path: Path
) -> None:
    sweep = background.sweep
    until(lambda: counts(sweep) == {"finished": 2})
    for number in (0, 1):
        assert submissions(pbs, f"next-{number}.sh")
        trial = Run.open(sweep / f"trial-000{number}")
        assert weights_of(trial) == undisturbed(tmp_path / f"{number}", epochs=5, seed=number + 1)
