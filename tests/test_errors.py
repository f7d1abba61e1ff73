"""The exception tree in the documentation is the real one."""

from __future__ import annotations

import re

from modtrain import errors


def test_the_tree_in_the_docstring_names_every_exception_with_its_exit_code() -> None:
    drawn = dict(re.findall(r"^    (?:[├└]── )?(\w+) +(\d+)   ", errors.__doc__ or "", re.MULTILINE))
    defined = [
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == "modtrain.errors"
    ]
    assert drawn == {error.__name__: str(error.exit_code) for error in defined}


def test_an_exit_code_gives_its_exception() -> None:
    codes = (5, 3, 75, 1, None, -9)
    assert [errors.error_of(code) for code in codes] == [
        errors.Diverged, errors.StopRequested, errors.Preempted, *[errors.ModtrainError] * 3,
    ]  # fmt: skip
