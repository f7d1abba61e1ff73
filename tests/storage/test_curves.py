"""A training curve in memory."""

from __future__ import annotations

from modtrain.storage.history import Columns, scalars


def test_a_curve_has_the_numbers_of_each_line() -> None:
    columns = Columns()
    columns.add({"step": 1, "epoch": 0.5, "at": 1.5, "loss": 2.0, "seconds": {"compute": 1.0, "data": None}})
    columns.add({"step": 2, "epoch": 1, "at": 2.5, "lr": 0.1, "penalty": 3.0})
    first, second = columns.rows()
    assert first == {"step": 1, "epoch": 0.5, "at": 1.5, "lr": None, "loss": 2.0, "seconds_compute": 1.0}
    assert second == {"step": 2, "epoch": 1.0, "at": 2.5, "lr": 0.1, "penalty": 3.0}
    columns.add({"step": 2, "epoch": 1, "at": 9.0, "lr": 0.0, "loss": 7.0})
    assert [row["step"] for row in columns.rows()] == [1, 2]
    assert columns.losses(0, 2) == [2.0], "a learning rate of 0 trains nothing"


def test_only_finite_numbers_are_scalars() -> None:
    line = {"step": 1, "epoch": 0.1, "lr": 0.1, "at": 2.0, "loss": 1.0}
    foreign = {"seconds": {"data": 1}, "name": "x", "yes": True, "huge": 10**400, "no": None, "inf": 1e999}
    assert scalars(line | foreign) == {"loss": 1.0}
