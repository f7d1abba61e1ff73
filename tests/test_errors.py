"""The exception tree in the documentation is the real one."""

from __future__ import annotations

import re

import pytest

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


def test_a_count_has_the_plural_of_its_noun() -> None:
    texts = [errors.counted(number, noun) for noun in ("epoch", "batch", "image") for number in (1, 2)]
    assert texts == ["1 epoch", "2 epochs", "1 batch", "2 batches", "1 image", "2 images"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([0, 1, 2], "0, 1, 2"),
        ([0, 4, *range(816, 1302)], "0, 4, 816 to 1301"),
        (range(0, 3000, 2), "0, 2 ... 2996, 2998"),
    ],
)
def test_many_versions_are_listed_as_a_handful_of_ranges(numbers: list[int], text: str) -> None:
    assert errors.ranges(numbers) == text
