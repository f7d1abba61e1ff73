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
