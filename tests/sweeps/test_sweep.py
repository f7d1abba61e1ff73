"""Sweeps of real trials on this machine: what ends or is ended in the middle is resumed where it was."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modtrain import Sweep
from modtrain.cli.sweep_view import QueueView
from modtrain.dashboard.page_data import Source
from modtrain.errors import ModtrainError
from modtrain.scheduling import standalone_worker
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.config import Config
from modtrain.scheduling.profile import Profile
from modtrain.storage import filesystem
from modtrain.storage.best_version import best_versions
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.json_lines import read_json_lines
from modtrain.storage.process_identity import process_started
from modtrain.storage.run import Run
from modtrain.storage.stop_request import StopRequest
from modtrain.sweeps.runner import cancel, open_queue, run, stop
from modtrain.sweeps.sweep import new_sweep
from modtrain.sweeps.trial import Trial
from modtrain.sweeps.trial_queue import TrialQueue, estimate_left_s
from modtrain.sweeps.trials import read_trials, state_of
from tests.conftest import TINY
from tests.support.command import Terminal, ended, start
from tests.support.fork_server import stand_in_of
from tests.support.peaked import RULE, check_ended_early, peaked_stages
from tests.support.runs import finish, make_run, start_worker, weights_of

JOINT = [["generator", "discriminator"]]
ONE_THREAD = BackendOptions(profile=Profile(cpus=1))


def made(path: Path, varied: dict[str, Any], *, recipe: Path = TINY, epochs: int = 3, **decided: Any) -> Sweep:
    return Sweep.create(path, new_sweep(Config(recipe=str(recipe), nodes=1, epochs=epochs), varied, **decided))


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """The tiny recipe, slow after its first epoch while a file `hold` exists beside it.

    It is also slow where the learning rate is so small that nothing is learnt.
    """
    (tmp_path / "hold").touch()
    path = tmp_path / "held.py"
    slowly = 'time.sleep(0.25 if epoch and (Path(__file__).with_name("hold").exists() or self.params.lr < 1e-6) else 0)'
    text = TINY.read_text().replace("time.sleep(self.params.pause_s)", slowly)
    path.write_text(text.replace("import torch\n", "from pathlib import Path\n\nimport torch\n", 1))
    return path


def by_number(sweep: Sweep) -> dict[int, Trial]:
    return {trial.number: trial for trial in read_trials(sweep)}


def states(sweep: Sweep) -> list[str]:
    return [trial.state for trial in read_trials(sweep)]


def run_of(sweep: Sweep, number: int) -> Run:
    run = sweep.run(number)
    assert run is not None
    return run


def sweep_words(sweep: Sweep, type_: Terminal) -> set[str]:
    """The state of a sweep: in `sweep-status`, in `watch` and the list, in its row on the page, and of the queue."""
    listed = json.loads(type_("watch", sweep.path.parent, "--json").out)["runs"]
    row = next(row for row in listed if row["kind"] == "sweep")
    status = json.loads(type_("sweep-status", sweep.path, "--json").out)
    assert row["counts"] == status["counts"]
    text = type_("sweep-status", sweep.path).out.split()[1]
    page = Source(sweep.path.parent).sweep(sweep.path.name)["sweep"]["state"]
    return {row["state"], status["state"], text, page, state_of(sweep, read_trials(sweep))}


def plain(path: Path, *, epochs: int = 3, **values: Any) -> dict[str, str]:
    """The weights of a run outside of any sweep."""
    seed = values.pop("seed", 0)
    made = make_run(path, TINY, JOINT, params=values, seed=seed, epochs=epochs)
    finish(made)
    return weights_of(made)


def train(sweep: Sweep, number: int, values: Any = None) -> None:
    """Train a trial as its worker does, in this process, which is quick."""
    begun = sweep.begin(number, values)
    standalone_worker.train(begun, begun.modules, threads=1)


def process_of(sweep: Sweep, number: int) -> tuple[Any, ...]:
    """The process that trained a trial last."""
    process = run_of(sweep, number).read_report("generator").process
    return process.pid, process.started


def checkpoint_times(sweep: Sweep, number: int) -> dict[str, int]:
    """The times of change of the files of a trial's checkpoints."""
    folder = run_of(sweep, number).path / "modules"
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("*/checkpoints/*/*")}


def trained(sweep: Sweep, number: int) -> bool:
    """Whether a trial has published its first epoch."""
    run = sweep.run(number)
    newest = run.store("generator").newest_intact().checkpoint if run else None
    return newest is not None and newest.epoch > 0


def running_command(sweep: Sweep, held: Path, *, done: int, running: int) -> subprocess.Popen[str]:
    """A command of a sweep with a finished trial and one that has published its first epoch and trains slowly."""
    hold = held.with_name("hold")
    hold.unlink()
    train(sweep, done)
    hold.touch()
    process = start("sweep", sweep.path, "--backend", "local", "--max-running", 1)
    wait_for(lambda: trained(sweep, running))
    return process


def wait_for(ready: Callable[[], bool]) -> None:
    assert filesystem.wait_until(lambda: ready() or None, timeout_s=90)


@contextmanager
def watched(sweep: Sweep, until: Callable[[], bool], *, at_once: int = 1) -> Iterator[Watched]:
    """A queue that was watched until something holds."""
    messages: list[str] = []
    with open_queue(sweep, "local", ONE_THREAD, at_once=at_once) as queue:
        rest = queue.watch(messages.append)
        for _ in rest:
            if until():
                break
        else:
            raise AssertionError(messages)
        yield Watched(queue, rest, messages)


@dataclass(frozen=True)
class Watched:
    """A queue, what is left to watch, and its messages."""

    queue: TrialQueue
    rest: Iterator[None]
    messages: list[str]

    def to_the_end(self) -> None:
        for _ in self.rest:
            pass


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Four trials that trained at the same time, by the command line; the first of them takes longest."""
    root = tmp_path_factory.mktemp("the sweeps")
    words = ("sweep", "--recipe", TINY, "--backend", "local", "--root", root, "--name", "four", "--metric", "mean")
    varied = ("--vary", "lr=0.005,0.01", "--vary", "seed=1..2")
    result = ended(start(*words, *varied, "--nodes-per-trial", 1, "--max-running", 4))
    assert result.code == 0, result.out + result.err
    assert "four  4 trials, 4 at a time on local" in result.out
    assert result.out.count("begins: lr=") == result.out.count("finished: mean") == 4
    assert "the best  " in result.out
    return Sweep.open(root / "four")


def test_every_trial_is_a_run_in_the_sweep_s_folder_and_the_best_stands_first(four: Sweep, type_: Terminal) -> None:
    assert sorted(p.name for p in four.path.iterdir()) == ["jobs", "sweep.json", *(f"trial-000{n}" for n in range(4))]
    trials = json.loads(type_("sweep-status", four.path, "--json").out)["trials"]
    values = {trial["number"]: tuple(trial["values"].values()) for trial in trials}
    assert [values[number] for number in range(4)] == [(0.005, 1), (0.005, 2), (0.01, 1), (0.01, 2)]
    results = [trial["result"] for trial in trials]
    assert results == sorted(results, reverse=True)
    table = [line.split() for line in type_("sweep-status", four.path).out.splitlines()[3:7]]
    assert [int(cells[0]) for cells in table] == [trial["number"] for trial in trials]
    rows = csv.DictReader(io.StringIO(type_("sweep-status", four.path, "--csv").out))
    assert [float(row["mean"]) for row in rows] == results


def test_the_order_of_finishing_changes_no_result(four: Sweep, tmp_path: Path) -> None:
    for number, (lr, seed) in enumerate([(0.005, 1), (0.005, 2), (0.01, 1), (0.01, 2)]):
        assert weights_of(run_of(four, number)) == plain(tmp_path / str(number), lr=lr, seed=seed)


def test_the_same_command_again_only_shows(four: Sweep, type_: Terminal) -> None:
    before = [(checkpoint_times(four, number), process_of(four, number)) for number in range(4)]
    words = ("sweep", "--recipe", TINY, "--backend", "local", "--root", four.path.parent, "--name", "four")
    result = type_(*words, "--vary", "lr=0.005,0.01", "--vary", "seed=1..2", "--nodes-per-trial", 1, "--metric", "mean")
    assert result.code == 0, result.err
    assert result.out.startswith("four  finished  4 trials: 4 finished\n")
    assert [(checkpoint_times(four, number), process_of(four, number)) for number in range(4)] == before


def test_a_sweep_is_made_and_run_from_python_in_a_few_lines_and_extended(tmp_path: Path, type_: Terminal) -> None:
    spec = new_sweep(
        Config(recipe=str(TINY), nodes=1), {"lr": "log:1e-4..1e-2"}, sampler="sobol", trials=1, metric="mean"
    )
    data = run(Sweep.create(tmp_path / "sobol", spec), "local")
    assert [(trial.number, trial.state, list(trial.values)) for trial in data] == [(0, "finished", ["lr"])]
    assert data[0].result is not None

    sweep = Sweep.open(tmp_path / "sobol")
    before = checkpoint_times(sweep, 0)
    output = type_("sweep", sweep.path, "--trials", 2)  # on local again, as it was run last
    assert (output.code, "trial 1 begins" in output.out, "trial 0" in output.out) == (0, True, False), output.err
    more = by_number(Sweep.open(sweep.path))
    assert (more[0].values, more[1].values) == (data[0].values, Sweep.open(sweep.path).values(1))
    assert checkpoint_times(sweep, 0) == before


def early(folder: Path) -> Sweep:
    """A trial of three workers, of which one is finished with the first stage and the others are stopped early."""
    values = {"nodes": 3, "epochs": 12, "max_staleness": 0, "early_stop": RULE, "params": {"batches": 1}}
    config = Config(recipe=str(peaked_stages(folder, TINY)), **values)
    return Sweep.create(folder / "early", new_sweep(config, {"seed": [1]}, metric="score"))


def check_early(sweep: Sweep, trials: list[Trial]) -> None:
    trial = run_of(sweep, 0)
    check_ended_early(trial)
    versions, _ = best_versions(trial, None)
    best = next(each for each in read_evaluations(trial.evaluations_path) if each.versions == versions)
    assert [(each.state, each.result) for each in trials] == [("finished", best.metrics["score"])]
    assert [
        [line["what"] for line in read_json_lines(trial.workers_path(module))].count("began")
        for module in trial.modules
    ] == [1, 1, 1]


def test_the_workers_of_a_trial_may_finish_at_other_epochs_than_each_other_and_the_sweep(tmp_path: Path) -> None:
    sweep = early(tmp_path)
    check_early(sweep, run(sweep, "local", ONE_THREAD))


@pytest.mark.slow
def test_so_they_may_on_ray(raylets: Any, tmp_path: Path) -> None:
    sweep = early(tmp_path)
    check_early(sweep, run(sweep, "ray", BackendOptions(address=raylets.address, profile=Profile(cpus=1))))


def test_on_ray_the_same_values_give_the_same_weights(raylets: Any, four: Sweep, tmp_path: Path) -> None:
    sweep = made(tmp_path / "ray", {"seed": [1, 2], "lr": [0.005]}, metric="mean")
    options = BackendOptions(address=raylets.address, profile=Profile(cpus=1))
    assert [trial.state for trial in run(sweep, "ray", options, at_once=2)] == ["finished", "finished"]
    assert [weights_of(run_of(sweep, n)) for n in (0, 1)] == [weights_of(run_of(four, n)) for n in (0, 1)]


def test_ctrl_c_lets_the_running_trials_publish_and_the_same_sweep_goes_on(
    tmp_path: Path, held: Path, type_: Terminal
) -> None:
    sweep = made(tmp_path / "sweep", {"lr": [0.02, 0.01]}, recipe=held, epochs=6, metric="mean")
    process = running_command(sweep, held, done=0, running=1)
    process.send_signal(signal.SIGINT)
    result = ended(process)
    assert result.code == 130, result.out + result.err
    assert "the running ones publish and leave" in result.out
    assert "trial 1 stopped after epoch" in result.out
    assert "resume it " in result.out
    assert states(sweep) == ["finished", "stopped"]
    kept, step = checkpoint_times(sweep, 0), run_of(sweep, 1).read_report("generator").step

    (tmp_path / "hold").unlink()
    result = type_("sweep", sweep.path)
    assert result.code == 0, result.err
    assert "trial 1 resumes: lr=0.01" in result.out
    assert 10 <= step < 60
    assert states(sweep) == ["finished", "finished"]
    assert checkpoint_times(sweep, 0) == kept
    assert weights_of(run_of(sweep, 1)) == plain(tmp_path / "plain", epochs=6)


def test_workers_outlive_a_killed_sweep_and_the_next_one_takes_them_over(
    tmp_path: Path, held: Path, type_: Terminal
) -> None:
    sweep = made(tmp_path / "killed", {"seed": [1, 2]}, recipe=held, epochs=20, metric="mean")
    process = running_command(sweep, held, done=1, running=0)
    again = type_("sweep", sweep.path)
    assert (again.code, "killed is already launched" in again.err) == (2, True)
    process.kill()
    process.communicate()
    pid, started = process_of(sweep, 0)
    assert process_started(pid) == started
    wait_for(lambda: states(sweep) == ["running", "finished"])  # its next heartbeat says so
    messages: list[str] = []

    def notify(message: str) -> None:
        messages.append(message)
        (tmp_path / "hold").unlink(missing_ok=True)

    trials = run(sweep, "local", at_once=1, notify=notify)
    assert {trial.state for trial in trials} == {"finished"}
    assert process_of(sweep, 0) == (pid, started)
    assert messages[0] == "trial 0 resumes: seed=1"


def test_a_trial_that_diverges_fails_alone_and_runs_again_only_with_retry_failed(
    tmp_path: Path, type_: Terminal
) -> None:
    words = ("sweep", "--recipe", TINY, "--backend", "local", "--root", tmp_path, "--name", "nan", "--metric", "mean")
    words = (*words, "--vary", "nan_at=-1,5", "--nodes-per-trial", 1, "--max-running", 2)
    result = type_(*words)
    why = "'loss' of generator became nan at step 5"
    assert result.code == 1
    assert f"trial 1 failed: {why}" in result.out
    assert "--retry-failed" in result.out
    sweep = Sweep.open(tmp_path / "nan")
    lives = process_of(sweep, 0), process_of(sweep, 1)
    assert type_(*words).code == 1
    assert (process_of(sweep, 0), process_of(sweep, 1)) == lives
    assert type_("sweep", sweep.path, "--retry-failed").code == 1
    assert process_of(sweep, 0) == lives[0]
    assert process_of(sweep, 1) != lives[1]
    rows = json.loads(type_("sweep-status", sweep.path, "--json").out)["trials"]
    trials = {row["number"]: row for row in rows}
    assert (trials[0]["state"], trials[1]["state"], why in trials[1]["why"]) == ("finished", "failed", True)
    dry = ("sweep", sweep.path, "--backend", "slurm", "--dry-run")
    assert "The scripts of 0 trials" in type_(*dry).out
    assert "The scripts of 1 trial " in type_(*dry, "--retry-failed").out


def test_a_worker_by_hand_that_took_over_from_a_sweep_s_is_left_alone(tmp_path: Path, held: Path) -> None:
    sweep = made(tmp_path / "taken", {"seed": [1]}, recipe=held, epochs=40, metric="mean")
    with (
        watched(sweep, until=lambda: trained(sweep, 0)) as watching,
        start_worker(run_of(sweep, 0), "generator,discriminator") as by_hand,
    ):
        watching.to_the_end()
        assert by_hand.poll() is None, "the sweep's own worker has left, this one trains"
        assert watching.messages[-1].startswith("trial 0 running after epoch "), watching.messages
        assert run_of(sweep, 0).stop_request() is None
        (tmp_path / "hold").unlink()
        output, _ = by_hand.communicate(timeout=90)
        assert by_hand.returncode == 0, output
    assert states(sweep) == ["finished"]


def test_a_trial_whose_worker_cannot_even_start_fails_with_its_last_line(tmp_path: Path) -> None:
    recipe = tmp_path / "gone.py"
    recipe.write_text(TINY.read_text())
    sweep = Sweep.create(
        tmp_path / "gone", new_sweep(Config(recipe=str(recipe), nodes=1), {"seed": [1]}, metric="mean")
    )
    sweep.begin(0)
    recipe.write_text("raise OSError('no licence')")
    sweep = Sweep.open(sweep.path, trusted=True)
    assert run(sweep, "local")[0].state == "failed"
    assert "no licence" in by_number(sweep)[0].why


def test_a_sweep_is_stopped_cancelled_and_goes_on(tmp_path: Path, held: Path, type_: Terminal) -> None:
    sweep = made(tmp_path / "sweep", {"seed": [1, 2]}, recipe=held, epochs=9, metric="mean")
    with watched(sweep, until=lambda: trained(sweep, 0)) as watching:
        assert sweep_words(sweep, type_) == {"running"}
        assert "Asked 1 running trial to publish and exit" in type_("stop", sweep.path, "--reason", "lunch").out
        watching.to_the_end()
        assert watching.queue.stopping == StopRequest(reason="lunch", sender="modtrain stop")
    assert [(trial.state, trial.why) for trial in read_trials(sweep)] == [("stopped", "lunch"), ("created", "")]
    assert sweep_words(sweep, type_) == {"stopped"}

    before = process_of(sweep, 0)
    with watched(sweep, until=lambda: process_of(sweep, 0) != before) as watching:
        pid = stand_in_of(process_of(sweep, 0)[0])  # a fork may outlive it by a moment
        assert cancel(sweep) == 1
        assert process_started(pid) is None
        watching.to_the_end()
        assert not any("restarting it" in message for message in watching.messages)
    assert [(trial.state, trial.why) for trial in read_trials(sweep)] == [("cancelled", "cancelled"), ("created", "")]
    assert sweep_words(sweep, type_) == {"cancelled"}
    assert (stop(sweep, "again"), cancel(sweep)) == (0, 0)

    (tmp_path / "hold").unlink()
    train(sweep, 1)
    assert {trial.state for trial in run(sweep, "local", ONE_THREAD, at_once=2)} == {"finished"}
    assert weights_of(run_of(sweep, 0)) == plain(tmp_path / "plain", epochs=9, seed=1)


def test_one_trial_that_is_stopped_by_hand_is_no_failure_and_the_others_go_on(
    tmp_path: Path, held: Path, type_: Terminal
) -> None:
    sweep = made(tmp_path / "sweep", {"lr": [1e-7, 1e-2]}, recipe=held, epochs=20, metric="mean")
    (tmp_path / "hold").unlink()
    with watched(sweep, until=lambda: trained(sweep, 0), at_once=2) as watching:
        type_("stop", sweep.run_path(0), "--reason", "enough")
        watching.to_the_end()
    assert [(trial.state, trial.why) for trial in read_trials(sweep)] == [("stopped", "enough"), ("finished", "")]


def test_a_trial_that_another_process_has_launched_is_left_out(tmp_path: Path) -> None:
    sweep = made(tmp_path / "sweep", {"seed": [1]})
    jobs = sweep.begin(0).path / "jobs"
    jobs.mkdir()
    other = os.getppid()
    identity = {"host": socket.gethostname(), "pid": other, "started": process_started(other)}
    (jobs / "launcher.json").write_text(json.dumps(identity))
    messages: list[str] = []
    assert [trial.state for trial in run(sweep, "local", notify=messages.append)] == ["queued"]
    assert messages == [f"trial 0 is left out: process {other} has launched it already"]


def test_a_metric_that_nothing_measures_ends_the_sweep_at_the_first_epoch_and_is_corrected(
    tmp_path: Path, held: Path, type_: Terminal
) -> None:
    sweep = made(tmp_path / "typo", {"seed": [1, 2]}, recipe=held, epochs=30, metric="generator.los")
    result = type_("sweep", sweep.path, "--backend", "local", "--max-running", 1)
    assert result.code == 2
    assert "The training of generator has no 'los'; it has loss. Did you mean 'loss'? Give --metric" in result.err
    first, second = read_trials(sweep)
    assert (first.state, second.state) == ("stopped", "created")
    assert 0 < first.epoch < 30
    result = type_("sweep", sweep.path, "--metric", "generator.loss", "--minimize", "--dry-run")
    assert "generator.loss (less is better)" in result.out


def test_evaluating_after_every_epoch_changes_no_weight(tmp_path: Path) -> None:
    for every in (1, 2):
        made = make_run(tmp_path / str(every), TINY, JOINT, evaluate_every=every)
        standalone_worker.train(made, made.modules, threads=1)
        assert weights_of(made) == plain(tmp_path / f"plain-{every}")


@pytest.mark.parametrize(("metric", "sampler"), [("generator.loss", "grid"), ("mean", "tpe")])
def test_bad_trials_are_pruned_through_their_stop_file_and_stay_so(
    metric: str, sampler: str, tmp_path: Path, held: Path, type_: Terminal
) -> None:
    """Only the first trial learns anything. The process of the sweep goes away while the third one trains."""
    lrs = [1e-2, 2e-7, 1e-7] if sampler == "grid" else [1e-7, 1e-2, 2e-7]
    decided: dict[str, Any] = {"metric": metric, "maximize": sampler == "tpe", "sampler": sampler, "trials": 3}
    sweep = made(tmp_path / "sweep", {"lr": lrs}, recipe=held, epochs=20, prune="halving", **decided)
    (tmp_path / "hold").unlink()
    train(sweep, 0, {"lr": 1e-2})
    with watched(sweep, until=lambda: sweep.run(2) is not None):
        pass
    wait_for(lambda: trained(sweep, 2))
    assert states(sweep)[:2] == ["finished", "pruned"]
    reason = by_number(sweep)[1].why
    assert reason.startswith("halving at epoch 1 keeps the best 1 of 2 trials; this one has ")
    assert run_of(sweep, 1).stop_request() == StopRequest(kind="pruned", reason=reason, sender="modtrain sweep")
    before = [(checkpoint_times(sweep, number), process_of(sweep, number)) for number in (0, 1)], process_of(sweep, 2)

    result = type_("sweep", sweep.path)
    assert result.code == 0, result.err
    assert "trial 2 resumes" in result.out
    assert "trial 2 is pruned: halving at epoch" in result.out
    assert "trial 2 pruned after epoch" in result.out
    assert (
        [(checkpoint_times(sweep, number), process_of(sweep, number)) for number in (0, 1)],
        process_of(sweep, 2),
    ) == before
    data = by_number(sweep)
    assert [data[number].state for number in range(3)] == ["finished", "pruned", "pruned"]
    assert [data[number].values["lr"] for number in range(3)] == [1e-2, 2e-7, 1e-7]
    assert data[2].epoch < 20
    assert [int(line.split()[0]) for line in type_("sweep-status", sweep.path).out.splitlines()[3:4]] == [0]


@pytest.mark.parametrize(
    ("durations_s", "running_s", "waiting", "at_once", "left_s"),
    [
        ([], [5.0], 3, 1, None),
        ([10.0, 10.0, 9000.0], [4.0], 2, 1, 26.0),
        ([10.0], [4.0, 8.0], 1, 2, 12.0),
        ([10.0], [], 1, 4, 10.0),
        ([10.0], [60.0], 0, 1, None),
        ([10.0], [60.0], 2, 1, 20.0),
    ],
    ids=["no-trial-ended", "one-stall-does-not-count", "two-at-once", "last-one", "longer-than-usual", "late-but-more"],
)
def test_the_time_left_is_that_of_the_median_trial_and_unknown_until_one_has_ended(
    durations_s: list[float], running_s: list[float], waiting: int, at_once: int, left_s: float | None
) -> None:
    assert estimate_left_s(durations_s, running_s, waiting, at_once) == left_s


def test_every_view_has_the_same_word_for_a_sweep_before_between_two_trials_and_at_its_end(
    tmp_path: Path, held: Path, type_: Terminal
) -> None:
    (tmp_path / "hold").unlink()
    sweep = made(tmp_path / "runs" / "sweep", {"seed": [1, 2]}, recipe=held, metric="mean")
    assert sweep_words(sweep, type_) == {"created"}

    with open_queue(sweep, "local", ONE_THREAD, at_once=1) as queue:
        messages: list[str] = []

        def notify(message: str) -> None:
            messages.append(message)
            if message.startswith("trial 0 finished"):  # the next trial begins after this message
                messages.extend(sweep_words(sweep, type_))
                messages.append(str(QueueView(queue).render().renderables[-1]))

        for _ in queue.watch(notify):
            pass
        assert sweep_words(sweep, type_) == {"running"}
    place = next(place for place, message in enumerate(messages) if message.startswith("trial 0 finished"))
    assert messages[place + 1] == "running"
    assert messages[place + 2].strip().startswith("sweep  running  2 trials: 1 queued, 1 finished; ")
    assert sweep_words(sweep, type_) == {"finished"}


def test_every_view_has_the_same_word_for_a_failed_and_a_pruned_sweep(tmp_path: Path, type_: Terminal) -> None:
    failed = made(tmp_path / "a" / "failed", {"nan_at": [5]}, metric="mean")
    with contextlib.suppress(ModtrainError):
        train(failed, 0)
    assert sweep_words(failed, type_) == {"failed"}
    pruned = made(tmp_path / "b" / "pruned", {"seed": [1]}, metric="mean")
    pruned.begin(0).request_stop("the others are better", kind="pruned", sender="modtrain sweep")
    assert states(pruned) == ["pruned"]
    assert sweep_words(pruned, type_) == {"finished"}
