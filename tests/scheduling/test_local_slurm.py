"""`cluster/local-slurm`: what `up` brings up, that `down` leaves nothing, and what they say where they can't."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.slurm import SCRIPTS, Slurm, local_slurm, script, short_folder

STUBBORN = "trap '' TERM; setsid --fork sleep 600; echo here; sleep 600"
"""A job that does not heed SIGTERM, with a process that has left the job's process group and has no parent."""


def processes_of(folder: Path) -> dict[int, bytes]:
    """Command lines of the processes that have the folder in their command line or environment; not of zombies."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if bytes(folder) + b"/" in command + environment:
            found[int(process.name)] = command
    return found


def daemons(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (folder / "pid").iterdir()}


def submitted(slurm: Slurm, text: str, *options: str) -> str:
    """A job of one CPU that writes to a file of its id."""
    return slurm.run("sbatch", "--parsable", f"--output={slurm.folder}/%j.out", *options, f"--wrap={text}")


def test_each_node_runs_a_job_and_its_exit_code_is_told(slurm: Slurm) -> None:
    jobs = [submitted(slurm, f"exit {number}", "--exclusive", f"--nodelist=n{number}") for number in (1, 2, 3)]
    ended = [slurm.until_over(job) for job in jobs]
    assert [(job.state, job.node, job.exit_code) for job in ended] == [("FAILED", f"n{n}", n) for n in (1, 2, 3)]


def test_the_torque_commands_reach_it(slurm: Slurm) -> None:
    path = slurm.folder / "job.sh"
    path.write_text("#!/bin/bash\n#PBS -N torque\nexit 0\n")
    job = slurm.run("qsub", "-o", "/dev/null", "-j", "oe", path)
    assert slurm.until_over(job).name == "torque"
    assert slurm.run("qstat", job).splitlines()[-1].split()[-2:] == ["C", "debug"]


def test_a_requeued_job_starts_again_within_seconds(slurm: Slurm) -> None:
    job = submitted(slurm, 'test -n "$SLURM_RESTART_COUNT" || { scontrol requeue $SLURM_JOB_ID; sleep 600; }')
    assert slurm.until_over(job, timeout_s=30).state == "COMPLETED"
    assert slurm.queue()[job].restarts == 1


def test_a_node_taken_down_loses_its_job_to_another_and_stays_down_until_it_resumes(slurm: Slurm) -> None:
    try:
        job = submitted(slurm, "sleep 600")
        lost = slurm.until_running(job).node
        slurm.set_node(lost, "DOWN")
        assert slurm.until(job, lambda found: found.state == "PENDING").restarts == 1
        assert slurm.until_running(job).node != lost
        assert slurm.node_states()[lost].startswith("down")
    finally:
        slurm.clear()
    assert slurm.node_states() == dict.fromkeys(("n1", "n2", "n3"), "idle")


def test_two_stand_side_by_side_and_know_nothing_of_each_other(slurm: Slurm) -> None:
    with local_slurm(nodes=1) as other:
        job = submitted(slurm, "sleep 600", "--job-name=first")
        there = submitted(other, "sleep 600", "--job-name=second")
        try:
            slurm.until_running(job)
            other.until_running(there)
            assert "second" not in {found.name for found in slurm.queue().values()}
            assert {found.name for found in other.queue().values()} == {"second"}
            assert other.node_states().keys() == {"n1"}
        finally:
            slurm.run("scancel", job)
    assert slurm.queue()[job].name == "first", "the end of one is not the end of the other"


def test_up_on_one_that_is_up_says_so_and_changes_nothing(slurm: Slurm) -> None:
    before = daemons(slurm.folder)
    again = script("up", slurm.folder)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("It is up already.")
    assert f"export SLURM_CONF={slurm.folder}/slurm.conf" in again.stdout
    assert daemons(slurm.folder) == before


def test_down_leaves_no_process_and_no_folder_whatever_the_jobs_do(slurm: Slurm) -> None:
    with local_slurm(nodes=2) as found:
        job = submitted(found, STUBBORN)
        found.until_running(job)
        wait_for(found.folder / f"{job}.out")
        assert any(b"sleep" in command for command in processes_of(found.folder).values())
        assert script("down", found.folder).stdout == f"The Slurm under {found.folder} is gone.\n"
        assert not found.folder.exists()
        assert processes_of(found.folder) == {}
        assert script("down", found.folder).stdout == f"Nothing is up under {found.folder}.\n"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)


@pytest.mark.parametrize("daemon", ["slurmctld", "munged", "n1"])
def test_up_replaces_one_that_is_half_dead(slurm: Slurm, daemon: str) -> None:
    with local_slurm(nodes=1) as found:
        before = daemons(found.folder)
        os.kill(int(before[daemon]), signal.SIGKILL)
        again = script("up", found.folder, "--nodes", "2")
        assert again.returncode == 0, again.stderr
        assert found.node_states() == {"n1": "idle", "n2": "idle"}
        assert not set(before.values()) & set(daemons(found.folder).values())


def test_a_folder_of_somebody_else_is_neither_used_nor_removed(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("\\end{document}")
    for name, sentence in {"up": "name another folder with --dir", "down": "it stays as it is"}.items():
        with short_folder() as folder:
            folder.symlink_to(tmp_path)
            said = script(name, folder)
            assert (said.returncode, said.stdout) == (2, "")
            assert sentence in said.stderr
            assert said.stderr.count("\n") == 1
    assert (tmp_path / "thesis.tex").exists()


def test_without_the_packages_it_says_which_ones_in_a_sentence(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    command = [bash, str(SCRIPTS / "up"), "--dir", "/tmp/not-made"]
    said = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert said.returncode == 2
    assert "sbatch" in said.stderr
    assert "apt-get install slurm-wlm slurm-wlm-torque munge" in said.stderr
    assert said.stderr.count("\n") == 1


def test_who_is_not_root_is_told_so_in_a_sentence() -> None:
    with short_folder() as folder:
        readable = shutil.copytree(SCRIPTS, folder)  # nobody may not look into the folder of the tests
        somebody = {"user": "nobody"} if os.geteuid() == 0 else {}
        command = [str(readable / "up"), "--dir", "/tmp/not-made"]
        said = subprocess.run(command, capture_output=True, text=True, cwd="/", **somebody)  # type: ignore[call-overload]
    assert said.returncode == 2
    assert said.stderr.startswith("local-slurm: only root can start it")
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dir", "/tmp/a b"], "--dir '/tmp/a b' may have at most 60 characters"),
        (["--dir", "/tmp/" + "x" * 60], "take a short one"),
        (["--nodes", "0"], "--nodes '0' must be a number from 1 to 99"),
        (["--node", "3"], "there is no option --node; the options are --dir --nodes"),
        (["--nodes"], "--nodes needs a value"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(options: list[str], sentence: str) -> None:
    said = subprocess.run([str(SCRIPTS / "up"), *options], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (2, "")
    assert sentence in said.stderr


def test_the_scripts_pass_shellcheck() -> None:
    command = ["shellcheck", "-x", *(str(SCRIPTS / name) for name in ("up", "down", "common.sh"))]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS)
    assert checked.returncode == 0, checked.stdout
