"""Evaluations: the lines of evaluation/metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from modtrain.storage import filesystem
from modtrain.storage.run import Run


def evaluations(run: Run) -> list[dict[str, Any]]:
    """Every evaluation of the run, oldest first; a torn or foreign line is left out."""
    found = []
    for line in filesystem.read_lines(run.path / "evaluation" / "metrics.jsonl"):
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(line)
            if isinstance(said, dict) and all(isinstance(said.get(name), dict) for name in ("metrics", "epochs")):
                found.append(said)
    return found


def newest_evaluation(run: Run) -> dict[str, Any] | None:
    """The newest evaluation, if there is one."""
    return next(iter(evaluations(run)[::-1]), None)
