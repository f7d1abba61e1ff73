"""Early stopping: when a metric of the validation no longer gets better, and which epoch was best.

The metric oscillates from epoch to epoch, so that its mean over a window is compared (M. Lupión, J. F. Sanjuan,
P. M. Ortigosa: Using a Multi-GPU node to accelerate the training of Pix2Pix neural networks, J. Supercomput. 78, 2022,
section 3.2). The outcome is a pure function of what was measured, so every worker and every restart has the same one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from modtrain.errors import InputError, counted, did_you_mean
from modtrain.storage.evaluations import TEST, EvaluationRecord


@dataclass(frozen=True)
class EarlyStop:
    """End a run once the mean of a metric has not become better for some epochs."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    metric: str
    """A metric of the recipe's `evaluate`, measured on the validation data after each epoch."""
    window: int = 50
    """Epochs whose mean is compared; 1 compares single epochs."""
    patience: int = 50
    """Epochs without a better mean after which the run ends."""
    min_delta: float = 0.0
    """By how much a mean must be better to count."""

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise InputError(f"The metric of early_stop is {self.metric!r}; name one of `evaluate`, such as 'psnr'.")
        for name in ("window", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**53:
                raise InputError(f"{name} of early_stop = {value!r} is not allowed; give a number of epochs from 1 on.")
        is_number = isinstance(self.min_delta, int | float) and not isinstance(self.min_delta, bool)
        if not is_number or not 0 <= self.min_delta < math.inf:
            raise InputError(f"min_delta of early_stop = {self.min_delta!r} is not allowed; give a number from 0 on.")

    @staticmethod
    def parse(text: str) -> EarlyStop:
        """The rule that `METRIC[,window=N][,patience=N][,min_delta=X]` describes."""
        metric, *settings = (part.strip() for part in text.split(","))
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, value = (part.strip() for part in setting.partition("="))
            known = ("window", "patience", "min_delta")
            if name not in known:
                near = did_you_mean(name, known)
                raise InputError(f"early_stop has no {setting!r}; give window=N, patience=N or min_delta=X.{near}")
            try:
                values[name] = float(value) if name == "min_delta" else int(value)
            except ValueError:
                raise InputError(f"{name} = {value!r} of early_stop is not allowed; give a number.") from None
        return EarlyStop(metric, **values)


@dataclass(frozen=True)
class Best:
    """The best epoch so far."""

    epoch: int
    value: float
    versions: Mapping[str, int]


@dataclass(frozen=True)
class Outcome:
    """What early stopping says about the epochs that were measured so far."""

    best: Best | None = None
    """By the mean over the window that ends with the epoch; its versions are kept. None before a window is full."""
    best_single: Best | None = None
    """By the value of a single epoch. The best mean comes later, by up to a window."""
    stopped_at: int | None = None
    """The epoch at which the run is to end; what is measured later does not count."""
    on_test: bool = False
    """Whether the test data were measured, since there is no validation data."""


def outcome_of(rule: EarlyStop, records: Iterable[EvaluationRecord], *, lower_is_better: bool) -> Outcome:
    """The outcome of the validations of a run, in the order in which they were made; of one epoch the first counts.

    A window with a value that is missing or not finite has no mean. Patience counts the epochs that were measured.
    """
    sign = -1 if lower_is_better else 1
    window, seen, since = deque[float](maxlen=rule.window), set[int](), 0
    best: Best | None = None
    single: Best | None = None
    on_test = False
    for record in records:
        if record.epoch in seen or rule.metric not in record.metrics:
            continue
        seen.add(record.epoch)
        on_test = record.data == TEST
        value = record.metrics[rule.metric]
        window.append(math.nan if value is None else value)
        if value is not None and (single is None or sign * value > sign * single.value):
            single = Best(record.epoch, value, record.versions)
        mean = math.fsum(window) / rule.window if len(window) == rule.window else math.nan
        if not math.isnan(mean) and (best is None or sign * mean > sign * best.value + rule.min_delta):
            best, since = Best(record.epoch, mean, record.versions), 0
        elif best is not None:
            since += 1
        if since == rule.patience:
            return Outcome(best, single, record.epoch, on_test)
    return Outcome(best, single, on_test=on_test)


def describe(rule: EarlyStop, outcome: Outcome) -> str:
    """Which epoch is best, and why the run ended if it did, in sentences."""
    over = f"over {counted(rule.window, 'epoch')}"
    if outcome.best is None or outcome.best_single is None:
        return f"No mean of {rule.metric} {over} has been measured yet."
    best, single = outcome.best, outcome.best_single
    measured = " All of it is of the test data: there is no validation data." if outcome.on_test else ""
    text = (
        f"Best at epoch {best.epoch}, by the mean of {rule.metric} {over} ({best.value:.5g}); the best single epoch is "
        f"{single.epoch} ({single.value:.5g}).{measured}"
    )
    if outcome.stopped_at is None:
        return text
    return f"Stopped early at epoch {outcome.stopped_at}: no better mean for {counted(rule.patience, 'epoch')}. {text}"


def unmeasured(metric: str, metrics: Collection[str]) -> str:
    """That no run can stop early by a metric, in a sentence that names those that are measured."""
    return (
        f"early_stop names {metric!r}, which `evaluate` does not measure; it has {', '.join(metrics)}."
        f"{did_you_mean(metric, metrics)}"
    )
