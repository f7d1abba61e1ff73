"""A command that is forked from the warm process of the tests behaves as one that was started on its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modtrain.storage.process_identity import process_started
from tests.support.command import until
from tests.support.fork_server.stand_in import FORK_OF, XDIST
from tests.support.launches import pid_after
from tests.support.runs import make_run, start_worker

BOTH = [["generator", "discriminator"]]


@pytest.fixture(autouse=True)
def _forking(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--no-fork"):
        pytest.skip("commands are not forked with --no-fork")


def test_a_fork_prints_and_ends_as_an_ordinary_process_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modtrain", "worker", "no-such-run", "--modules", "generator"]
    ordinary = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    forked, alone = (
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        for environment in (dict(os.environ), ordinary)
    )
    assert "no-such-run" in alone.stderr
    assert (forked.returncode, forked.stdout, forked.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def test_a_process_of_pytest_xdist_is_a_fork_that_has_torch_already(tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules, sys.argv, __name__, open('/proc/self/comm').read()); sys.exit(3)"
    process = [sys.executable, "-u", "-c", XDIST]
    done = subprocess.run(process, input=f"{code!r}\n", capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(f"True ['-c'] __main__ {FORK_OF}")
    assert (done.returncode, done.stderr) == (3, "")


def test_signals_reach_a_fork_and_its_exit_code_is_that_of_the_process(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, BOTH, params={"pause_s": 0.1}, epochs=100)
    process = start_worker(run, "generator,discriminator")
    assert pid_after(run, "generator", steps=2) != process.pid
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM" in process.communicate(timeout=60)[0]
    assert process.returncode == 75


@pytest.mark.parametrize("killed", ["process", "fork"])
def test_neither_outlives_the_other(killed: str, tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, BOTH, params={"pause_s": 0.1}, epochs=100)
    process = start_worker(run, "generator,discriminator")
    fork = pid_after(run, "generator", steps=2)
    os.kill(process.pid if killed == "process" else fork, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    until(lambda: process_started(fork) is None, timeout_s=10)
