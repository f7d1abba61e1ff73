"""The time left is a median over minutes: a stall does not move it, and it is absent before it can be known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from modtrain.storage.heartbeat import Heartbeat
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.timing import STEP_SAMPLES, PaceEstimator
from modtrain.training.worker import Worker
from tests.support import runs
from tests.support.staged import staged_recipe

STEP_S = 0.1
EPOCH = 600
STEPS = 6000


class Clock:
    """A worker that trains at 10 steps a second by an injected clock, and reports every 20 steps."""

    def __init__(self, pace: PaceEstimator, *, boundary_s: float = 0.0) -> None:
        self.pace, self.boundary_s = pace, boundary_s
        self.at, self.step = 1000.0, 0
        pace.start_epoch(self.at, self.step)

    def train(self, steps: int, *, step_s: float = STEP_S) -> None:
        for _ in range(steps):
            self.at, self.step = self.at + step_s, self.step + 1
            if self.step % EPOCH == 0:
                self.pace.end_epoch(self.at, self.step)
                self.at += self.boundary_s
                self.pace.start_epoch(self.at, self.step)
            elif self.step % 20 == 0:
                self.pace.update(self.at, self.step)

    def left_s(self) -> float | None:
        return self.pace.left_s(STEPS - self.step, EPOCH)


def test_before_enough_measurements_the_time_left_is_unknown() -> None:
    clock = Clock(PaceEstimator())
    assert clock.left_s() is None
    clock.train(20 * STEP_SAMPLES - 1)
    assert clock.left_s() is None
    clock.train(1)
    assert clock.left_s() == pytest.approx((STEPS - clock.step) * STEP_S)


@pytest.mark.parametrize("trained", [200, 590, 1500])
def test_a_stall_of_20_s_moves_the_time_left_by_less_than_two_percent(trained: int) -> None:
    clock = Clock(PaceEstimator())
    clock.train(trained)
    before = clock.left_s()
    clock.at += 20
    clock.train(20)
    after = clock.left_s()
    assert before is not None
    assert after == pytest.approx(before - 20 * STEP_S, rel=0.02)


def test_a_stall_of_20_s_between_two_epochs_does_not_move_it_either() -> None:
    clock = Clock(PaceEstimator(), boundary_s=1.0)
    clock.train(5 * EPOCH - 1)
    clock.boundary_s = 21.0
    clock.train(21)
    assert clock.left_s() == pytest.approx((STEPS - clock.step) * (STEP_S + 1.0 / EPOCH), rel=0.02)


def test_a_wait_at_the_start_of_every_epoch_counts() -> None:
    clock = Clock(PaceEstimator(), boundary_s=30.0)
    clock.train(4 * EPOCH)
    assert clock.left_s() == pytest.approx((STEPS - clock.step) * (STEP_S + 30.0 / EPOCH), rel=0.02)


def test_an_exchange_inside_the_epoch_counts_even_if_it_is_rarer_than_reports() -> None:
    clock = Clock(PaceEstimator(interval_steps=100))
    for _ in range(12):
        clock.train(99)
        clock.at += 5
        clock.train(1)
    assert clock.left_s() == pytest.approx((STEPS - clock.step) * (STEP_S + 5 / 100), rel=0.05)


def test_a_pace_that_changes_for_good_is_followed_within_minutes() -> None:
    clock = Clock(PaceEstimator())
    clock.train(1500)
    clock.train(1500, step_s=3 * STEP_S)
    assert clock.left_s() == pytest.approx((STEPS - clock.step) * 3 * STEP_S, rel=0.05)


def test_a_short_run_still_has_a_rate() -> None:
    pace = PaceEstimator()
    pace.start_epoch(0.0, 0)
    pace.end_epoch(0.5, 10)
    assert pace.steps_per_s(10) == pytest.approx(20)
    assert pace.left_s(20, 10) is None


@pytest.mark.parametrize(
    ("schedule", "left_s"),
    [("0.0 if progress < 0.5 else 1.0", (None, 2.0)), ("1.0 if progress < 0.5 else 0.0", (22.0, 2.0))],
    ids=["starts later", "finishes early"],
)
def test_while_a_module_rests_that_trains_later_the_time_left_is_unknown(
    schedule: str,
    left_s: tuple[float | None, float],
    tmp_path: Path,
    tiny_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "resting.py").write_text(tiny_recipe.read_text().replace("1 - progress / 2", schedule))
    placement = [["generator", "discriminator"]]
    run = runs.make_run(tmp_path / "run", tmp_path / "resting.py", placement, params={"batches": 200}, epochs=2)
    now = 0.0
    monkeypatch.setattr("modtrain.training.progress.time", SimpleNamespace(monotonic=lambda: now))
    shutdown, heartbeat = Shutdown(run), Heartbeat(map(run.heartbeat_path, run.modules))
    worker = Worker(run, run.modules, heartbeat, shutdown, WorkerEvents(run, run.modules), device="cpu")
    shown = {}
    for epoch in range(2):
        worker.progress.start_epoch(worker.position)
        for batch in worker.stage.batches.epoch(epoch, seed=0):
            now += 0.1
            worker.train_on(batch)
            worker.progress.after_step(worker.position)
            if worker.position.step in (180, 380):
                heartbeat.report(now=True)
                shown[worker.position.step] = run.read_report("generator")
    assert [shown[step].steps_per_s for step in shown] == pytest.approx([10, 10])
    assert (shown[180].left_s, shown[380].left_s) == pytest.approx(left_s)


def test_the_time_left_is_known_in_the_last_stage_also_where_a_module_is_finished(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = staged_recipe(tmp_path / "staged.py", tiny_recipe)
    placement = [["recogniser", "generator", "discriminator"]]
    run = runs.make_run(tmp_path / "run", recipe, placement, params={"batches": 200}, epochs=2)
    now = 0.0
    monkeypatch.setattr("modtrain.training.progress.time", SimpleNamespace(monotonic=lambda: now))
    shutdown, heartbeat = Shutdown(run), Heartbeat(map(run.heartbeat_path, run.modules))
    worker = Worker(run, run.modules, heartbeat, shutdown, WorkerEvents(run, run.modules), device="cpu")
    left_s = []
    for epoch in range(2):
        worker._enter_stage()
        worker.progress.start_epoch(worker.position)
        for batch in worker.stage.batches.epoch(epoch, seed=0):
            now += 0.2
            worker.train_on(batch)
            worker.progress.after_step(worker.position)
        heartbeat.report(now=True)
        left_s.append(worker.progress._left_s(worker.timeline.at(worker.position.step - 20)))
    assert left_s == [None, pytest.approx(4.0)]
