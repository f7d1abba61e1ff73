"""Adversarial training as alarms judge it: a discriminator that has won, and samples that have collapsed.

A loss that cannot be negative tells at its floor that nothing is left to learn. Others, such as hinge and Wasserstein,
do not say who wins: what is judged are the scores that a loss returns beside it (`adversarial_losses.scores`), and what
the evaluations measure of samples from the same noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.history import Score

WINDOW = 30
"""Lines of a curve that make a judgement, 20 steps each: a GAN's losses are noisy over less."""
NEWEST = 3
"""Lines that a spike does not fill, and that tell where a curve begins: 60 steps."""
FLOOR = 0.05
"""Of the highest level that a loss has had: below, for a whole window, a discriminator has nothing left to learn."""
CERTAIN = 0.05
"""An adversarial loss below is that of an opponent that is always right: cross-entropy, least squares and hinge alike.

With it the first lines tell where a curve began: they alone may be a spike that a healthy level is far below as well.
"""
RIGHT = 0.995
"""Accuracy of a discriminator that is always right, at every line of a window; it often is for a while."""
RISE, HIGHEST = 2.0, 0.8
"""How many times its lowest level, and its highest, a curve must be that has risen and stays high: the opponent's loss,
without which a low loss is no bad one, or the gap of the scores, which a generator does not follow."""
VARIANCE, COVERAGE = "feature_variance", "coverage"
"""What the names of the metrics begin with that tell of a collapse."""
LOW = 0.1
"""Variance of the features of samples, as a share of that of real images, that is no variety."""
SOON = 10
"""Evaluations, by default all of a run, or epochs of a finished one: a generator begins without variety."""
FEW = 0.5
"""Share of the classes that were covered before, below which samples have lost them."""


def beaten_opponent(name: str, curves: Mapping[str, Sequence[float]]) -> str | None:
    """The module whose loss has risen while that of `name` is at its floor, by the losses of all; None: there is none.

    A curve whose first window is at the floor is compared with its first lines.
    """
    losses = curves[name]
    has_lost = {_is_at_floor: _has_risen, _is_at_floor_early: _has_risen_early}
    tests = [risen for at_floor, risen in has_lost.items() if at_floor(losses)]
    others = (peer for peer in curves if peer != name)
    return next((peer for peer in others if any(risen(curves[peer]) for risen in tests)), None)


def has_won(scores: Sequence[Score]) -> bool:
    """Whether each real sample scores above its fake for a whole window, by a gap that has doubled and stays large.

    A discriminator that is right without a growing gap trains its generator well: that is how most of them are.
    """
    if len(scores) < 3 * WINDOW or min(score.accuracy for score in scores[-WINDOW:]) < RIGHT:
        return False
    *before, now = _levels([score.gap for score in scores])
    return _stays_high(now, lowest=max(0.0, min(before)), highest=max(before))


def _stays_high(level: float, *, lowest: float, highest: float) -> bool:
    return level >= RISE * lowest and level >= HIGHEST * highest


def _levels(values: Sequence[float]) -> list[float]:
    """The medians of consecutive windows, the last window at the end."""
    ends = range(len(values), WINDOW - 1, -WINDOW)
    return [statistics.median(values[end - WINDOW : end]) for end in reversed(ends)]


def _is_at_floor(losses: Sequence[float]) -> bool:
    """Whether the whole window is at the floor; a loss that may be negative has no known floor."""
    highest = max(_levels(losses), default=0.0)
    return min(losses) >= 0 and max(losses[-WINDOW:]) <= FLOOR * highest


def _is_at_floor_early(losses: Sequence[float]) -> bool:
    """Whether the whole window is at the floor below the first lines, where no earlier window was higher."""
    return min(losses) >= 0 and max(losses[-WINDOW:]) <= min(FLOOR * max(losses[:NEWEST]), CERTAIN)


def _has_risen(losses: Sequence[float]) -> bool:
    """Whether the loss has risen from its lowest level, and is about as high as it ever was since."""
    if min(losses, default=-1.0) < 0:
        return False
    levels = [statistics.median(losses[:NEWEST]), *_levels(losses)]  # it may have lost within its first window
    lowest = min(range(len(levels)), key=lambda place: levels[place])
    since = levels[lowest:]
    return len(since) > 1 and _stays_high(levels[-1], lowest=since[0], highest=max(since))


def _has_risen_early(losses: Sequence[float]) -> bool:
    """Whether the loss has risen from its first lines, and is about as high as it ever was since."""
    levels = _levels(losses)
    if not levels or min(losses) < 0:
        return False
    return _stays_high(levels[-1], lowest=min(losses[:NEWEST]), highest=max(levels))


def collapse(evaluations: Iterable[EvaluationRecord], *, is_finished: bool = False) -> str | None:
    """What is collapsed, in words, by the two newest epochs that were evaluated; None where nothing is.

    A finished run of some length, such as a trial that is evaluated once, may be judged by its end alone.
    """
    by_epoch = {record.epoch: record.metrics for record in evaluations}
    epochs = sorted(by_epoch)
    has_ended = is_finished and epochs[-1:] >= [SOON]
    for name in by_epoch[epochs[-1]] if epochs else ():
        values = [value for epoch in epochs if (value := by_epoch[epoch].get(name)) is not None]
        newest, before = values[-2:], max(values[:-2], default=0.0)
        had_time = before >= LOW or len(values) >= SOON or has_ended
        if name.startswith(VARIANCE) and had_time and _are_below(LOW, newest, 1 if has_ended else 2):
            return f"the features of samples have {newest[-1]:.0%} of the variance that those of real images have"
        if name.startswith(COVERAGE) and _are_below(FEW * before, newest, 2):
            return f"samples are of {newest[-1]:g} class{'es' * (newest[-1] != 1)}, after {before:g}"
    return None


def _are_below(limit: float, values: Sequence[float], count: int) -> bool:
    """Whether the newest `count` values exist and are all below a limit."""
    return len(values) >= count and max(values[-count:]) < limit
