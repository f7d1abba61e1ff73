"""Samplers and pruners: TPE learns, a restored study continues as if it never stopped, the best is never pruned."""

from __future__ import annotations

import logging
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.scheduling.config import Config
from modtrain.sweeps.space import SAMPLERS, parse_vary, point
from modtrain.sweeps.study import STARTUP, State, Study
from modtrain.sweeps.sweep import new_sweep

PLANE = parse_vary(["x=-5.0..5.0", "y=-5.0..5.0"])
MIXED = parse_vary(["lr=log:1e-5..1e-1", "blocks=1..9", "conv=dense,separable", "widths=[1, 2],[3]", "fixed=7"])

Record = tuple[int, dict[str, Any], dict[int, float], float | None, State]


def distance(values: dict[str, Any]) -> float:
    return (values["x"] - 1.3) ** 2 + (values["y"] + 2.1) ** 2


def tried(study: Study, count: int, result: Callable[[dict[str, Any]], float], first: int = 0) -> list[dict[str, Any]]:
    """Trials one after another, from `first` up to `count`."""
    asked = []
    for number in range(first, count):
        asked.append(study.ask(number))
        study.tell(number, result(asked[-1]), "finished")
    return asked


def restored(records: list[Record], **options: Any) -> Study:
    study = Study(MIXED, sampler="tpe", seed=3, **options)
    for number, values, reports, result, state in records:
        study.remember(number, values, reports=reports, result=result, state=state)
    return study


def race(study: Study, qualities: list[float], *, epochs: int = 9, worse: float = -1.0) -> dict[int, tuple[int, str]]:
    """All trials at once, an epoch each in turn; those pruned, with the epoch and the reason. Curves do not cross."""
    for number in range(len(qualities)):
        study.ask(number)
    pruned: dict[int, tuple[int, str]] = {}
    for epoch in range(1, epochs + 1):
        for number, quality in enumerate(qualities):
            if number in pruned:
                continue
            study.report(number, epoch, quality + worse * 10 / epoch)
            if epoch < epochs and (reason := study.should_prune(number)):
                pruned[number] = epoch, reason
                study.tell(number, None, "pruned")
            elif epoch == epochs:
                study.tell(number, quality, "finished")
    return pruned


@pytest.mark.parametrize("sampler", ["grid", "random", "sobol"])
def test_a_sampler_that_learns_nothing_asks_for_its_points(sampler: str) -> None:
    space = parse_vary(["x=0.0..1.0:3", "seed=1..3"])
    study = Study(space, sampler=sampler, seed=5, pruner="halving")
    for number in (3, 0, 7):
        assert study.ask(number) == point(space, sampler, seed=5, index=number)
        study.tell(number, 1.0, "finished")


def test_tpe_begins_with_points_that_cover_the_space_until_there_are_results() -> None:
    study = Study(PLANE, sampler="tpe", seed=4)
    first = [study.ask(number) for number in range(20)]
    assert first == [point(PLANE, "sobol", seed=4, index=number) for number in range(20)]
    for number in range(STARTUP):
        study.tell(number, 1.0 * number, "finished")
    assert study.ask(20) != point(PLANE, "sobol", seed=4, index=20)


@pytest.mark.parametrize("maximize", [False, True])
def test_tpe_comes_nearer_than_random_in_as_many_trials(maximize: bool) -> None:
    sign = -1 if maximize else 1

    def nearest(sampler: str, seed: int) -> float:
        study = Study(PLANE, sampler=sampler, seed=seed, maximize=maximize)
        return min(map(distance, tried(study, 40, lambda values: sign * distance(values))))

    distances = {sampler: [nearest(sampler, seed) for seed in range(8)] for sampler in ("tpe", "random")}
    assert statistics.median(distances["tpe"]) < statistics.median(distances["random"]) / 3
    assert sum(tpe < other for tpe, other in zip(distances["tpe"], distances["random"], strict=True)) >= 6


def test_tpe_finds_the_better_choice_and_the_better_magnitude() -> None:
    def result(values: dict[str, Any]) -> float:
        return (values["conv"] == "dense") + (values["widths"] == [3]) + (3e-4 < values["lr"] < 3e-3) - values["blocks"]

    asked = tried(Study(MIXED, sampler="tpe", seed=0), 60, result)[-20:]
    assert sum(values["conv"] == "dense" for values in asked) > 13
    assert sum(values["widths"] == [3] for values in asked) > 13
    assert statistics.mean(values["blocks"] for values in asked) < 3
    for values in asked:
        assert list(values) == ["lr", "blocks", "conv", "widths", "fixed"]
        assert 1e-5 <= values["lr"] <= 1e-1
        assert type(values["lr"]) is float
        assert type(values["blocks"]) is int
        assert values["fixed"] == 7


def test_a_rebuilt_study_asks_what_the_one_that_never_stopped_asks() -> None:
    chance = random.Random(0)
    study = Study(MIXED, sampler="tpe", seed=3, pruner="halving")
    records: list[Record] = []
    for number in range(24):
        values = study.ask(number)
        reports = {epoch: chance.random() for epoch in (1, 2, 3)}
        for epoch, value in reports.items():
            study.report(number, epoch, value)
        states: list[State] = ["finished", "finished", "pruned", "failed", "running"]
        state = states[number % 5]
        result = chance.random() if state == "finished" else None
        study.tell(number, result, state)
        records.append((number, values, reports, result, state))
    again = restored(records, pruner="halving")
    for number in (24, 25, 26):
        assert again.ask(number) == study.ask(number)
    for each in (study, again):
        each.tell(25, 0.9, "finished")
        each.tell(4, 0.8, "finished")
    assert again.ask(27) == study.ask(27)


def test_tpe_does_not_ask_the_same_again_after_a_restart() -> None:
    records: list[Record] = []
    for number in range(STARTUP + 10):
        study = restored(records)
        records.append((number, study.ask(number), {}, float(number % 7), "finished"))
    assert len({str(values) for _, values, _, _, _ in records}) == len(records)


def test_tpe_tries_all_of_a_small_space_before_it_tries_anything_twice() -> None:
    space = parse_vary(["lr=0.1,0.2,0.3", "seed=1..3"])
    asked = tried(Study(space, sampler="tpe", seed=0), 9, lambda values: values["lr"])
    assert len({str(values) for values in asked}) == 9
    assert len(tried(Study(space, sampler="tpe", seed=0), 15, lambda values: values["lr"])) == 15


def test_trials_that_run_at_once_get_different_points() -> None:
    study = Study(PLANE, sampler="tpe", seed=0, maximize=False)
    tried(study, 20, distance)
    together = [study.ask(number) for number in range(20, 29)]
    assert len({str(values) for values in together}) == 9


@pytest.mark.parametrize("end", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("maximize", [False, True])
def test_a_result_that_is_no_number_is_the_worst_and_tpe_keeps_away(end: float, maximize: bool) -> None:
    study = Study(parse_vary(["x=0.0..1.0"]), sampler="tpe", seed=1, maximize=maximize)
    sign = -1 if maximize else 1
    asked = tried(study, 40, lambda values: end if values["x"] > 0.5 else sign * (values["x"] - 0.2) ** 2)
    assert sum(values["x"] > 0.5 for values in asked[:STARTUP]) > 3
    assert sum(values["x"] > 0.5 for values in asked[STARTUP:]) < 5


def test_failed_trials_do_not_disturb() -> None:
    plain, disturbed = (Study(PLANE, sampler="tpe", seed=2, maximize=False) for _ in range(2))
    for number in range(100, 105):
        disturbed.ask(number)
        disturbed.tell(number, None, "failed")
    disturbed.ask(105)
    disturbed.tell(105, None, "finished")
    assert tried(disturbed, 25, distance) == tried(plain, 25, distance)


def test_a_failed_trial_may_be_tried_again_and_another_may_not() -> None:
    study = Study(PLANE, sampler="tpe", seed=2, pruner="median")
    values = study.ask(0)
    with pytest.raises(ValueError, match="trial 0 has begun already"):
        study.ask(0)
    study.report(0, 1, 5.0)
    study.tell(0, None, "failed")
    study.remember(0, values, reports={1: 5.0}, result=None, state="running")
    study.report(0, 2, 6.0)
    study.tell(0, 6.0, "finished")
    assert study.should_prune(0) is None


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("order", range(6))
def test_halving_keeps_the_best_and_stops_most_of_the_others_early(order: int, maximize: bool) -> None:
    qualities = [float(quality) for quality in range(27)]
    random.Random(order).shuffle(qualities)
    sign = 1.0 if maximize else -1.0
    study = Study(PLANE, sampler="random", seed=0, maximize=maximize, pruner="halving")
    pruned = race(study, [sign * quality for quality in qualities], worse=-sign)
    assert qualities.index(26.0) not in pruned
    assert qualities.index(0.0) in pruned or qualities.index(0.0) == 0
    assert len(pruned) >= 13
    assert {epoch for epoch, _ in pruned.values()} <= {1, 3}


def test_halving_names_the_better_results() -> None:
    study = Study(PLANE, sampler="random", seed=0, pruner="halving")
    pruned = race(study, [30.0, 20.0, 25.0, 10.0])
    assert pruned[1] == (1, "halving at epoch 1 keeps the best 1 of 2 trials; this one has 10, the best 20")
    assert pruned[3] == (1, "halving at epoch 1 keeps the best 1 of 4 trials; this one has 0, the best 20")
    assert 0 not in pruned


def test_halving_takes_the_next_report_where_not_every_epoch_has_one() -> None:
    study = Study(PLANE, sampler="random", seed=0, pruner="halving")
    for number in range(2):
        study.ask(number)
        study.report(number, 0, -5.0)
        assert study.should_prune(number) is None
    study.report(0, 4, 20.0)
    study.report(1, 5, 14.0)
    assert study.should_prune(0) is None
    reason = study.should_prune(1)
    assert reason == "halving at epoch 5 keeps the best 1 of 2 trials; this one has 14, the best 20"
    study.report(1, 9, 1.0)
    assert study.should_prune(1) == reason


@pytest.mark.parametrize("maximize", [False, True])
def test_the_median_of_five_finished_trials_decides_and_is_the_reason(maximize: bool) -> None:
    sign = 1 if maximize else -1
    study = Study(PLANE, sampler="random", seed=0, maximize=maximize, pruner="median")
    for number in range(5):
        study.ask(number)
        for epoch in (1, 2, 3):
            study.report(number, epoch, sign * (10.0 + number + epoch))
            assert study.should_prune(number) is None
        study.tell(number, sign * 13.0, "finished")
    good, bad, late = (study.ask(number) and number for number in (5, 6, 7))
    study.report(bad, 2, sign * 13.9)
    reason = study.should_prune(bad)
    assert reason == f"the median of 5 trials at epoch 2 is {sign * 14}, this one has {sign * 13.9}"
    study.report(good, 2, sign * 15.0)
    study.report(good, 3, sign * 9.0)  # its best so far counts
    assert study.should_prune(good) is None
    study.report(late, 3, float("nan"))
    assert study.should_prune(late) == f"the median of 5 trials at epoch 3 is {sign * 15}, this one has no number"


@pytest.mark.parametrize("pruner", ["halving", "median"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_report_that_is_no_number_is_pruned_first_and_never_an_error(pruner: str, wrong: float) -> None:
    study = Study(PLANE, sampler="tpe", seed=0, pruner=pruner)
    for number in range(8):
        study.ask(number)
        study.report(number, 1, wrong if number in (2, 7) else 10.0 + number)
        study.report(number, 2, wrong)
        study.tell(number, wrong if number in (2, 4) else 10.0 + number, "finished")
    assert study.should_prune(7)
    assert "no number" in str(study.should_prune(7))
    study.ask(8)


def test_a_study_that_was_rebuilt_prunes_by_what_it_remembers() -> None:
    values = [point(MIXED, "random", seed=0, index=number) for number in range(8)]
    records: list[Record] = [(n, values[n], {1: 10.0 + n, 2: 10.0 + n}, 10.0 + n, "finished") for n in range(6)]
    running: Record = (6, values[6], {1: 1.0}, None, "running")
    for pruner in ("halving", "median"):
        study = restored([*records, running], pruner=pruner)
        assert study.should_prune(6) is None, "what was reported before is no reason any more"
        study.report(6, 2, 1.0)
        study.remember(7, values[7], reports={}, result=None, state="running")
        study.report(7, 1, 2.0)
        assert study.should_prune(7)
    assert study.should_prune(6) == "the median of 6 trials at epoch 2 is 12.5, this one has 1"


def test_a_late_report_and_a_second_end_change_nothing() -> None:
    study = Study(PLANE, sampler="random", seed=0, pruner="halving")
    for number, value in ((0, 20.0), (1, 10.0)):
        study.ask(number)
        study.report(number, 1, value)
        study.report(number, 1, -99.0)
    assert study.should_prune(1) == "halving at epoch 1 keeps the best 1 of 2 trials; this one has 10, the best 20"
    study.tell(1, None, "pruned")
    study.report(1, 2, 99.0)
    study.tell(1, 99.0, "finished")
    study.tell(0, 20.0, "finished")
    study.tell(0, None, "failed")


def test_a_trial_that_is_not_of_this_space_is_refused() -> None:
    inside = point(MIXED, "random", seed=0, index=0)
    for name, value in (("lr", 1.0), ("conv", "sparse"), ("fixed", True), ("blocks", None)):
        study = Study(MIXED, sampler="tpe", seed=0)
        with pytest.raises(
            InputError, match=rf"{name} = {value!r} of an earlier trial is not in the space of this sweep"
        ):
            study.remember(0, inside | {name: value}, reports={}, result=1.0, state="finished")


def test_optuna_prints_nothing_and_writes_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    for sampler in SAMPLERS:
        study = Study(parse_vary(["x=0.0..1.0:50"]), sampler=sampler, seed=0, pruner="halving")
        tried(study, 15, lambda values: values["x"])
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("optuna")]
    assert not list(tmp_path.iterdir())


def test_more_trials_than_a_space_has_points_are_refused(tiny_recipe: Path) -> None:
    config = Config(recipe=str(tiny_recipe), metric="mean")
    assert new_sweep(config, {"lr": [1e-2, 1e-3]}, sampler="tpe", trials=2).trials == 2
    with pytest.raises(InputError, match="--trials 5 is more than the space has points: 2"):
        new_sweep(config, {"lr": [1e-2, 1e-3]}, sampler="tpe", trials=5)
