"""The contract of a backend, tested with real commands on every one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modtrain import plugins
from modtrain.errors import InputError
from modtrain.scheduling.backends.base import Backend, BackendOptions, Job, JobState, python_path
from tests.support.command import until

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture(params=["local", "ray", "slurm", "torque", "pbspro"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, BackendOptions]:
    """The name and options of each backend: PBS is Torque's commands on a real Slurm, and a fake PBS Pro."""
    where: str = request.param
    if where in ("slurm", "torque"):
        request.getfixturevalue("slurm")
    if where == "pbspro":
        monkeypatch.setenv("PATH", request.getfixturevalue("pbs_pro").env["PATH"])
    address = request.getfixturevalue("raylets").address if where == "ray" else None
    name = "pbs" if where in ("torque", "pbspro") else where
    return name, BackendOptions(address=address)


@pytest.fixture
def backend(kind: tuple[str, BackendOptions]) -> Backend:
    name, options = kind
    backend: Backend = plugins.load("backend", name)(options)
    return backend


@pytest.fixture
def submit(backend: Backend, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Submits Python code as a job with its log in a folder with spaces and quotes in its name; finally cancels all."""
    ids: list[str] = []

    def one(code: str, *arguments: str, name: str = "job") -> str:
        command = (sys.executable, "-c", code, *arguments)
        log = tmp_path / "a 'run' of \"mine\"" / f"{name}.log"
        ids.extend(backend.submit([Job(name=f"{tmp_path.name}.{name}", command=command, log=log)]))
        return ids[-1]

    yield one
    backend.cancel(ids)


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., list[str]]:
    def lines(name: str = "job", *, at_least: int = 0, timeout_s: float = 60.0) -> list[str]:
        path = tmp_path / "a 'run' of \"mine\"" / f"{name}.log"
        until(lambda: len(lines_of(path)) >= at_least, timeout_s)
        return lines_of(path)

    return lines


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def until_ended(backend: Backend, id: str, timeout_s: float = 60.0) -> JobState:
    until(lambda: not backend.status([id])[id].live, timeout_s)
    return backend.status([id])[id]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("exit_code", [0, 3, 5])
def test_an_ended_job_has_its_exit_code(backend: Backend, submit: Any, exit_code: int) -> None:
    id = submit(f"raise SystemExit({exit_code})", name=f"job{exit_code}")
    assert until_ended(backend, id) == JobState(phase="ended", exit_code=exit_code)


def test_arguments_are_passed_unchanged_and_output_is_appended_to_the_log(
    backend: Backend, submit: Any, log: Any, tmp_path: Path
) -> None:
    words = ["a b", "it's", '"$HOME"', "", "ä\n"]
    code = "import json, sys; print(json.dumps(sys.argv[1:])); print('trouble', file=sys.stderr)"
    until_ended(backend, submit(code, *words))
    until_ended(backend, submit(code, *words))
    assert sorted(log()) == sorted(2 * [json.dumps(words), "trouble"])


def test_a_killed_command_is_restarted_by_a_backend_without_a_launcher_and_else_ends_with_the_signal(
    backend: Backend, submit: Any, log: Any
) -> None:
    id = submit(SLEEP)
    os.kill(int(log(at_least=1)[0]), 9)
    if backend.unattended:
        assert log(at_least=2)[0] != log()[1]
        assert backend.status([id])[id].live
    else:
        assert until_ended(backend, id) == JobState(phase="ended", exit_code=-9)


def test_a_cancelled_job_has_no_process_and_can_be_cancelled_again(backend: Backend, submit: Any, log: Any) -> None:
    id = submit(SLEEP)
    pid = int(log(at_least=1)[0])
    for _ in range(2):
        backend.cancel([id])
        assert not is_running(pid)
        assert not backend.status([id])[id].live


def test_another_process_finds_a_job_by_its_id_and_can_cancel_it(
    backend: Backend, kind: tuple[str, BackendOptions], submit: Any, log: Any
) -> None:
    id = submit(SLEEP)
    pid = int(log(at_least=1)[0])
    other = (
        "import sys; from modtrain import plugins; from modtrain.scheduling.backends.base import BackendOptions\n"
        "kind, address, id = sys.argv[1:]\n"
        "backend = plugins.load('backend', kind)(BackendOptions(address=address or None))\n"
        "states = backend.status([id, id + '0']); print(states[id].phase, states[id + '0'].live)\n"
        "backend.cancel([id]); print(backend.status([id])[id].live)\n"
    )
    command = [sys.executable, "-c", other, kind[0], kind[1].address or "", id]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | python_path())
    assert done.stdout.split() == ["running", "False", "False"], done
    assert not is_running(pid)


@pytest.mark.parametrize("id", ["", "nobody", "nobody@/nowhere/0.log", "otherhost:1:2"])
def test_an_unknown_id_is_unknown_and_cancelling_it_does_nothing(backend: Backend, id: str) -> None:
    assert backend.status([id]) == {id: JobState(phase="unknown")}
    backend.cancel([id])


def test_each_of_many_jobs_gets_at_least_one_core(backend: Backend) -> None:
    assert backend.cores(1) >= 1
    assert backend.cores(1000) == 1


def test_a_command_that_does_not_exist_is_refused_or_ends_with_an_error(backend: Backend, tmp_path: Path) -> None:
    job = Job(name=f"{tmp_path.name}.none", command=("/no/such/program",), log=tmp_path / "none.log")
    try:
        (id,) = backend.submit([job])
    except InputError as error:
        assert "/no/such/program" in str(error)  # noqa: PT017
        return
    assert until_ended(backend, id).exit_code in (1, 127)
    backend.cancel([id])
