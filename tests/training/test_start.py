"""A worker on storage that fails: its start is tried again, and a run that was moved is not created anew."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from modtrain.errors import RunMoved, StorageError, error_of
from modtrain.storage import filesystem
from modtrain.training import shutdown, worker
from tests.support.faults import Faults
from tests.support.runs import finish, make_run

TOGETHER = [["generator", "discriminator"]]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "RETRY_S", 0.01)
    monkeypatch.setattr(filesystem, "RETRY_POLL_S", 0.01)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_no_single_fault_among_the_first_calls_of_a_worker_ends_it(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    seen, runs = set(), [f"run-{call}" for call in range(number % 4 + 1, 50, 5)]
    for name in runs:
        run = make_run(tmp_path / name, tiny_recipe, TOGETHER, params={"batches": 1}, epochs=1)
        faults = Faults(run.path, lambda call, _, name=name: name == f"run-{call}", number)  # type: ignore[misc]
        with monkeypatch.context() as patch:
            faults.install(patch)
            finish(run)
        assert faults.hits
        assert run.is_finished(run.modules), faults.hits
        seen |= {hit.partition(" ")[0] for hit in faults.hits}
    assert {"open", "listdir"} <= seen


def test_a_start_that_storage_refuses_for_too_long_is_a_failure_of_storage(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER, storage_timeout_s=0.1)
    faults = Faults(run.path, lambda _, call: call.startswith("listdir") and "checkpoints" in call)
    with monkeypatch.context() as patch:
        faults.install(patch)
        with pytest.raises(StorageError, match=r"Starting in .*run has failed for 0 s: .*Input/output error.*doctor"):
            finish(run)
    assert len(faults.hits) >= 2, "it was tried again"
    report = run.read_report("generator")
    assert (report.state, report.exit_code) == ("failed", 6)


def test_a_checkpoint_that_storage_does_not_give_for_once_costs_no_epoch(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 1}, epochs=2)
    finish(run)
    for file in ("meta.json", "state.pt"):
        faults = Faults(run.path, lambda _, call, file=file: file in call, most=1)  # type: ignore[misc]
        with monkeypatch.context() as patch:
            faults.install(patch)
            finish(run)
        assert faults.hits, file
        assert run.store("generator").versions() == [0, 1, 2], "nothing was trained again"


def test_a_worker_whose_run_was_moved_exits_and_creates_nothing_at_the_old_place(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"pause_s": 0.02}, epochs=1000)
    errors: list[BaseException] = []

    def train() -> None:
        with pytest.raises(RunMoved, match=r"run no longer holds a run: it was moved or deleted") as caught:
            finish(run)
        errors.append(caught.value)

    thread = threading.Thread(target=train)
    thread.start()
    assert filesystem.wait_until(lambda: len(run.store("generator").versions()) > 1 or None, timeout_s=60)
    run.path.rename(tmp_path / "moved")
    thread.join(timeout=60)
    assert [getattr(error, "exit_code", None) for error in errors] == [6]
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


@pytest.mark.parametrize(
    ("part", "code", "state"),
    [
        ("accept_recipe", 3, "stopped"),
        ("RunStages", 75, "preempted"),
        ("Learner", 3, "stopped"),
        ("Peers", 75, "preempted"),
    ],
)
def test_a_starting_worker_that_is_asked_to_exit_does_not_build_the_rest(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, part: str, code: int, state: str
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    monkeypatch.setattr(shutdown, "STOP_POLL_S", 0.0)
    original, built = getattr(worker, part), []

    def build(*values: object, **options: object) -> object:
        built.append(part)
        if code == 3:
            run.request_stop("lunch")
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*values, **options)

    monkeypatch.setattr(worker, part, build)
    with pytest.raises(error_of(code), match=": left before training began"):
        finish(run)
    report = run.read_report("generator")
    assert (built, report.state, report.exit_code) == ([part], state, code)
    assert run.store("generator").versions() == []
