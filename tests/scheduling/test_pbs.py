"""Runs on PBS from the command to the end, with real workers: by Torque's commands on a real Slurm, and a fake PBS Pro.

What every backend promises is tested in test_backend_contract.py.
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

from modtrain.storage.filesystem import read_lines
from modtrain.storage.run import Run
from tests.support import SUPPORT
from tests.support.command import Said, typed, until
from tests.support.fake_pbs import Cluster, FakePbs, fake_pbs
from tests.support.launches import pid_after
from tests.support.runs import finish, make_run, weights_of

pytestmark = pytest.mark.timeout(900)  # jobs wait for jobs, and the cores may be busy
TINY = SUPPORT / "tiny.py"
LONG = ("--epochs", 500, "--set", "pause_s=0.05")
"""A run that nobody waits for."""
SLOWLY = ("--set", "pause_s=0.9", "--publish-before-s", 45)
LIMIT = (*SLOWLY, "--walltime", "00:01:30")
"""Forty-five seconds for each job, its start included, which is enough for some three epochs, or four.

As long again before the server kills it: it may take time to leave, where the cores are busy.
"""
BY_QUEUE = (*SLOWLY, "--queue", "short")
"""The same, but only the queue says so."""
JOINT = ("--nodes", 1)
SHORT = ("--epochs", 8, "--set", "pause_s=0.1")
"""Eight seconds: a heartbeat comes every two, and whoever sees one still has to do something before the end."""
EVIL = "a; rm -rf $HOME 'x\"y"


TORQUE_SLOWLY = ["pbspro", pytest.param("torque", marks=pytest.mark.slow)]
PBSPRO_SLOWLY = [pytest.param("pbspro", marks=pytest.mark.slow), "torque"]


@dataclass(frozen=True)
class Site:
    """A cluster, and a folder of runs."""

    dialect: str
    root: Path

    def launch(self, name: str, *options: object) -> Said:
        return typed("launch", "--backend", "pbs", "--recipe", TINY, "--root", self.root, "--name", name, *options)

    def sweep(self, name: str, *options: object) -> Said:
        """A trial is one job."""
        how = ("--backend", "pbs", "--recipe", TINY, "--root", self.root, "--name", name, "--nodes-per-trial", 1)
        return typed("sweep", *how, *options)

    def begun(self, name: str, *options: object) -> tuple[Run, list[str]]:
        """A run that was launched, and the ids of its jobs."""
        said = self.launch(name, *options)
        assert said.code == 0, said
        run = Run.open(self.root / name)
        return run, [ids_of(said)["+".join(placed)] for placed in run.spec.placement]


@pytest.fixture(scope="module")
def pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    """A PBS Pro of nine nodes that is not real; see tests/fake_pbs."""
    shape = Cluster(nodes=9, kill_delay_s=5, queues=("workq", "short"), limits={"short": "00:01:30"})
    with fake_pbs(tmp_path_factory.mktemp("pbs") / "pro", shape) as found:
        yield found


@pytest.fixture
def pro(pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """That one, as a user has it."""
    monkeypatch.setenv("PATH", pbs.env["PATH"])
    return Site("pbspro", tmp_path / "runs")


@pytest.fixture(params=["pbspro", "torque"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Both dialects."""
    if request.param == "torque":
        request.getfixturevalue("slurm")
        return Site("torque", tmp_path / "runs")
    found: Site = request.getfixturevalue("pro")
    return found


def ids_of(said: Said) -> dict[str, str]:
    """The ids that a launch tells, by worker."""
    return dict(re.findall(r"^  (\S+) +(?:submitted|live already) +(\S+)", said.out, re.MULTILINE))


def status(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(typed("status", run.path, "--json").out)
    return found


def states(run: Run) -> list[str]:
    """Of the workers, and of the whole."""
    found = status(run)
    return [*(worker["state"] for worker in found["workers"]), found["state"]]


def finished(run: Run, timeout_s: float = 300) -> None:
    """Wait until every worker has ended well; a worker that failed is the test's failing."""

    def look() -> bool:
        beats = [run.heartbeat(module) for module in run.modules]
        assert not [beat for beat in beats if beat.get("state") == "failed"], beats
        return all(beat.get("state") == "finished" for beat in beats)

    until(look, timeout_s)
    until(lambda: states(run)[-1] == "finished")


def links(run: Run, worker: int = 0) -> list[str]:
    """The jobs that went on with a worker's first one."""
    lines = read_lines(run.path / "jobs" / f"{worker}.journal")
    return [line.split()[2] for line in lines if line.startswith("continued ")]


def undisturbed(path: Path, *, joint: bool = True, **values: Any) -> dict[str, str]:
    """The weights of a run that nothing ever interrupts."""
    run = make_run(path, TINY, [["generator", "discriminator"]], **values)
    finish(run)
    return weights_of(run)


def call(*command: object, folder: Path | None = None) -> str:
    """What a command of PBS prints; its failing is the test's failing."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=folder, timeout=60)
    assert done.returncode == 0, (command, done)
    return done.stdout.strip()


def over(run: Run, worker: int = 0) -> None:
    """Wait until the scheduler has nothing of a worker any more."""
    until(lambda: status(run)["workers"][worker]["job_state"] == "ended")


class Background:
    """Runs that take their time, mostly asleep: they are begun before everything else, and judged in the end."""

    runs: dict[str, list[Run]]
    sweep: Path


@pytest.fixture(scope="module")
def background(pbs: FakePbs, slurm: object, tmp_path_factory: pytest.TempPathFactory) -> Background:
    """Ten epochs under a time limit that allows three, on both sites, and two trials of seven."""
    found = Background()
    found.runs = {}
    with pytest.MonkeyPatch.context() as patch:
        for dialect in ("torque", "pbspro"):
            site = Site(dialect, tmp_path_factory.mktemp(dialect))
            ways: dict[str, tuple[object, ...]] = {"joint": JOINT} | ({"apart": ()} if dialect == "pbspro" else {})
            found.runs[dialect] = [site.begun(name, "--epochs", 10, *LIMIT, *how)[0] for name, how in ways.items()]
            patch.setenv("PATH", pbs.env["PATH"])
        said = site.sweep("sweep", "--epochs", 5, "--vary", "seed=1..2", *BY_QUEUE)
    assert said.code == 0, said
    found.sweep = site.root / "sweep"
    return found


@pytest.mark.usefixtures("background")
def test_a_launch_returns_at_once_and_status_follows_its_jobs_from_the_queue_to_the_evaluated_end(
    site: Site, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "before.sh").write_text(f"#!/bin/bash\nwhile [ ! -e {gate} ]; do sleep 0.1; done\n")
    before = call("qsub", "before.sh", folder=tmp_path)
    run, ids = site.begun("apples", "--set", "pause_s=0.1", "--dependency", f"afterany:{before}")
    record = json.loads((run.path / "jobs" / "jobs.json").read_text())
    assert [record["jobs"][number]["id"].rpartition("@")[2] for number in "01"] == ids
    assert states(run) == ["queued", "queued", "queued"]
    gate.touch()
    until(lambda: states(run)[-1] == "running")
    finished(run)
    assert states(run) == ["finished", "finished", "finished"]
    assert [worker["job"] for worker in status(run)["workers"]] == ids
    until((run.path / "evaluation" / "metrics.jsonl").exists)
    if site.dialect == "pbspro":
        pbs: FakePbs = request.getfixturevalue("pbs")
        before = questions(pbs, ids)
        status(run)
        assert questions(pbs, ids) == before + 1, "one question for all jobs"


def questions(pbs: FakePbs, ids: list[str]) -> int:
    """How often qstat was asked about one of these jobs; others ask about theirs meanwhile."""
    return len([words for words in pbs.calls("qstat") if set(ids) & set(words)])


def test_a_job_that_is_deleted_publishes_is_not_continued_and_is_the_only_one_that_launch_submits_again(
    site: Site,
) -> None:
    run, ids = site.begun("apples", *LONG)
    for module in run.modules:
        pid_after(run, module, steps=15)
    call("qdel", ids[0])
    until(lambda: states(run)[0] == "preempted")
    over(run)
    beat, newest = run.heartbeat("generator"), run.store("generator").latest()
    assert newest is not None
    assert (newest.step, newest.full) == (beat["step"], True)
    assert links(run) == []
    assert states(run)[1:] == ["training", "running"]
    again = site.launch("apples")
    assert "  generator                     submitted  " in again.out
    assert "  discriminator                 live already" in again.out
    assert ids_of(again)["discriminator"] == ids[1]
    assert ids_of(again)["generator"] != ids[0]
    said = typed("cancel", run.path)
    assert "Ended 2 jobs of apples." in said.out
    assert "no live job" in typed("cancel", run.path).out


def test_a_run_that_is_stopped_publishes_leaves_and_goes_on_when_it_is_launched_again(pro: Site) -> None:
    run, (id,) = pro.begun("apples", *LONG, *JOINT)
    pid_after(run, "generator", steps=5)
    typed("stop", run.path, "--reason", "lunch")
    until(lambda: states(run) == ["stopped", "stopped"])
    over(run)
    assert links(run) == []
    _, (new,) = pro.begun("apples")
    assert new != id
    newest = run.store("generator").latest()
    assert newest is not None
    pid_after(run, "generator", steps=newest.step + 1)
    typed("cancel", run.path)


def test_a_job_that_is_just_being_submitted_by_another_is_cancelled_with_it(pro: Site, pbs: FakePbs) -> None:
    slow = 'qsub() { touch submitting; sleep 3; command qsub "$@"; }'
    run, ids = pro.begun("apples", *LONG, *JOINT, "--prologue", slow)
    os.kill(pid_after(run, "generator", steps=5), signal.SIGTERM)
    until((run.path / "jobs" / "submitting").exists)
    assert pbs.state(ids[0]) == "R"
    typed("cancel", run.path)
    assert len(links(run)) == 1, "it was submitted all the same"
    assert [pbs.state(id) for id in (*ids, *links(run))] == ["F", "F"]
    assert status(run)["workers"][0]["job_state"] == "ended"


def test_usr2_to_the_script_makes_its_worker_publish_and_go_on_in_another_job(pro: Site, pbs: FakePbs) -> None:
    run, (id,) = pro.begun("apples", *JOINT, *SHORT)
    pid_after(run, "generator", steps=5)
    os.kill(pbs.job(id).tasks[""].session, signal.SIGUSR2)
    finished(run)
    assert len(links(run)) == 1
    assert len({checkpoint.writer for checkpoint in run.store("generator").history()}) == 2


def test_a_node_that_fails_loses_its_job_to_another_where_it_goes_on(pro: Site, pbs: FakePbs, tmp_path: Path) -> None:
    run, (id,) = pro.begun("apples", *SHORT, *JOINT)
    pid_after(run, "generator", steps=15)
    pbs.fail_node(id)
    finished(run)
    assert pbs.job(id).tasks[""].run_count == 2
    assert links(run) == []
    assert weights_of(run) == undisturbed(tmp_path / "undisturbed", epochs=8)


def test_a_chain_goes_on_link_by_link_and_repeats_nothing_after_the_last_epoch(
    pro: Site, pbs: FakePbs, tmp_path: Path
) -> None:
    run, (id,) = pro.begun("apples", *SHORT, *JOINT, "--chain", 3)
    assert [pbs.state(link) for link in links(run)] == ["H", "H"], "all are submitted at once"
    os.kill(pid_after(run, "generator", steps=15), signal.SIGTERM)
    finished(run)
    for link in links(run):
        pbs.wait(link)
    assert [pbs.job(link).tasks[""].exit_status for link in (id, *links(run))] == [75, 0, 0]
    assert weights_of(run) == undisturbed(tmp_path / "undisturbed", epochs=8)
    assert states(run)[-1] == "finished"
    begun = [line for line in read_lines(run.path / "jobs" / "0.journal") if line.startswith("started ")]
    assert len(begun) == 2


@pytest.mark.slow
def test_a_chain_ends_where_a_worker_fails_for_good_and_a_new_one_begins_when_it_is_launched_again(
    pro: Site, pbs: FakePbs
) -> None:
    run, ids = pro.begun("apples", *JOINT, "--chain", 2, "--set", "nan_at=25")
    pbs.wait(links(run)[-1])
    assert states(run)[-1] == "failed"
    assert [pbs.job(link).tasks[""].exit_status for link in (*ids, *links(run))] == [5, 0]
    _, again = pro.begun("apples")
    pbs.wait(links(run)[-1])
    assert pbs.job(again[0]).tasks[""].exit_status == 5, "it tried"


@pytest.mark.slow
def test_a_worker_that_is_late_for_its_deadline_goes_on_by_itself_if_it_publishes_yet_and_by_launch_if_it_is_killed(
    pro: Site, pbs: FakePbs
) -> None:
    late = ("--walltime", "00:00:20", "--publish-before-s", 1, "--set", "batches=3", "--set", "pause_s=0.3")
    runs = {name: pro.begun(name, "--epochs", 12, *JOINT, *late) for name in ("wakes", "sleeps")}
    pids = {name: pid_after(run, "generator", steps=3) for name, (run, _) in runs.items()}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)  # as if it hung
    (wakes, (first,)), (sleeps, (id,)) = runs["wakes"], runs["sleeps"]
    until(lambda: "job killed: walltime" in spooled(pbs, first))
    os.kill(pids["wakes"], signal.SIGCONT)
    until(lambda: links(wakes))
    assert pbs.wait(id) == "F"
    assert pbs.shown(id)["Exit_status"] == "-29"
    assert links(sleeps) == []
    assert states(sleeps)[0] == "lost"
    assert pro.launch("sleeps", "--walltime", "01:00:00").code == 0
    finished(sleeps)
    typed("cancel", wakes.path)


def spooled(pbs: FakePbs, id: str) -> str:
    path = pbs.home / "spool" / f"{id}.OU"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("site", TORQUE_SLOWLY, indirect=True)
def test_no_name_is_ever_run_or_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "precious").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    root = Site(
        site.dialect,
        tmp_path / "Job Id: 9,job_state = F," / "Äpfel & 'Birnen' \"$(touch canary)\" `touch canary` \\ %j ${IFS}",
    )
    name = f"{EVIL} $(touch canary)|touch canary;#" + "x" * 120
    run, _ = root.begun(name, *JOINT, *SHORT)
    pid = pid_after(run, "generator", steps=5)
    assert states(run) == ["training", "running"]
    os.kill(pid, signal.SIGTERM)
    finished(run)
    assert len(links(run)) == 1
    assert (home / "precious").is_dir()
    assert not [*tmp_path.rglob("canary*"), *Path.cwd().glob("canary*")]
    (asked,) = re.findall(r"^#PBS -N (.*)$", (run.path / "jobs" / "0.sh").read_text(), re.MULTILINE)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", asked)
    assert len(asked) <= (230 if site.dialect == "pbspro" else 15)


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
        run, (id,) = site.begun("apples", *JOINT, "--profile", profile, *SHORT)
        shown = pbs.shown(id)
        os.kill(pid_after(run, "generator", steps=5), signal.SIGTERM)
        finished(run)
        (following,) = links(run)
        over(run)
        assert (pbs.job(id).depend, pbs.job(following).depend) == ([["after", "100.fakepbs"]], []), "it waits but once"
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
def test_an_option_is_spelled_as_its_dialect_does(
    dialect: str, options: tuple[object, ...], directives: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no qsub
    said = Site(dialect, tmp_path / "runs").launch("apples", *JOINT, "--dry-run", "--dialect", dialect, *options)
    told = {line.removeprefix("#PBS ") for line in said.out.splitlines() if line.startswith("#PBS ")}
    assert directives <= told
    plain = Site(dialect, tmp_path / "runs").launch("pears", *JOINT, "--dry-run", "--dialect", dialect)
    assert len(told) <= len([line for line in plain.out.splitlines() if line.startswith("#PBS ")]) + len(directives)


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
def test_what_a_cluster_cannot_do_is_one_sentence_and_nothing_is_submitted(
    strict: FakePbs, options: tuple[object, ...], sentence: str, tmp_path: Path
) -> None:
    before = strict.run("qstat", "-x").stdout
    said = Site("pbspro", tmp_path / "runs").launch("apples", "--account", "physics", *options)
    assert (said.code, said.err.count("\n")) == (2, 1), said
    assert sentence in said.err
    assert strict.run("qstat", "-x").stdout == before


@pytest.fixture(scope="module")
def strict_pbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakePbs]:
    with fake_pbs(tmp_path_factory.mktemp("pbs") / "strict", Cluster(accounts=("physics",))) as found:
        yield found


@pytest.fixture
def strict(strict_pbs: FakePbs, monkeypatch: pytest.MonkeyPatch) -> FakePbs:
    """A cluster that charges accounts."""
    monkeypatch.setenv("PATH", strict_pbs.env["PATH"])
    return strict_pbs


@pytest.mark.parametrize("chain", [1, 2])
def test_where_one_job_is_refused_none_stays(
    chain: int, pro: Site, pbs: FakePbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    asked.touch()
    full = program(
        tmp_path,
        "qsub",
        f'[ "$1" = --version ] || echo x >>{asked}\n'
        f'if [ "$(wc -l <{asked})" -gt {chain} ]; then echo "qsub: Job violates queue limits" >&2; exit 4; fi\n'
        f'[ "$1" = --version ] && exec {pbs.home}/bin/qsub "$@"\n{pbs.home}/bin/qsub "$@" | tee -a {tmp_path}/taken',
    )
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{full}:{os.environ['PATH']}")
        said = pro.launch("apples", *LONG, "--chain", chain, "--directive", "-h")
    assert (said.code, said.err.count("\n")) == (2, 1), said
    assert "1.sh: qsub: Job violates queue limits." in said.err
    assert [pbs.state(id) for id in (tmp_path / "taken").read_text().split()] == ["F"] * chain


def program(folder: Path, name: str, text: str) -> Path:
    """A folder for PATH, with one program in it."""
    (folder / "bin").mkdir()
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / "bin" / name).chmod(0o755)
    return folder / "bin"


@pytest.mark.parametrize(
    ("answer", "asks_for"),
    [
        ("echo 'pbs_version = 2021.1.3.20220217134230'", "select=1"),
        ("echo 'pbs_version = 19.1.3' >&2", "select=1"),
        ("printf 'Version: 6.1.2\\nCommit: 661e092552de43a785c15d39a3634a541d86898e\\n' >&2", "nodes=1"),
        ("echo 'version: 2.4.16' >&2", "nodes=1"),
    ],
)
def test_the_dialect_is_heard_from_qsub(
    answer: str, asks_for: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(program(tmp_path, "qsub", answer)))
    said = Site("", tmp_path / "runs").launch("apples", *JOINT, "--dry-run")
    assert f"\n#PBS -l {asks_for}:" in said.out


@pytest.mark.usefixtures("slurm")
def test_torque_s_commands_on_slurm_are_taken_for_torque_s(tmp_path: Path) -> None:
    said = Site("torque", tmp_path / "runs").launch("apples", *JOINT, "--dry-run")
    assert "\n#PBS -l nodes=1:ppn=1\n" in said.out


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "qsub is not on this machine: submit from a login node of the cluster"),
        ("echo 'Unknown option --version'; echo 'usage: qsub [options] SGE 8.1.9'; exit 1", "qsub does not say which"),
    ],
)
def test_a_qsub_that_is_not_there_or_of_something_else_is_said_and_nothing_is_made(
    answer: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(program(tmp_path, "qsub" if answer else "other", answer or "")))
    for dry in ((), ("--dry-run",)):
        said = Site("", tmp_path / "runs").launch("apples", *dry)
        assert (said.code, said.err.count("\n")) == (2, 1), said
        assert sentence in said.err
        assert "--dialect torque" in said.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("site", PBSPRO_SLOWLY, indirect=True)
def test_scripts_that_were_written_without_qsub_and_are_submitted_by_hand_give_the_same_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "precious").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        said = site.launch(EVIL, *JOINT, "--dry-run", "--dialect", site.dialect)
    assert said.code == 0, said
    (line,) = re.findall(r"^# To submit it by hand: (.*)$", said.out, re.MULTILINE)
    call("/bin/bash", "-c", line, folder=tmp_path)
    run = Run.open(site.root / EVIL)
    finished(run)
    assert weights_of(run) == undisturbed(tmp_path / "undisturbed")
    assert (tmp_path / "home" / "precious").is_dir()


def counts(sweep: Path) -> dict[str, int]:
    """How many trials are in which state."""
    found: dict[str, int] = json.loads(typed("sweep-status", sweep, "--json").out)["counts"]
    return found


def told(journal: Path) -> list[str]:
    """What happened, but for new names."""
    return [line.split()[0] for line in read_lines(journal) if not line.startswith("renamed ")]


def submissions(pbs: FakePbs, begun_with: str) -> list[str]:
    """The scripts that were submitted whose names begin so."""
    return [words[-1] for words in pbs.calls("qsub") if words[-1].startswith(begun_with)]


def test_a_sweep_is_an_array_with_a_limit_and_what_is_missing_of_it_is_submitted_again_alone(
    pro: Site, pbs: FakePbs
) -> None:
    vary = ("--vary", "lr=0.01,0.02", "--vary", "seed=1..2")
    before = len(submissions(pbs, "array-"))
    said = pro.sweep("grid", *vary, "--max-running", 2)
    assert "submitted 4 of 4 trials (4 tasks)" in said.out, said
    assert len(submissions(pbs, "array-")) == before + 1
    sweep = pro.root / "grid"
    task = json.loads((sweep / "jobs" / "jobs.json").read_text())["tasks"]["0"].rpartition("@")[2]
    id = task.replace("[0]", "[]")
    array = pbs.shown(id)
    assert (array["array_indices_submitted"], array["max_run_subjobs"]) == ("0-3", "2")
    assert counts(sweep).keys() <= {"queued", "running", "finished"}
    running = set()
    while pbs.state(id) != "F":
        running.add([task.state in "RE" for task in pbs.job(id).tasks.values()].count(True))
        time.sleep(0.1)
    assert max(running) <= 2
    assert counts(sweep) == {"finished": 4}
    assert "submitted 0 of 4 trials" in pro.sweep("grid", *vary).out
    shutil.rmtree(sweep / "trial-0002")
    assert "submitted 1 of 4 trials (1 tasks)" in pro.sweep("grid", *vary).out
    assert "-J" not in (sweep / "jobs" / submissions(pbs, "array-")[-1]).read_text()
    until(lambda: counts(sweep) == {"finished": 4})


def test_bad_trials_leave_early_as_plain_jobs_that_this_command_keeps_in_the_queue(pro: Site) -> None:
    bad = ("--vary", "lr=0.01,1e-7", "--prune", "--metric", "generator.loss", "--minimize", "--max-running", 1)
    said = pro.sweep("pruned", *bad, "--epochs", 12, "--set", "pause_s=0.1", "--poll-s", 1)
    assert said.code == 0, said
    assert "trial 1 is pruned: halving at epoch" in said.out
    assert counts(pro.root / "pruned") == {"finished": 1, "pruned": 1}
    assert not list((pro.root / "pruned" / "jobs").glob("array-*.sh"))


@pytest.mark.parametrize("site", TORQUE_SLOWLY, indirect=True)
def test_a_sweep_that_is_cancelled_in_the_middle_goes_on_with_what_is_missing(site: Site) -> None:
    sweep = site.root / "seeds"
    said = site.sweep("seeds", "--vary", "seed=1..4", "--max-running", 2, *LONG)
    assert "submitted 4 of 4 trials" in said.out, said
    until(lambda: counts(sweep) == {"running": 2, "queued": 2})
    for number in (0, 1):
        pid = pid_after(Run.open(sweep / f"trial-000{number}"), "generator", steps=1)
    os.kill(pid, signal.SIGTERM)
    until(lambda: "continued" in told(sweep / "jobs" / "1.journal"))
    assert "Ended the jobs of 4 trials" in typed("cancel", sweep).out
    assert counts(sweep).keys() <= {"stopped", "waiting"}
    assert "submitted 4 of 4 trials" in typed("sweep", sweep).out
    assert counts(sweep).keys() <= {"queued", "running"}
    assert "Ended the jobs of 4 trials" in typed("cancel", sweep).out
    assert "Ended the jobs of 0 trials" in typed("cancel", sweep).out


@pytest.mark.parametrize("site", PBSPRO_SLOWLY, indirect=True)
def test_a_task_of_an_array_goes_on_as_a_job_of_its_own_again_and_again(site: Site, tmp_path: Path) -> None:
    sweep = site.root / "seeds"
    said = site.sweep("seeds", "--vary", "seed=1..2", "--epochs", 9, "--set", "pause_s=0.1")
    assert said.code == 0, said
    until((sweep / "trial-0000" / "run.json").exists)
    trial = Run.open(sweep / "trial-0000")
    for again, steps in enumerate((5, 25), start=1):
        os.kill(pid_after(trial, "generator", steps=steps), signal.SIGTERM)
        until(lambda so_often=again: told(sweep / "jobs" / "0.journal").count("continued") == so_often)  # type: ignore[misc]
        assert counts(sweep).get("stopped", 0) == 0, "somebody goes on with it"
    until(lambda: counts(sweep) == {"finished": 2})
    # In no order: the next job may start before its id is noted.
    everything = sorted([*["started", "ended"] * 3, *["continued"] * 2])
    until(lambda: sorted(told(sweep / "jobs" / "0.journal")) == everything)
    assert weights_of(trial) == undisturbed(tmp_path / "undisturbed", epochs=9, seed=1)


def test_ten_epochs_under_a_time_limit_that_allows_three_ended_finished_without_a_person(
    background: Background, site: Site, tmp_path: Path
) -> None:
    for run in background.runs[site.dialect]:
        finished(run)
        for worker in status(run)["workers"]:
            assert len(links(run, worker["worker"])) >= 2, "it took several jobs"
            assert worker["job"] == links(run, worker["worker"])[-1]
    assert weights_of(background.runs[site.dialect][0]) == undisturbed(tmp_path / "undisturbed", epochs=10)


def test_a_sweep_under_a_time_limit_that_only_the_queue_has_ended_finished_without_a_person(
    background: Background, pro: Site, pbs: FakePbs, tmp_path: Path
) -> None:
    sweep = background.sweep
    until(lambda: counts(sweep) == {"finished": 2})
    for number in (0, 1):
        assert submissions(pbs, f"next-{number}.sh")
        trial = Run.open(sweep / f"trial-000{number}")
        assert weights_of(trial) == undisturbed(tmp_path / f"{number}", epochs=5, seed=number + 1)
