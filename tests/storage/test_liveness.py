"""Pulse: who lives, told without waiting and without comparing two machines' clocks."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import StopRequested
from modtrain.monitoring.alarms import alarms
from modtrain.monitoring.status import status
from modtrain.storage import liveness as module_under_test
from modtrain.storage.liveness import Pulse, settle
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import CANCELLED, Run
from modtrain.training.shutdown import Shutdown
from tests.support.runs import make_run


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    return make_run(tmp_path / "run", tiny_recipe, [["generator"], ["discriminator"]])


def beat(run: Run, module: str, **says: Any) -> None:
    path = run.module_path(module)
    path.mkdir(parents=True, exist_ok=True)
    said = {"host": "elsewhere", "pid": 1, "started": 1, "state": "training", "counter": 1, **says}
    (path / "heartbeat.json").write_text(json.dumps(said))


def test_a_worker_elsewhere_is_lost_only_after_a_silence_that_we_have_seen_ourselves(run: Run) -> None:
    beat(run, "generator", at=0.0)  # by a clock that stands in 1970
    pulse = Pulse(patience_s=0.2)
    assert pulse.look(run)[1] == {"generator": "training", "discriminator": "not started"}
    assert pulse.unsure() == ["generator"]
    settle(pulse, run)
    assert pulse.look(run)[1]["generator"] == "lost"
    assert (pulse.silent_s("generator") or 0) >= 0.2
    assert pulse.silent_s("discriminator") is None
    beat(run, "generator", counter=2)
    assert pulse.look(run)[1]["generator"] == "training"
    assert pulse.unsure() == []


def test_a_look_waits_for_nothing(run: Run) -> None:
    beat(run, "generator")
    begun = time.monotonic()
    Pulse().look(run)
    assert time.monotonic() - begun < 1


def test_a_process_of_this_machine_is_known_at_once(run: Run) -> None:
    pid = os.getpid()
    beat(run, "generator", host=socket.gethostname(), pid=pid, started=process_started(pid))
    beat(run, "discriminator", host=socket.gethostname(), pid=pid, started=1)
    assert Pulse().look(run)[1] == {"generator": "training", "discriminator": "lost"}


@pytest.mark.parametrize("content", ["", "5", "[[1]]", '"x"', "{", "[" * 9999, "null", '{"pid": {}, "state": []}'])
def test_a_foreign_heartbeat_is_none(run: Run, content: str) -> None:
    beat(run, "generator")
    (run.module_path("generator") / "heartbeat.json").write_text(content)
    assert Pulse().look(run)[1]["discriminator"] == "not started"


def test_a_heartbeat_that_is_a_pipe_or_a_folder_or_huge_keeps_nobody_waiting(run: Run) -> None:
    for module in run.modules:
        run.module_path(module).mkdir(parents=True)
    os.mkfifo(run.module_path("generator") / "heartbeat.json")
    with (run.module_path("discriminator") / "heartbeat.json").open("wb") as file:
        file.truncate(2 << 30)
    assert set(Pulse().look(run)[1].values()) == {"not started"}


def test_a_beat_that_cannot_be_read_for_once_stays_what_it_was(run: Run) -> None:
    beat(run, "generator")
    pulse = Pulse()
    pulse.look(run)
    (run.module_path("generator") / "heartbeat.json").unlink()
    assert pulse.look(run)[1]["generator"] == "training"


def test_status_takes_a_moment_to_tell_a_dead_worker_elsewhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_under_test, "ONE_LOOK_S", 0.2)
    monkeypatch.setattr("modtrain.monitoring.status.ONE_LOOK_S", 0.2)
    beat(run, "generator")
    assert status(run)["modules"]["generator"]["state"] == "lost"


def test_a_run_whose_workers_were_killed_by_a_cancel_is_stopped_and_not_in_trouble(run: Run) -> None:
    for module in run.modules:
        beat(run, module, host=socket.gethostname(), pid=os.getpid(), started=1)
    assert status(run)["state"] == "failed"
    run.request_stop(CANCELLED)
    found = status(run)
    assert (found["state"], {worker["state"] for worker in found["workers"]}) == ("stopped", {"stopped"})
    assert alarms(found) == []


def test_a_worker_that_is_to_stop_does_so_though_its_job_s_time_ends_or_it_is_told_to_leave(run: Run) -> None:
    run.request_stop("lunch")
    with Shutdown(run) as shutdown:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (reason := shutdown.reason())
        assert reason.kind is StopRequested
    with Shutdown(run, leave_after_s=0.001) as shutdown:
        assert (reason := shutdown.reason())
        assert reason.kind is StopRequested


def test_a_worker_that_failed_before_it_could_say_so_is_told_by_whoever_watched_it(run: Run) -> None:
    run.request_stop("discriminator failed: No space left on device")
    found = status(run)
    assert found["state"] == "failed"
    (alarm,) = alarms(found)
    assert (alarm.module, alarm.says) == ("discriminator", "discriminator failed: No space left on device.")


def test_what_was_stopped_before_it_began_does_not_run(run: Run) -> None:
    (run.path / "jobs").mkdir()
    (run.path / "jobs" / "0.log").touch()
    assert status(run)["state"] == "running", "a worker may take its time to say so"
    run.request_stop("lunch")
    assert status(run)["state"] == "stopped"
