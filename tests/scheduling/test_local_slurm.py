"""`cluster/local-slurm`: `up` starts a working Slurm, `down` leaves nothing of it, and both explain their errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.command import until
from tests.support.slurm import SCRIPTS, Slurm, local_slurm, script, short_folder

STUBBORN = "trap '' TERM; setsid --fork sleep 600; echo here; sleep 600"
"""A job that ignores SIGTERM, with a process outside of the job's process group and without a parent."""


def processes_of(folder: Path) -> dict[int, bytes]:
    """Command lines of the processes that have the folder in their command line or environment; not of zombies."""
    commands = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if bytes(folder) + b"/" in command + environment:
            commands[int(process.name)] = command
    return commands


def daemons(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (folder / "pid").iterdir()}


def submitted(slurm: Slurm, text: str, *options: str) -> str:
    """A job of one CPU that writes to a file of its id."""
    return slurm.run("sbatch", "--parsable", f"--output={slurm.folder}/%j.out", *options, f"--wrap={text}")


def test_each_node_runs_a_job_and_reports_its_exit_code(slurm: Slurm) -> None:
    jobs = [submitted(slurm, f"exit {number}", "--exclusive", f"--nodelist=n{number}") for number in (1, 2, 3)]
    ended = [slurm.until_over(job) for job in jobs]
    assert [(job.state, job.node, job.exit_code) for job in ended] == [("FAILED", f"n{n}", n) for n in (1, 2, 3)]


def test_the_torque_commands_work(slurm: Slurm) -> None:
    path = slurm.folder / "job.sh"
    path.write_text("#!/bin/bash\n#PBS -N torque\nexit 0\n")
    job = slurm.run("qsub", "-o", "/dev/null", "-j", "oe", path)
    assert slurm.until_over(job).name == "torque"
    assert slurm.run("qstat", job).splitlines()[-1].split()[-2:] == ["C", "debug"]


def test_a_requeued_job_starts_again_within_seconds(slurm: Slurm) -> None:
    job = submitted(slurm, 'test -n "$SLURM_RESTART_COUNT" || { scontrol requeue $SLURM_JOB_ID; sleep 600; }')
    assert slurm.until_over(job, timeout_s=30).state == "COMPLETED"
    assert slurm.queue()[job].restarts == 1


def test_the_job_of_a_node_set_down_moves_to_another_node_and_the_node_stays_down_until_it_is_resumed(
    slurm: Slurm,
) -> None:
    try:
        job = submitted(slurm, "sleep 600")
        lost = slurm.until_running(job).node
        slurm.set_node(lost, "DOWN")
        assert slurm.until(job, lambda job: job.state == "PENDING").restarts == 1
        assert slurm.until_running(job).node != lost
        assert slurm.node_states()[lost].startswith("down")
    finally:
        slurm.clear()
    assert slurm.node_states() == dict.fromkeys(("n1", "n2", "n3"), "idle")


def test_two_run_at_the_same_time_without_seeing_each_other(slurm: Slurm) -> None:
    with local_slurm(nodes=1) as other:
        job = submitted(slurm, "sleep 600", "--job-name=first")
        there = submitted(other, "sleep 600", "--job-name=second")
        try:
            slurm.until_running(job)
            other.until_running(there)
            assert "second" not in {job.name for job in slurm.queue().values()}
            assert {job.name for job in other.queue().values()} == {"second"}
            assert other.node_states().keys() == {"n1"}
        finally:
            slurm.run("scancel", job)
    assert slurm.queue()[job].name == "first", "ending one does not end the other"


def test_up_on_a_running_one_prints_how_to_use_it_and_changes_nothing(slurm: Slurm) -> None:
    before = daemons(slurm.folder)
    again = script("up", slurm.folder)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("It is running already.")
    assert f"export SLURM_CONF={slurm.folder}/slurm.conf" in again.stdout
    assert daemons(slurm.folder) == before


def test_down_leaves_no_process_and_no_folder_even_of_jobs_that_ignore_signals(slurm: Slurm) -> None:
    with local_slurm(nodes=2) as local:
        job = submitted(local, STUBBORN)
        local.until_running(job)
        output = local.folder / f"{job}.out"
        until(lambda: output.exists() and output.stat().st_size, timeout_s=30)
        assert any(b"sleep" in command for command in processes_of(local.folder).values())
        assert script("down", local.folder).stdout == f"The Slurm in {local.folder} has ended.\n"
        assert not local.folder.exists()
        assert processes_of(local.folder) == {}
        assert script("down", local.folder).stdout == f"No local Slurm is running in {local.folder}.\n"


@pytest.mark.parametrize("daemon", ["slurmctld", "munged", "n1"])
def test_up_replaces_one_that_has_lost_a_daemon(slurm: Slurm, daemon: str) -> None:
    with local_slurm(nodes=1) as local:
        before = daemons(local.folder)
        os.kill(int(before[daemon]), signal.SIGKILL)
        until(lambda: int(before[daemon]) not in processes_of(local.folder), timeout_s=30)
        again = script("up", local.folder, "--nodes", "2")
        assert again.returncode == 0, again.stderr
        assert local.node_states() == {"n1": "idle", "n2": "idle"}
        assert not set(before.values()) & set(daemons(local.folder).values())


def test_a_folder_that_up_did_not_create_is_neither_used_nor_removed(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("\\end{document}")
    for name, sentence in {"up": "name another folder with --dir", "down": "it is left unchanged"}.items():
        with short_folder() as folder:
            folder.symlink_to(tmp_path)
            result = script(name, folder)
            assert (result.returncode, result.stdout) == (2, "")
            assert sentence in result.stderr
            assert result.stderr.count("\n") == 1
    assert (tmp_path / "thesis.tex").exists()


def test_missing_packages_are_named_in_one_sentence(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    command = [bash, str(SCRIPTS / "up"), "--dir", "/tmp/not-made"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert result.returncode == 2
    assert "sbatch" in result.stderr
    assert "apt-get install slurm-wlm slurm-wlm-torque munge" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_user_other_than_root_gets_one_sentence() -> None:
    with short_folder() as folder:
        readable = shutil.copytree(SCRIPTS, folder)  # the user `nobody` cannot read the tests' folder
        user = {"user": "nobody"} if os.geteuid() == 0 else {}
        command = [str(readable / "up"), "--dir", "/tmp/not-made"]
        result = subprocess.run(command, capture_output=True, text=True, cwd="/", **user)  # type: ignore[call-overload]
    assert result.returncode == 2
    assert result.stderr.startswith("local-slurm: only root can start it")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--dir", "/tmp/a b"], "--dir '/tmp/a b' may have at most 60 characters"),
        (["--dir", "/tmp/" + "x" * 60], "use a short one"),
        (["--nodes", "0"], "--nodes '0' must be a number from 1 to 99"),
        (["--node", "3"], "there is no option --node; the options are --dir --nodes"),
        (["--nodes"], "--nodes needs a value"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(options: list[str], sentence: str) -> None:
    result = subprocess.run([str(SCRIPTS / "up"), *options], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_the_scripts_pass_shellcheck() -> None:
    command = ["shellcheck", "-x", *(str(SCRIPTS / name) for name in ("up", "down", "common.sh"))]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS)
    assert checked.returncode == 0, checked.stdout
