"""Ray clusters of their own: a launch that loses the head, and the scripts in cluster/ray.

All nodes are on this machine, each with its own raylet. Those that the scripts start listen on its network and accept
clients with their token.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modtrain.cli.options import CHECKING
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run
from tests.support.command import Result, ended, start, until
from tests.support.fake_pbs import Cluster, FakePbs, fake_pbs
from tests.support.launches import is_final, pid_after
from tests.support.raylets import SLOWLY, check_resumed, new_run, node_of
from tests.support.slurm import Slurm
from tests.support.three import recipe_of_three

SCRIPTS = Path(__file__).parents[2] / "cluster" / "ray"
CONFIG = """
recipe: {recipe}
root: runs
epochs: 10
params: {{batches: {batches}, pause_s: 0.05}}
"""


def check_one_sentence(result: Result) -> None:
    """Assert that the error is one line and no traceback."""
    assert "Traceback" not in result.out + result.err
    checking, _ = [line for line in result.err.splitlines() if line.strip()]
    assert checking == CHECKING


@dataclass(frozen=True)
class Machines:
    """Ray nodes started by cluster/ray/start as on several machines: each has a folder of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user with the token."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "a token" / "file")}
        return others | token | {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}

    def start(self, machine: str, what: str, *options: str) -> str:
        """Start a node; the address of its cluster."""
        words = [
            str(SCRIPTS / "start"),
            what,
            "--dir",
            str(self.folder / machine),
            "--python",
            sys.executable,
            *options,
        ]
        # A pipe would stay open as long as the node runs.
        with open(self.folder / f"{machine}.output", "w+") as output:
            done = subprocess.run([*words, "--", "--num-cpus", "1"], stdout=output, stderr=output, env=self.environment)
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, text
        return text.partition("of the cluster ")[2].split()[0].rstrip(".")

    def processes(self, machine: str) -> list[int]:
        """Pids of all Ray processes of a machine."""
        mark = f"{self.folder / machine}/".encode()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if mark in _read(Path(f"/proc/{pid}/cmdline"))]

    def lose(self, machine: str, workers: dict[str, int]) -> list[str]:
        """Kill all processes of a machine, with the workers (pids by module) that run on it; the modules of those."""
        nodes = self.processes(machine)
        lost = {module: pid for module, pid in workers.items() if int(node_of(pid)) in nodes}
        for pid in (*nodes, *lost.values()):
            os.kill(pid, signal.SIGKILL)
        return list(lost)

    def stop(self, machine: str) -> str:
        """By cluster/ray/stop."""
        command = [str(SCRIPTS / "stop"), "--dir", str(self.folder / machine)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def machines() -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short, as required by Ray's sockets
    machines = Machines(folder)
    yield machines
    for machine in folder.glob("machine*"):
        if machine.is_dir():
            machines.stop(machine.name)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("others", [0, 1])
def test_a_run_whose_cluster_lost_its_head_finishes_by_the_same_command_on_another_cluster(
    others: int, machines: Machines, tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in machines.environment.items():
        monkeypatch.setenv(name, value)
    command = ("launch", "--recipe", tiny_recipe, "--root", tmp_path, "--name", "run", *SLOWLY)

    monkeypatch.setenv("RAY_ADDRESS", machines.start("machine0", "head", "--port", "0"))
    for number in range(others):
        machines.start(f"machine{number + 1}", os.environ["RAY_ADDRESS"])
    launcher = start(*command)
    run = new_run(tmp_path / "run")
    pids = {module: pid_after(run, module, steps=12) for module in run.modules}
    lost = machines.lose("machine0", pids)
    assert len(lost) == 2 - others
    result = ended(launcher)
    assert result.code == 8
    check_one_sentence(result)
    assert f"The Ray cluster at {os.environ['RAY_ADDRESS']} is lost" in result.err
    until(lambda: not any(process_started(pid) for pid in pids.values()), timeout_s=30)
    until(lambda: not machines.processes("machine1"), timeout_s=30)

    monkeypatch.setenv("RAY_ADDRESS", machines.start("machine9", "head", "--port", "0"))
    result = ended(start(*command))
    assert result.code == 0, result
    assert is_final(run)
    for module in lost:
        check_resumed(run, module)
    assert "have ended" in machines.stop("machine9")
    assert not machines.processes("machine9")
    assert not (machines.folder / "machine9").exists()


@pytest.mark.parametrize("name", ["start", "stop", "common.sh", "ray.sbatch", "ray.pbs"])
def test_the_scripts_pass_bash_and_shellcheck(name: str) -> None:
    for check in (["bash", "-n"], ["shellcheck", "--external-sources", f"--source-path={SCRIPTS}"]):
        done = subprocess.run([*check, str(SCRIPTS / name)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["start"], "use 'start head', or the address"),
        (["start", "node1"], "'node1' is neither 'head' nor HOST:PORT"),
        (["start", "head", "--prot", "6379"], "there is no option --prot"),
        (["start", "head", "--port"], "--port needs a value"),
        (["start", "head", "--port", "x"], "--port 'x' must be a number"),
        (["start", "head", "--dir", "/tmp/with a space"], "must be a short absolute path"),
        (["start", "head", "--python", "/bin/false"], "/bin/false lacks modtrain"),
        (["start", "node1:6379"], "there is no token in {home}/.ray/auth_token"),
        (["start", "head", "--network", "999."], "this machine has no address that begins with '999.'"),
        (["stop", "now"], "the only option is --dir DIR"),
    ],
)
def test_an_error_of_the_scripts_is_one_sentence(words: list[str], sentence: str, machines: Machines) -> None:
    home = machines.folder / "home"
    home.mkdir()
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    script, *rest = words
    rest = rest if "--dir" in rest or not rest else [*rest[:1], "--dir", str(machines.folder / "m"), *rest[1:]]
    done = subprocess.run([str(SCRIPTS / script), *rest], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ray: ")
    assert sentence.format(home=home) in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def submitted_from(tmp_path: Path, tiny_recipe: Path) -> Callable[[int], Path]:
    """Makes a folder with a space in its name and a config of three modules, with `batches` batches per epoch."""

    def make(batches: int) -> Path:
        folder = tmp_path / "submitted from"
        folder.mkdir()
        recipe = recipe_of_three(folder / "three.py", tiny_recipe)
        (folder / "my config.yaml").write_text(CONFIG.format(recipe=recipe, batches=batches))
        return folder

    return make


def clean(environment: dict[str, str]) -> dict[str, str]:
    """The environment without the variables that other tests set for Ray."""
    others = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
    return others | {"MODTRAIN_PYTHON": sys.executable}


def sbatch(slurm: Slurm, folder: Path, *options: str) -> str:
    """Submit ray.sbatch on three nodes; the job's id."""
    command = ["sbatch", "--parsable", str(SCRIPTS / "ray.sbatch"), "my config.yaml", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean(slurm.environment))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output_of(folder: Path) -> str:
    return "".join(log.read_text() for log in folder.glob("ray-*.log"))


def folder_of(raylet: str) -> Path:
    """Folder in /tmp of a Ray node of a job."""
    command = _read(Path(f"/proc/{raylet}/cmdline")).decode()
    return Path("/tmp") / command.partition("=/tmp/")[2].partition("/")[0]


def processes_of(slurm: Slurm, job: str) -> list[int]:
    """Pids of all processes of a job, including those that Slurm does not track."""
    marks = {f"SLURM_CONF={slurm.folder}/slurm.conf".encode(), f"SLURM_JOB_ID={job}".encode()}
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if marks <= set(_read(Path(f"/proc/{pid}/environ")).split(b"\0"))]


@pytest.mark.slow
def test_a_slurm_job_of_three_nodes_trains_three_modules_on_ray_and_leaves_nothing(
    slurm: Slurm, submitted_from: Callable[[int], Path]
) -> None:
    folder = submitted_from(10)
    job = sbatch(slurm, folder)
    run = new_run(folder / "runs" / f"job-{job}")
    nodes = {node_of(pid_after(run, module, steps=1)) for module in run.modules}
    folders = {folder_of(node) for node in nodes}
    assert len(folders) == 3
    assert all(folder.is_dir() for folder in folders)
    assert processes_of(slurm, job)
    assert slurm.until_over(job).state == "COMPLETED", output_of(folder)
    assert is_final(run)
    until(lambda: not processes_of(slurm, job))
    assert not any(folder.exists() for folder in folders)


@pytest.mark.slow
def test_before_its_time_limit_a_job_publishes_is_requeued_and_resumes(
    slurm: Slurm, submitted_from: Callable[[int], Path]
) -> None:
    folder = submitted_from(20)
    job = sbatch(slurm, folder)
    run = new_run(folder / "runs" / f"job-{job}")
    for module in run.modules:
        pid_after(run, module, steps=20)
    slurm.run("scancel", "--batch", "--signal=USR2", job)  # what --signal=B:USR2@120 does
    slurm.until(job, lambda job: job.restarts == 1)
    assert slurm.until_over(job, timeout_s=120).state == "COMPLETED", output_of(folder)
    assert is_final(run)
    for module in run.modules:
        check_resumed(run, module)


@pytest.mark.slow
def test_a_job_survives_the_loss_of_a_ray_node(slurm: Slurm, submitted_from: Callable[[int], Path]) -> None:
    folder = submitted_from(20)
    job = sbatch(slurm, folder)
    run = new_run(folder / "runs" / f"job-{job}")
    nodes = {node_of(pid_after(run, module, steps=25)): module for module in run.modules}
    head = {raylet for raylet in nodes if b"--head" in _read(Path(f"/proc/{raylet}/cmdline"))}
    lost = next(raylet for raylet in nodes if raylet not in head)
    os.kill(int(lost), signal.SIGKILL)
    assert slurm.until_over(job, timeout_s=120).state == "COMPLETED", output_of(folder)
    assert is_final(run)
    check_resumed(run, nodes[lost])


@pytest.mark.slow
def test_a_pbs_job_of_one_node_trains_all_modules(tmp_path: Path, submitted_from: Callable[[int], Path]) -> None:
    folder = submitted_from(10)
    with fake_pbs(tmp_path / "pbs", Cluster(nodes=1, ncpus=3)) as pbs:
        job = qsub(pbs, folder, "-l", "select=1:ncpus=3")
        assert pbs.wait(job, "F", timeout_s=120) == "F"
        assert pbs.shown(job)["Exit_status"] == "0", output_of(folder)
    assert is_final(Run.open(folder / "runs" / "my config"))
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".ray")) == []


PBSDSH = """#!/bin/bash
# Runs a command once per slot of the job, under the name of its host, in an almost empty environment.
[ "$1" = -- ] && shift
here=$(hostname) first=
while read -r host; do
  env -i HOME="$HOME" PATH="{stubs}:/usr/bin:/bin" NAME="${first:+$host}" HERE="$here" "$@" &
  env -i HOME="$HOME" PATH="{stubs}:/usr/bin:/bin" NAME="${first:+$host}" HERE="$here" "$@" &
  first=over
done <"$PBS_NODEFILE"
wait
"""
HOSTNAME = """#!/bin/bash
[ $# -eq 0 ] || exec /bin/hostname "$@"
echo "${NAME:-$HERE}"
"""


@pytest.mark.slow
def test_a_pbs_job_of_three_hosts_has_a_ray_node_on_each(tmp_path: Path, submitted_from: Callable[[int], Path]) -> None:
    folder = submitted_from(40)
    with fake_pbs(tmp_path / "pbs", Cluster(nodes=3, ncpus=2)) as pbs:
        for path, text in ((pbs.home / "bin/pbsdsh", PBSDSH), (tmp_path / "stubs/hostname", HOSTNAME)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("{stubs}", str(tmp_path / "stubs")))
            path.chmod(0o755)
        job = qsub(pbs, folder)
        run = new_run(folder / "runs" / "my config")
        folders = {folder_of(node_of(pid_after(run, module, steps=1))) for module in run.modules}
        assert len(folders) == 3
        assert pbs.wait(job, "F", timeout_s=120) == "F"
        assert pbs.shown(job)["Exit_status"] == "0", output_of(folder)
    assert is_final(run)
    assert not any(folder.exists() for folder in folders)


@pytest.mark.slow
def test_a_pbs_job_submits_itself_again_before_its_time_limit(
    tmp_path: Path, submitted_from: Callable[[int], Path]
) -> None:
    folder = submitted_from(60)
    script = folder / "ray.pbs"  # as a user edits it
    text = (SCRIPTS / "ray.pbs").read_text()
    script.write_text(text.replace("select=3:ncpus=2", "select=1:ncpus=2").replace("=01:00:00", "=00:00:48"))
    with fake_pbs(tmp_path / "pbs", Cluster(nodes=1, ncpus=2)) as pbs:
        job = int(qsub(pbs, folder, script=script).partition(".")[0])
        run = new_run(folder / "runs" / "my config")
        while pbs.wait(str(job), "F", timeout_s=120) and not is_final(run):
            assert pbs.shown(str(job))["Exit_status"] == "0", output_of(folder)
            job += 1
    check_resumed(run, "third")


def qsub(pbs: FakePbs, folder: Path, *options: str, script: Path = SCRIPTS / "ray.pbs") -> str:
    """Submit ray.pbs; the job's id."""
    variables = {"MODTRAIN_CONFIG": "my config.yaml", "MODTRAIN_PYTHON": sys.executable, "MODTRAIN_AGAIN": script}
    values = ",".join(f"{name}={value}" for name, value in variables.items())
    command = ["qsub", *options, "-v", values, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean(os.environ | pbs.env))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
