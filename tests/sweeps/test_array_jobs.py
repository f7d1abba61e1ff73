"""Sweeps on a real Slurm: as arrays, and with a queue where results decide what runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modtrain.storage import filesystem
from modtrain.storage.run import Run
from tests.conftest import TINY
from tests.support.command import Result, ended, start, typed, until
from tests.support.peaked import EARLY, check_ended_early, peaked_stages
from tests.support.runs import finish, make_run, weights_of
from tests.support.slurm import Queued, Slurm

pytestmark = pytest.mark.timeout(900)  # jobs wait for jobs, and the cores may be busy
SLOW = ("--pause-s", 0.1)
"""Three seconds of training, if nothing comes in between."""


@dataclass(frozen=True)
class Swept:
    """A sweep's folder, and the jobs of it that Slurm knows."""

    path: Path
    slurm: Slurm

    def run(self, number: int) -> Run:
        return Run.open(self.path / f"trial-{number:04d}")

    def trials(self) -> dict[int, dict[str, Any]]:
        """Every trial of `sweep-status`, by number."""
        result = typed("sweep-status", self.path, "--json")
        assert result.code == 0, result.err
        return {trial["number"]: trial for trial in json.loads(result.out)["trials"]}

    def states(self) -> list[str]:
        return [trial["state"] for _, trial in sorted(self.trials().items())]

    def words(self) -> set[str]:
        """The state of the sweep in `sweep-status` and in the list of `watch`."""
        listed = json.loads(typed("watch", self.path, "--json").out)["runs"]
        return {listed[0]["state"], json.loads(typed("sweep-status", self.path, "--json").out)["state"]}

    def until(self, *wanted: str, timeout_s: float = 90) -> None:
        until(lambda: self.states() == list(wanted), timeout_s=timeout_s)

    def tasks(self) -> dict[int, str]:
        """Slurm's ids of the arrays' tasks, as they were submitted last."""
        says = json.loads((self.path / "jobs" / "jobs.json").read_text())["tasks"]
        return {int(task): id_.rpartition("@")[2] for task, id_ in says.items()}

    def job(self, task: int) -> Queued:
        return self.slurm.queue()[self.tasks()[task]]

    def journal(self, task: int) -> list[list[str]]:
        return [line.split() for line in filesystem.read_lines(self.path / "jobs" / f"{task}.journal")]

    def trains(self, number: int) -> bool:
        """Whether a trial has taken its first steps."""
        path = self.path / f"trial-{number:04d}"
        return (path / "run.json").exists() and (self.run(number).read_report("generator").step or 0) > 0


class Cluster:
    """Sweeps the tiny recipe, its modules together, in one folder."""

    def __init__(self, slurm: Slurm, root: Path) -> None:
        self.slurm, self.root = slurm, root

    def words(self, name: str, *more: object) -> list[object]:
        where = ["--backend", "slurm", "--root", self.root, "--name", name, "--poll-s", 0.5]
        return ["sweep", "--recipe", TINY, "--nodes-per-trial", 1, "--metric", "mean", *where, *more]

    def sweep(self, name: str, *more: object) -> tuple[Swept, Result]:
        result = typed(*self.words(name, *more))
        assert result.code == 0, result.err + result.out
        return Swept(self.root / name, self.slurm), result


@pytest.fixture(scope="module")
def cluster(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(slurm, tmp_path_factory.mktemp("the sweeps"))


@pytest.fixture(scope="module")
def short(cluster: Cluster) -> Swept:
    """Two tasks of thirty seconds and a start each, in jobs that leave after thirty."""
    limits = ("--walltime", "00:01:00", "--publish-before-s", 30, "--exclude", "n[2-3]")
    return cluster.sweep("short", "--vary", "seed=1..2", "--epochs", 6, "--pause-s", 0.5, *limits)[0]


@pytest.fixture(scope="module")
def wide(short: Swept, cluster: Cluster) -> tuple[Swept, Result]:
    """Four trials, of which every second one diverges, at most two at the same time, three in an array."""
    varied = ("--vary", "seed=1..2", "--vary", "nan_at=-1,12")
    limits = ("--nodes", 2, "--array-limit", 3, "--exclude", "n1")
    return cluster.sweep("wide", *varied, *limits, *SLOW)


@pytest.fixture(scope="module")
def finished(wide: tuple[Swept, Result]) -> Swept:
    wide[0].until("finished", "failed", "finished", "failed")
    for id_ in wide[0].tasks().values():
        wide[0].slurm.until_over(id_)
    return wide[0]


def overlapping(spans: list[tuple[int, int]]) -> int:
    """The largest number at the same time."""
    return max(sum(begun <= at < over for begun, over in spans) for at, _ in spans)


@pytest.fixture(scope="module")
def queues(wide: tuple[Swept, Result], cluster: Cluster) -> Iterator[list[subprocess.Popen[str]]]:
    """Two commands that keep running: one without arrays, and one that prunes."""
    plain = start(*cluster.words("plain", "--vary", "seed=1..2", "--array-limit", 0, "--max-running", 2))
    bad = ("--vary", "lr=0.01,1e-7", "--prune", "--metric", "generator.loss", "--minimize", "--max-running", 1)
    pruning = start(*cluster.words("pruned", *bad, "--pause-s", 0.05, "--epochs", 12))
    yield [plain, pruning]
    for process in (plain, pruning):
        process.kill()
        process.communicate()


def test_a_sweep_is_submitted_as_arrays_split_at_the_limit_and_the_command_returns(wide: tuple[Swept, Result]) -> None:
    sweep, result = wide
    assert "submitted 4 of 4 trials (4 tasks)" in result.out
    array, alone = sweep.tasks()[0].partition("_")[0], sweep.tasks()[3]
    assert [sweep.tasks()[task] for task in range(3)] == [f"{array}_{index}" for index in range(3)]
    assert ("_" in alone, alone != array) == (False, True), "one that is left is a plain job"
    assert set(sweep.states()) <= {"queued", "starting", "running", "finished", "failed"}


def test_a_sweep_that_is_stopped_or_cancelled_in_the_middle_goes_on_with_what_is_missing(
    queues: list[subprocess.Popen[str]], cluster: Cluster, tmp_path: Path
) -> None:
    recipe, hold = tmp_path / "held.py", tmp_path / "hold"
    hold.touch()  # while it is there, a trial with a pause is slow enough to be seen and stopped
    pause = f"time.sleep(self.params.pause_s if Path({str(hold)!r}).exists() else 0)"
    text = TINY.read_text().replace("time.sleep(self.params.pause_s)", pause)
    recipe.write_text(text.replace("import torch\n", "from pathlib import Path\n\nimport torch\n", 1))
    words = ("--recipe", recipe, "--vary", "pause_s=0.0,0.3,0.01", "--epochs", 8, "--max-running", 1)
    sweep, _ = cluster.sweep("cut", *words, "--exclude", "n1")
    until(lambda: sweep.trains(1))
    assert sweep.states() == ["finished", "running", "queued"]
    assert "no other trial starts" in typed("stop", sweep.path, "--reason", "enough").out
    for task, code in enumerate((0, 3, 3)):
        assert sweep.slurm.until_over(sweep.tasks()[task]).exit_code == code
    assert not (sweep.path / "trial-0002").exists()
    assert sweep.states() == ["finished", "stopped", "created"]
    before, first = sweep.tasks(), weights_of(sweep.run(0))

    assert "submitted 2 of 3" in typed("sweep", sweep.path).out
    assert "submitted 0 of 3" in typed("sweep", sweep.path).out, "they are queued already"
    assert (sweep.tasks()[0], sweep.tasks()[1] != before[1]) == (before[0], True)
    assert "Ended the jobs of 2 trials" in typed("cancel", sweep.path).out
    assert not [job for job in sweep.slurm.queue().values() if job.name.startswith("cut") and not job.over]
    assert sweep.states()[0] == "finished"
    assert not {"queued", "running"} & set(sweep.states())

    hold.unlink()
    end = typed("sweep", sweep.path, "--wait", "--max-running", 2)
    assert end.code == 0, end.out
    assert "3 trials: 3 finished" in end.out
    assert weights_of(sweep.run(0)) == first


def test_the_limit_of_an_array_holds_over_all_of_them_and_each_trial_is_trained_once(finished: Swept) -> None:
    spans = []
    for task in range(4):
        journal = finished.journal(task)
        assert [line[0] for line in journal] == ["started", "ended"]
        assert journal[1][2] == ("5" if task % 2 else "0")
        spans.append((int(journal[0][3]), int(journal[1][3])))
    assert overlapping(spans) <= 2


def test_the_table_is_sorted_and_failed_trials_say_why(finished: Swept, tmp_path: Path) -> None:
    result = typed("status", finished.path)
    rows = [line.split() for line in result.out.splitlines() if " finished " in line]
    results = [float(row[2]) for row in rows if row[0].isdigit()]
    assert len(results) == 2
    assert results == sorted(results, reverse=True)
    assert result.out.count("'loss' of generator became nan at step 12") == 2
    run = make_run(tmp_path / "run", TINY, [["generator", "discriminator"]], seed=2)
    finish(run)
    assert weights_of(finished.run(2)) == weights_of(run)


def test_the_scheduler_is_asked_once_for_all_trials(
    finished: Swept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "squeue").write_text(
        f'#!/bin/bash\necho >>{calls}\nPATH={shlex.quote(os.environ["PATH"])} exec squeue "$@"\n'
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    typed("sweep-status", finished.path)
    assert len(calls.read_text()) == 1


def test_only_failed_trials_are_submitted_again_and_only_with_retry_failed(finished: Swept) -> None:
    assert "submitted 0 of 4" in typed("sweep", finished.path).out
    again = typed("sweep", finished.path, "--retry-failed", "--directive=--hold")
    assert "submitted 2 of 4" in again.out
    assert [finished.job(task).state for task in (1, 3)] == ["PENDING"] * 2
    assert sorted(finished.states()) == ["finished", "finished", "queued", "queued"]
    assert "Ended the jobs of 2 trials" in typed("cancel", finished.path).out
    assert not [job for job in finished.slurm.queue().values() if job.name.startswith("wide") and not job.over]


def test_without_arrays_trials_are_plain_jobs_that_this_command_keeps_in_the_queue(
    queues: list[subprocess.Popen[str]], cluster: Cluster
) -> None:
    """Also with pruning: a pruned trial is asked to leave through its folder."""
    result = ended(queues[0])
    assert result.code == 0, result.out + result.err
    sweep = Swept(cluster.root / "plain", cluster.slurm)
    assert sweep.states() == ["finished"] * 2
    assert not list((sweep.path / "jobs").glob("*.sh"))
    assert len(list(sweep.path.glob("trial-*/jobs/0.sh"))) == 2
    result = ended(queues[1])
    assert result.code == 0, result.out + result.err
    sweep = Swept(cluster.root / "pruned", cluster.slurm)
    assert sweep.states() == ["finished", "pruned"]
    assert sweep.trials()[1]["epoch"] < 12


def test_tasks_of_an_array_go_on_beyond_their_time_limit_each_for_itself(short: Swept) -> None:
    short.until("finished", "finished", timeout_s=300)
    for task in (0, 1):
        assert short.slurm.until_over(short.tasks()[task]).exit_code == 0
        kinds = [(line[0], line[2]) for line in short.journal(task) if line[0] == "ended"]
        assert kinds[0] == ("ended", "75")
        assert kinds[-1] == ("ended", "0")
        assert short.job(task).restarts == len(kinds) - 1


def test_a_task_waits_for_no_other_one_of_its_trial_that_was_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("peer_timeout_s: 3")
    apart = ("--nodes-per-trial", 2, "--vary", "seed=1", "--directive=--hold")
    sweep, _ = cluster.sweep("halved", tmp_path / "config.yaml", *apart)
    assert sweep.words() == {"queued"}
    cluster.slurm.run("scancel", sweep.tasks()[1])
    cluster.slurm.run("scontrol", "release", sweep.tasks()[0])
    assert sweep.slurm.until_over(sweep.tasks()[0]).exit_code == 7
    assert "Waited 3 s for discriminator" in str(sweep.run(0).stop_request())


@pytest.mark.slow
def test_the_workers_of_a_trial_may_finish_at_other_epochs_than_each_other_and_the_sweep(
    cluster: Cluster, tmp_path: Path
) -> None:
    where = ("--backend", "slurm", "--recipe", peaked_stages(tmp_path, TINY), "--root", tmp_path, "--name", "early")
    result = typed("sweep", *where, "--nodes-per-trial", 3, "--vary", "seed=1", *EARLY)
    assert "submitted 1 of 1 trial (3 tasks)" in result.out, result
    early = Swept(tmp_path / "early", cluster.slurm)
    early.until("finished", timeout_s=300)
    check_ended_early(early.run(0))


def test_a_dry_run_of_a_thousand_trials_takes_seconds_and_submits_nothing(cluster: Cluster) -> None:
    before, begun = len(cluster.slurm.queue()), time.monotonic()
    sweep, result = cluster.sweep("thousand", "--vary", "seed=1..1001", "--dry-run", "--max-running", 4)
    assert time.monotonic() - begun < 20
    assert "The scripts of 1001 trials" in result.out
    assert "#SBATCH --array=0-999%4" in result.out
    assert len(cluster.slurm.queue()) == before
    scripts = sorted((sweep.path / "jobs").glob("*.sh"))
    assert [script.name for script in scripts] == ["array-0.sh", "array-1.sh"]
    checked = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert not re.search("--array", scripts[1].read_text()), "one task is no array"


@pytest.fixture(autouse=True, scope="module")
def ended_at_last(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.slurm.clear()
