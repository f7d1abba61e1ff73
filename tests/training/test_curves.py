"""What the page draws of a curve of any length: true means, true extremes, and never more points than the eye sees."""

from __future__ import annotations

import random
import statistics
from typing import Any

import numpy as np
import pytest

from modtrain.dashboard.downsampling import MOST, Stretches
from modtrain.dashboard.run_page import curves
from modtrain.storage.history import Columns


def drawn(values: list[float]) -> dict[str, Any]:
    columns = Columns()
    for step, value in enumerate(values):
        columns.add({"step": step, "epoch": step / 100, "at": 1e9 + step, "loss": value})
    (curve,) = curves("generator", columns)
    return curve


def test_a_short_curve_is_drawn_as_it_is() -> None:
    curve = drawn([1.0, 2.0, 4.0])
    assert (curve["step"], curve["value"]) == ([0, 1, 2], [1.0, 2.0, 4.0])
    assert "low" not in curve


@pytest.mark.parametrize("count", [5_000, 50_000])
def test_a_long_noisy_curve_keeps_its_mean_and_its_extremes(count: int) -> None:
    draw = random.Random(0)
    values = [draw.expovariate(1.0) for _ in range(count)]
    curve = drawn(values)
    assert len(curve["value"]) <= MOST
    assert statistics.fmean(curve["value"]) == pytest.approx(statistics.fmean(values), rel=0.02)
    assert max(curve["high"]) == pytest.approx(max(values), rel=1e-5)
    assert min(curve["low"]) == pytest.approx(min(values), rel=1e-5)
    assert all(
        low <= mean <= high for low, mean, high in zip(*(curve[n] for n in ("low", "value", "high")), strict=True)
    )


def test_a_curve_that_grows_changes_only_at_its_end() -> None:
    values = [float(number % 17) for number in range(3_000)]
    before, after = drawn(values), drawn([*values, 5.0])
    assert after["value"][:-1] == before["value"][: len(after["value"]) - 1]


def test_every_point_is_in_exactly_one_stretch() -> None:
    for count in (1, 999, 1_000, 1_001, 2_000, 2_001, 123_457):
        stretches = Stretches(count)
        means = stretches.means(np.ones(count))
        assert len(means) <= MOST
        assert means.tolist() == [1.0] * len(means)
