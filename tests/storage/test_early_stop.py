"""Early stopping is a pure function of what was measured, and equals a naive reading of the paper."""

from __future__ import annotations

import random
import statistics

import pytest

from modtrain.errors import InputError
from modtrain.storage.early_stop import EarlyStop, describe, outcome_of
from modtrain.storage.evaluations import EvaluationRecord


def records(values: list[float | None]) -> list[EvaluationRecord]:
    return [
        EvaluationRecord(versions={"g": 2 * epoch}, epochs={"g": epoch}, metrics={"psnr": value}, grid=None, at=None)
        for epoch, value in enumerate(values, 1)
    ]


def naive(
    values: list[float | None], window: int, patience: int, delta: float, *, lower: bool
) -> tuple[int | None, int | None, int | None]:
    """Epochs of the best mean and the best value, and the stop, looking at all of the past in each epoch."""
    sign = -1 if lower else 1
    for end in range(1, len(values) + 1):
        best = single = None
        for epoch in range(1, end + 1):
            value = values[epoch - 1]
            if value is not None and (single is None or sign * value > sign * values[single - 1]):
                single = epoch
            inside = values[max(0, epoch - window) : epoch]
            if len(inside) < window or None in inside:
                continue
            mean = statistics.fmean(inside)
            if best is None or sign * mean > sign * best[1] + delta:
                best = epoch, mean
        if best is not None and end - best[0] == patience:
            return best[0], single, end
    return (best and best[0]), single, None


def test_on_10_000_random_traces_it_equals_a_naive_oracle() -> None:
    draw = random.Random(0)
    stopped = 0
    for _ in range(10_000):
        window, patience, lower = draw.randint(1, 3), draw.randint(1, 6), draw.random() < 0.5
        delta = draw.choice([0.0, 0.5])
        values = [draw.choice([None, *range(9)]) if draw.random() < 0.3 else draw.gauss(4, 2) for _ in range(10)]
        outcome = outcome_of(EarlyStop("psnr", window, patience, delta), records(values), lower_is_better=lower)
        found = (
            outcome.best and outcome.best.epoch,
            outcome.best_single and outcome.best_single.epoch,
            outcome.stopped_at,
        )
        assert found == naive(values, window, patience, delta, lower=lower)
        stopped += outcome.stopped_at is not None
    assert 5_000 < stopped < 9_500


def test_on_the_papers_shape_it_stops_at_455_of_3000_with_the_best_mean_at_405() -> None:
    """The values rise to epoch 380 and fall from then on, so that the mean over 50 epochs is highest at 405."""
    values = [17.8 - abs(epoch - 380.25) / 300 for epoch in range(1, 3001)]
    rule = EarlyStop("psnr")
    outcome = outcome_of(rule, records(values), lower_is_better=False)
    assert outcome.best is not None
    assert outcome.best_single is not None
    assert (outcome.best.epoch, outcome.best_single.epoch, outcome.stopped_at) == (405, 380, 455)
    assert outcome.best.versions == {"g": 810}
    assert describe(rule, outcome) == (
        "Stopped early at epoch 455: no better mean for 50 epochs. Best at epoch 405, by the mean of psnr over 50 "
        "epochs (17.758); the best single epoch is 380 (17.799)."
    )
    for length in (454, 456, 3000):
        assert outcome_of(rule, records(values[:length]), lower_is_better=False).stopped_at == (
            455 if length > 454 else None
        )


def test_of_a_repeated_epoch_the_first_value_counts() -> None:
    twice = [record for record in records([3.0, 2.0, 1.0]) for _ in range(2)]
    outcome = outcome_of(EarlyStop("psnr", 1, 2), twice, lower_is_better=False)
    assert outcome.stopped_at == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("psnr,windw=3", "early_stop has no 'windw=3'; .* Did you mean 'window'"),
        ("psnr,window=x", "window = 'x' of early_stop is not allowed"),
        ("psnr,patience=0", "patience of early_stop = 0 is not allowed"),
        ("psnr,min_delta=-1", "min_delta of early_stop = -1.0 is not allowed"),
        (",window=3", "The metric of early_stop is ''"),
    ],
)
def test_a_rule_that_is_not_allowed_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        EarlyStop.parse(text)
    assert EarlyStop.parse("psnr, window=3, min_delta=0.5") == EarlyStop("psnr", 3, 50, 0.5)
