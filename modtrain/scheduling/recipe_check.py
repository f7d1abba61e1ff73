"""The check of a recipe before a run is created, in a process of its own (`training/recipe_check`).

It can be ended where it takes too long, gives its memory back, and leaves the random generators of this process alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from modtrain.errors import InputError, did_you_mean
from modtrain.scheduling.backends.base import python_path
from modtrain.storage.early_stop import unmeasured
from modtrain.storage.manifest import as_json
from modtrain.storage.run import RunSpec

LAUNCH_S = 60.0
"""Longest check of a launch; what is not checked by then is not checked."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What the check of a recipe has found."""

    violations: list[str]
    """One sentence for each thing with which the run could not be trained, evaluated or resumed."""
    warnings: list[str]
    metrics: list[str] | None
    """Names of the metrics of the evaluation, the first one first; None where it was not evaluated."""
    seconds: float


def check_recipe(
    spec: RunSpec,
    *,
    metric: str | None = None,
    timeout_s: float | None = None,
    progress: Callable[[str], object] = lambda part: None,
) -> CheckResult:
    """Check the recipe of a run with its data and parameters, on the CPU. Nothing is created.

    `metric` is one that must be measured: the recipe's own is not with all data. Where the check does not come to its
    end, a warning says so. `progress` is called with each part that is checked, such as "the loss of generator".
    """
    started_at = time.monotonic()
    findings, problem = _findings(spec, timeout_s, progress)
    unfinished = findings.pop("part", "the recipe")
    if unfinished:
        findings["warnings"].append(f"The recipe was not checked to its end: {problem}, at {unfinished}.")
    elif findings["metrics"] is not None and metric is not None:
        findings["violations"] += _unknown_metric(spec, metric, findings["metrics"])
    if spec.early_stop and not unfinished and not findings["violations"]:
        if findings["metrics"] is None:
            findings["violations"].append(f"early_stop cannot measure {spec.early_stop.metric}: no data is held out.")
        elif spec.early_stop.metric not in findings["metrics"]:
            findings["violations"].append(unmeasured(spec.early_stop.metric, findings["metrics"]))
    return CheckResult(**findings, seconds=time.monotonic() - started_at)


def require_sound(spec: RunSpec, notify: Callable[[str], None], *, metric: str | None) -> None:
    """Check the recipe of a run that is about to be created; InputError with what is wrong, `notify` of warnings."""
    result = check_recipe(spec, metric=metric, timeout_s=LAUNCH_S)
    for warning in result.warnings:
        notify(warning)
    if result.violations:
        skip = "Nothing was created. `modtrain check` repeats this check, `--no-check` leaves it out."
        raise InputError("\n".join([*result.violations, skip]))


def _unknown_metric(spec: RunSpec, name: str, metrics: list[str]) -> list[str]:
    """A sentence where a metric is not measured; the training of a module has others, `module.scalar`."""
    if name in metrics or name.partition(".")[0] in {module for modules in spec.placement for module in modules}:
        return []
    known = ", ".join(metrics)
    return [f"The evaluation measures no {name!r}; it has {known}.{did_you_mean(name, metrics)}"]


def _findings(spec: RunSpec, timeout_s: float | None, progress: Callable[[str], object]) -> tuple[dict[str, Any], str]:
    """The findings that were written last, in a line that is complete, and why there are no more."""
    command = [sys.executable, "-m", "modtrain.training.recipe_check"]
    pipe, environment = subprocess.PIPE, os.environ | python_path()
    findings: dict[str, Any] = {"part": "the recipe", "violations": [], "warnings": [], "metrics": None}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment) as process,
        _ended_after(process, timeout_s) as is_late,
    ):
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):  # it ends at once: its error says why
            process.stdin.write(as_json(spec))
            process.stdin.close()
        for line in process.stdout:
            if line.endswith(b"\n"):
                findings = json.loads(line)
                if findings["part"]:
                    progress(findings["part"])
        if process.wait() and is_late.is_set():
            return findings, f"it took longer than {timeout_s:g} s"
        errors.seek(0)
        problem = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    return findings, problem or f"exit code {process.returncode}"


@contextlib.contextmanager
def _ended_after(process: subprocess.Popen[bytes], timeout_s: float | None) -> Iterator[threading.Event]:
    """Kill a process after so many seconds, which sets the event."""
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        process.kill()

    timer = None if timeout_s is None else threading.Timer(timeout_s, end)
    if timer:
        timer.start()
    try:
        yield is_late
    finally:
        if timer:
            timer.cancel()
