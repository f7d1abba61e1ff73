"""The metrics of a trial by epoch, from files that grow: what is new is read, and only these values stay in memory.

Lines that are torn or foreign are left out. Deliberately not here: what is drawn of them (`sweep_page.py`), and every
line of one run (`history.py`).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modtrain.storage.json_lines import GrowingFile, number
from modtrain.storage.run import Run
from modtrain.sweeps.trial import training_scalar

Curves = dict[str, dict[int, float]]
"""By metric its values by epoch, NaN where one was not finite; of several of one epoch the first, as for pruning."""

FOREIGN = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What a line raises that is none of ours."""


class ByEpoch:
    """The metrics of one trial: of its evaluations, and that of the sweep where it is one of training."""

    def __init__(self, run: Run, metric: str | None) -> None:
        """Nothing is read yet."""
        self._files = [_Measured(run.evaluations_path, _judged)]
        module, scalar = training_scalar(run, metric or "")
        if module:
            of_training = partial(_published, name=metric or "", scalar=scalar)
            self._files.append(_Measured(run.published_path(module), of_training))

    def look(self) -> Curves:
        """Everything that was measured so far."""
        found = [file.look() for file in self._files]
        return {name: values for each in found for name, values in sorted(each.items())}


class _Measured:
    """What one file says of each epoch; `read` tells of a line its epoch and its values."""

    def __init__(self, path: Path, read: Callable[[Any], tuple[int, Mapping[str, Any]]]) -> None:
        self._growing, self._read = GrowingFile(path), read
        self._found: Curves = {}

    def look(self) -> Curves:
        _, anew = self._growing.refresh()
        if anew:
            self._found = {}
        while (lines := self._growing.read()) is not None:
            for line in lines:
                with contextlib.suppress(*FOREIGN):
                    self._take(*self._read(json.loads(line)))
        return self._found

    def _take(self, epoch: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items() if epoch > 0 else ():
            finite = number(value)
            self._found.setdefault(name, {}).setdefault(epoch, math.nan if finite is None else finite)


def _judged(line: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    return int(min(line["epochs"].values())), line["metrics"]


def _published(line: Mapping[str, Any], *, name: str, scalar: str) -> tuple[int, Mapping[str, Any]]:
    """Only a version at the end of an epoch has the whole epoch's mean."""
    return int(line["epoch"]), {name: line["metrics"][scalar]} if line["full"] else {}
