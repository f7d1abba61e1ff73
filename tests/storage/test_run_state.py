"""The state of workers and of a run, for every combination of facts that a folder and a scheduler can show."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from modtrain.scheduling.job_record import JobId, Record
from modtrain.scheduling.launcher_lock import claim
from modtrain.storage.layout import JOBS_FILE
from modtrain.storage.process_identity import process_started
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.run_snapshot import JobPhase, WorkerJob, read_snapshot
from modtrain.storage.run_state import DESCRIPTIONS, RunState, run_state, worker_states
from modtrain.storage.stop_request import StopKind


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is known of one worker, and the states that a user expects."""

    report: str | None = None
    alive: bool = False
    final: bool = False
    job: JobPhase | None = None
    exit_code: int | None = None
    own_job: bool = True
    """Whether the report is of the job that is asked about, not of an earlier one."""
    stop: StopKind | None = None
    sender: str = "generator"
    reason: str = "a reason"
    submitted: bool = False
    launcher: bool = False
    worker: RunState
    run: RunState | None = None
    """Where it is another one than the worker's."""


CASES = {
    # before any report
    "created": Case(worker="created"),
    "submitted, no scheduler asked": Case(submitted=True, worker="queued"),
    "its launcher is about to submit it": Case(launcher=True, worker="queued"),
    "pending in the scheduler": Case(submitted=True, job="pending", worker="queued"),
    "its job runs and loads": Case(submitted=True, job="running", worker="starting"),
    "the scheduler has forgotten its job": Case(submitted=True, job="unknown", worker="lost"),
    "its job ended without a trace": Case(submitted=True, job="ended", worker="lost"),
    "its job could not start": Case(submitted=True, job="ended", exit_code=127, worker="failed"),
    "killed before its first report": Case(submitted=True, job="ended", exit_code=-9, worker="lost"),
    "killed before its first report, by a shell": Case(submitted=True, job="ended", exit_code=137, worker="lost"),
    "killed before its first report, restarted": Case(
        submitted=True, job="ended", exit_code=-9, launcher=True, worker="lost", run="running"
    ),
    "stopped before it began": Case(submitted=True, stop="asked", worker="stopped"),
    "stopped, its job still in the queue": Case(submitted=True, job="pending", stop="asked", worker="queued"),
    "stopped before it began, its job withdrawn": Case(submitted=True, job="ended", stop="asked", worker="stopped"),
    "cancelled before it began": Case(submitted=True, stop="cancelled", worker="cancelled"),
    "cancelled before it began, job ended": Case(submitted=True, job="ended", stop="cancelled", worker="cancelled"),
    "cancelled as it began": Case(submitted=True, job="ended", exit_code=3, stop="cancelled", worker="cancelled"),
    "pruned before it began": Case(submitted=True, stop="pruned", worker="pruned"),
    "failed before its first report": Case(submitted=True, stop="worker_failed", worker="failed"),
    "another one failed before it began": Case(submitted=True, stop="worker_failed", sender="x", worker="stopped"),
    # alive
    "loads": Case(report="starting", alive=True, worker="starting"),
    "trains": Case(report="running", alive=True, worker="running"),
    "waits for a peer": Case(report="waiting", alive=True, worker="waiting", run="running"),
    "rests": Case(report="resting", alive=True, worker="resting", run="running"),
    "was asked to stop and still publishes": Case(report="running", alive=True, stop="asked", worker="running"),
    "is being cancelled": Case(report="running", alive=True, stop="cancelled", worker="running"),
    "is being pruned": Case(report="running", alive=True, stop="pruned", worker="running"),
    "trains in its job": Case(report="running", alive=True, job="running", worker="running"),
    "trains, the scheduler has forgotten its job": Case(report="running", alive=True, job="unknown", worker="running"),
    "resumed after its last version": Case(report="running", alive=True, final=True, worker="running"),
    # died
    "killed, without a launcher": Case(report="running", worker="lost"),
    "killed while it waited": Case(report="waiting", worker="lost"),
    "killed, its launcher restarts it": Case(report="running", launcher=True, worker="lost", run="running"),
    "killed, its job continues": Case(report="running", job="running", own_job=False, worker="starting"),
    "killed, its job is requeued": Case(report="running", job="pending", own_job=False, worker="queued"),
    "killed with its job": Case(report="running", job="ended", worker="lost"),
    "killed with its job by a signal": Case(report="running", job="ended", exit_code=-9, worker="lost"),
    "killed after a stop request": Case(report="running", stop="asked", worker="lost"),
    "killed by a cancel": Case(report="running", stop="cancelled", worker="cancelled"),
    "killed by a cancel, code known": Case(
        report="running", job="ended", exit_code=-15, stop="cancelled", worker="cancelled"
    ),
    "killed by a pruner": Case(report="running", stop="pruned", worker="lost", run="pruned"),
    "killed for good": Case(report="running", stop="worker_failed", worker="failed"),
    # ended with a report
    "finished": Case(report="finished", final=True, worker="finished"),
    "finished, then a late stop request": Case(report="finished", final=True, stop="asked", worker="finished"),
    "finished, then cancelled": Case(report="finished", final=True, stop="cancelled", worker="finished"),
    "finished, then pruned": Case(report="finished", final=True, stop="pruned", worker="finished"),
    "finished, its job ends": Case(report="finished", final=True, job="running", worker="finished"),
    "finished, its heartbeat is lost": Case(final=True, worker="finished"),
    "killed after its last version": Case(report="running", final=True, worker="finished"),
    "stopped on request": Case(report="stopped", stop="asked", worker="stopped"),
    "stopped on request, its job is shutting down": Case(
        report="stopped", job="running", stop="asked", worker="stopped"
    ),
    "stopped earlier, submitted again": Case(report="stopped", job="pending", own_job=False, worker="queued"),
    "stopped earlier, its new job loads": Case(report="stopped", job="running", own_job=False, worker="starting"),
    "stopped by Ctrl-C": Case(report="stopped", worker="stopped"),
    "stopped since another one failed": Case(
        report="stopped", stop="worker_failed", sender="x", worker="stopped", run="stopped"
    ),
    "stopped early by its sweep": Case(report="stopped", stop="pruned", worker="stopped", run="pruned"),
    "stopped earlier, then cancelled": Case(report="stopped", stop="cancelled", worker="cancelled"),
    "left before its job's end": Case(report="preempted", worker="preempted"),
    "left before its job's end, is continued": Case(report="preempted", job="pending", own_job=False, worker="queued"),
    "left with an error": Case(report="failed", worker="failed"),
    "left with an error, its launcher still runs": Case(report="failed", launcher=True, worker="failed"),
    "left with an error, its job is shutting down": Case(report="failed", job="running", worker="failed"),
    "left with an error, then cancelled": Case(report="failed", stop="cancelled", worker="failed"),
    "left with an error, submitted again": Case(report="failed", job="pending", own_job=False, worker="queued"),
    "left with an exit code but no report": Case(report="running", job="ended", exit_code=3, worker="stopped"),
    "preempted without a report": Case(report="running", job="ended", exit_code=75, worker="preempted"),
    "failed without a report": Case(report="running", job="ended", exit_code=1, worker="failed"),
    # what a user writes as a reason means nothing
    "a reason that looks like a failure": Case(
        report="stopped", stop="asked", reason="generator failed: lunch", worker="stopped"
    ),
    "a reason that looks like a pruner's": Case(
        report="stopped", stop="asked", reason="pruned: lunch", worker="stopped"
    ),
    "a reason that looks like a cancel": Case(report="running", stop="asked", reason="cancelled", worker="lost"),
}


def make_run(path: Path, *workers: str) -> Run:
    return Run.create(path, RunSpec(recipe="demo", placement=[[name] for name in workers], epochs=2))


def write_report(run: Run, module: str, state: str, *, alive: bool, job: str | None = None) -> None:
    """A heartbeat of this process where the worker is alive, else of one that has ended."""
    run.module_path(module).mkdir(parents=True, exist_ok=True)
    started = process_started(os.getpid()) if alive else 1
    process = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    run.heartbeat_path(module).write_text(json.dumps({**process, "state": state, "job": job, "counter": 1}))


def submit(run: Run) -> None:
    run.jobs_path.mkdir(exist_ok=True)
    Record(backend="local", jobs={0: JobId("local", "7")}).write(run)


def states(run: Run, jobs: Mapping[int, WorkerJob] | None = None) -> tuple[RunState, list[RunState]]:
    snapshot = read_snapshot(run, jobs=jobs)
    return run_state(snapshot), worker_states(snapshot)


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_one_worker_has_the_state_that_a_user_expects(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    run = make_run(tmp_path / "run", "generator")
    if case.final:
        Publisher(run.store("generator"), "w").publish({"weights.safetensors": b"w"}, epoch=2, step=20, final=True)
    if case.report:
        write_report(run, "generator", case.report, alive=case.alive, job="8" if case.own_job else "7")
    if case.submitted:
        submit(run)
    if case.launcher:
        run.jobs_path.mkdir(exist_ok=True)
        claim(run)
    if case.stop:
        run.request_stop(case.reason, kind=case.stop, sender=case.sender)
    job = WorkerJob(phase=case.job, ids=("8",), exit_code=case.exit_code) if case.job else None
    assert states(run, {0: job} if job else None) == (case.run or case.worker, [case.worker])


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({"a": "finished", "b": "running"}, "running"),
        ({"a": "finished", "b": "starting"}, "starting"),
        ({"a": "running", "b": "starting"}, "running"),
        ({"a": "waiting", "b": "resting"}, "running"),
        ({"a": "running", "b": "lost"}, "running"),
        ({"a": "running", "b": "failed"}, "failed"),
        ({"a": "finished", "b": "failed"}, "failed"),
        ({"a": "finished", "b": "lost"}, "lost"),
        ({"a": "stopped", "b": "lost"}, "lost"),
        ({"a": "finished", "b": "stopped"}, "stopped"),
        ({"a": "finished", "b": "preempted"}, "preempted"),
        ({"a": "stopped", "b": "preempted"}, "preempted"),
        ({"a": "finished", "b": "finished"}, "finished"),
        ({"a": "finished"}, "created"),
        ({"a": "running"}, "running"),
        ({"a": "lost"}, "lost"),
        ({}, "created"),
    ],
)
def test_a_run_of_two_workers_has_the_state_of_the_one_that_matters(
    tmp_path: Path, reports: dict[str, str], expected: RunState
) -> None:
    run = make_run(tmp_path / "run", "a", "b")
    for module, state in reports.items():
        live = state in ("running", "starting", "waiting", "resting")
        write_report(run, module, "running" if state == "lost" else state, alive=live)
    assert states(run)[0] == expected


def test_a_dry_run_that_wrote_scripts_but_submitted_nothing_is_created(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "a", "b")
    run.jobs_path.mkdir()
    (run.jobs_path / "a.sh").write_text("#!/bin/sh")
    Record(backend="slurm").write(run)
    assert states(run) == ("created", ["created", "created"])
    submit(run)
    assert states(run) == ("queued", ["queued", "queued"])
    (run.jobs_path / JOBS_FILE).write_text("{")
    assert states(run)[0] == "queued", "a damaged record is one of a launch"


def test_the_other_workers_of_a_trial_in_an_array_have_jobs_as_well(tmp_path: Path) -> None:
    spec = RunSpec(recipe="demo", placement=[["a"], ["b"]], epochs=2, trial={"number": 0, "values": {}})
    run = Run.create(tmp_path / "trial-0000", spec)
    assert states(run)[0] == "created"
    write_report(run, "a", "waiting", alive=True)
    assert states(run) == ("running", ["waiting", "queued"])


def test_a_worker_with_several_modules_is_finished_when_each_of_them_is(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", RunSpec(recipe="demo", placement=[["a", "b"]], epochs=2))
    files = {"weights.safetensors": b"w"}
    Publisher(run.store("a"), "w").publish(files, epoch=2, step=20, final=True)
    other = Publisher(run.store("b"), "w")
    other.publish(files, epoch=1, step=10)
    assert states(run) == ("created", ["created"])
    other.publish(files, epoch=2, step=20, final=True)
    assert states(run) == ("finished", ["finished"])


def test_every_state_has_a_description_and_a_place_in_lists() -> None:
    assert set(DESCRIPTIONS) == set(get_args(RunState))
