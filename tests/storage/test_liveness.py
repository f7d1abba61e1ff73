"""Whether workers are alive, without comparing two machines' clocks."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import StorageError
from modtrain.monitoring.alarms import find_alarms
from modtrain.monitoring.status import Status, build_status
from modtrain.scheduling.launcher_lock import claim
from modtrain.storage import filesystem, run_snapshot
from modtrain.storage import liveness as liveness_module
from modtrain.storage.liveness import Liveness, launcher_path, launcher_pid, live_modules
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.training.records import WorkerEvents
from tests.support.faults import Faults
from tests.support.runs import make_run


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    return make_run(tmp_path / "run", tiny_recipe, [["generator"], ["discriminator"]])


def beat(run: Run, module: str, **fields: Any) -> None:
    path = run.heartbeat_path(module)
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"host": "elsewhere", "pid": 1, "started": 1, "state": "running", "counter": 1, **fields}
    path.write_text(json.dumps(report))


def status_by(run: Run, liveness: Liveness) -> Status:
    return build_status(read_snapshot(run, liveness))


def states(run: Run, liveness: Liveness) -> dict[str, str]:
    return {name: module["state"] for name, module in status_by(run, liveness)["modules"].items()}


def test_a_worker_elsewhere_is_lost_only_after_a_silence_that_this_process_observed(run: Run) -> None:
    beat(run, "generator", at=0.0)  # by a clock that stands in 1970
    liveness = Liveness(patience_s=0.2)
    assert states(run, liveness) == {"generator": "running", "discriminator": "created"}
    assert liveness.uncertain() == ["generator"]
    liveness.settle(run)
    assert states(run, liveness)["generator"] == "lost"
    assert (liveness.silent_s("generator") or 0) >= 0.2
    assert liveness.silent_s("discriminator") is None
    beat(run, "generator", counter=2)
    assert states(run, liveness)["generator"] == "running"
    assert liveness.uncertain() == []


def test_a_snapshot_with_a_reader_s_own_liveness_waits_for_nothing(run: Run) -> None:
    beat(run, "generator")
    started = time.monotonic()
    read_snapshot(run, Liveness())
    assert time.monotonic() - started < 1


def test_a_process_of_this_machine_is_known_to_be_alive_or_dead_at_once(run: Run) -> None:
    pid = os.getpid()
    beat(run, "generator", host=socket.gethostname(), pid=pid, started=process_started(pid))
    beat(run, "discriminator", host=socket.gethostname(), pid=pid, started=1)
    assert states(run, Liveness()) == {"generator": "running", "discriminator": "lost"}


def test_a_worker_that_recorded_its_end_is_not_lost_although_its_last_heartbeat_could_not_be_written(run: Run) -> None:
    for pid, state in ((7, "lost"), (8, "failed")):
        beat(run, "generator", host=socket.gethostname(), pid=pid, started=1)
        events = WorkerEvents(run, ["generator"])
        events._write("left", host=socket.gethostname(), pid=8, state="failed", exit_code=6, trouble="No space left")
        status = status_by(run, Liveness())
        assert status["modules"]["generator"]["state"] == state, pid
    assert (status["workers"][0]["trouble"], status["workers"][0]["exit_code"]) == ("No space left", 6)


def test_a_second_launch_is_not_begun_where_storage_does_not_say_whether_there_is_a_first_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_module, "SHORT_PATIENCE_S", 0.05)
    run.jobs_path.mkdir()
    claim(run)
    beat(run, "generator")
    before = launcher_path(run.path).read_bytes()
    faults = Faults(run.path, lambda _, call: "launcher.json" in call or "heartbeat.json" in call)
    with monkeypatch.context() as patch:
        faults.install(patch)
        patch.setattr(filesystem, "_open_without_links", lambda path: os.open(path, os.O_RDONLY))
        with pytest.raises(StorageError, match=r"launcher\.json cannot be read: Input/output error"):
            claim(run)
        with pytest.raises(OSError, match="Input/output error"):
            live_modules(run, ["generator"])
    assert len(faults.hits) >= 2
    assert launcher_path(run.path).read_bytes() == before


def test_a_heartbeat_that_is_missing_for_once_stays_what_it_was(run: Run) -> None:
    beat(run, "generator")
    liveness = Liveness()
    assert states(run, liveness)["generator"] == "running"
    run.heartbeat_path("generator").unlink()
    assert states(run, liveness)["generator"] == "running"


def test_a_heartbeat_that_storage_does_not_give_for_once_stays_what_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat(run, "generator")
    liveness = Liveness()
    liveness.refresh(run)

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "_open_without_links", fail)
        liveness.refresh(run)
    assert liveness.report("generator").state == "running"
    assert liveness.is_alive("generator")


def test_status_takes_a_moment_to_recognise_a_dead_worker_elsewhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_snapshot, "SHORT_PATIENCE_S", 0.2)
    beat(run, "generator")
    assert build_status(read_snapshot(run))["modules"]["generator"]["state"] == "lost"


def test_only_modules_with_a_live_worker_are_live(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness_module, "SHORT_PATIENCE_S", 0.2)
    pid = os.getpid()
    beat(run, "generator", host=socket.gethostname(), pid=pid, started=process_started(pid))
    beat(run, "discriminator")
    assert live_modules(run) == ["generator"]
    assert live_modules(run, ["discriminator"]) == []


def test_the_launcher_of_a_run_is_known_while_its_process_runs(run: Run) -> None:
    run.jobs_path.mkdir()
    assert launcher_pid(run.path) is None
    claim(run)
    assert launcher_pid(run.path) == os.getpid()
    identity = json.loads(launcher_path(run.path).read_text())
    for foreign in ({**identity, "started": 1}, {**identity, "host": "elsewhere"}, {"pid": "x"}, [1]):
        launcher_path(run.path).write_text(json.dumps(foreign))
        assert launcher_pid(run.path) is None, foreign


def test_workers_that_a_cancel_killed_are_cancelled_and_no_alarm(run: Run) -> None:
    for module in run.modules:
        beat(run, module, host=socket.gethostname(), pid=os.getpid(), started=1)
    status = build_status(read_snapshot(run))
    assert status["state"] == "lost"
    assert {alarm.level for alarm in find_alarms(status)} == {"bad"}
    run.request_stop("cancelled", kind="cancelled")
    status = build_status(read_snapshot(run))
    assert (status["state"], {worker["state"] for worker in status["workers"]}) == ("cancelled", {"cancelled"})
    assert find_alarms(status) == []


def test_a_worker_that_failed_before_it_could_report_is_named_by_the_stop_request(run: Run) -> None:
    run.request_stop("No space left on device", kind="worker_failed", sender="discriminator")
    status = build_status(read_snapshot(run))
    assert status["state"] == "failed"
    (alarm,) = find_alarms(status)
    assert (alarm.module, alarm.says) == ("discriminator", "discriminator failed: No space left on device.")
