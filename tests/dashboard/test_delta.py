"""Deltas: applied to the old data they give the new data, and growing curves cost only what is new."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modtrain.dashboard.delta import delta
from tests.dashboard.deltas import apply_delta

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=4)
)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@given(values, values)
def test_a_delta_turns_the_old_value_into_the_new_one(old: Any, new: Any) -> None:
    change = delta(old, new)
    assert apply_delta(old, through_json(change)) == new
    assert change is not None or old == new


@given(st.lists(values, max_size=5), st.lists(values, max_size=5))
def test_a_delta_between_lists_is_exact_with_a_common_beginning(start: list[Any], end: list[Any]) -> None:
    assert apply_delta(start, through_json(delta(start, [*start, *end]))) == [*start, *end]


def test_a_curve_that_grows_by_a_point_costs_only_that_point() -> None:
    old = {"curves": [{"name": "loss", "step": list(range(2000)), "value": [0.5] * 2000}], "config": ["x"] * 1000}
    curve = old["curves"][0]
    new = {**old, "curves": [{**curve, "step": [*curve["step"], 2000], "value": [*curve["value"], 0.4]}]}
    assert len(json.dumps(delta(old, new))) < 200


def test_equal_data_has_no_delta() -> None:
    assert delta({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.0}]}) is None
