"""Adversarial training as alarms judge it: a discriminator that has won, and samples that have collapsed.

Of losses that may be negative, such as hinge and Wasserstein, none says who wins: what is judged are the scores that a
loss returns beside it (`adversarial_losses.scores`), and what the evaluations measure of samples from the same noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.history import Score

WINDOW = 30
"""Lines of a curve that make a judgement, 20 steps each: a GAN's losses are noisy over less."""
RIGHT = 0.995
"""Accuracy of a discriminator that is always right, at every line of a window; it often is for a while."""
RISE, HIGHEST = 2.0, 0.8
"""How many times its lowest level, and its highest, the gap of the scores must be: the generator does not follow."""
VARIANCE, COVERAGE = "feature_variance", "coverage"
"""What the names of the metrics begin with that tell of a collapse."""
LOW = 0.1
"""Variance of the features of samples, as a share of that of real images, that is no variety any more."""
FEW = 0.5
"""Share of the classes that were covered before, below which samples have lost them."""


def has_won(scores: Sequence[Score]) -> bool:
    """Whether each real sample scores above its fake for a whole window, by a gap that has doubled and stays large.

    A discriminator that is right without a growing gap trains its generator well: that is how most of them are.
    """
    if len(scores) < 3 * WINDOW or min(score.accuracy for score in scores[-WINDOW:]) < RIGHT:
        return False
    ends = range(len(scores), WINDOW - 1, -WINDOW)
    *before, now = [statistics.median(each.gap for each in scores[end - WINDOW : end]) for end in reversed(ends)]
    return now >= HIGHEST * max(before) and now >= RISE * max(0.0, min(before))


def collapse(evaluations: Iterable[EvaluationRecord]) -> str | None:
    """What is collapsed, in words, by the two newest epochs that were evaluated; None where nothing is."""
    by_epoch = {record.epoch: record.metrics for record in evaluations}
    records = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    for name in records[-1] if len(records) > 1 else ():
        values = [value for record in records if (value := record.get(name)) is not None]
        newest, before = values[-2:], max(values[:-2], default=0.0)
        if len(newest) < 2:
            continue
        if name.startswith(VARIANCE) and max(newest) < LOW:
            return f"the features of samples have {newest[-1]:.0%} of the variance that those of real images have"
        if name.startswith(COVERAGE) and max(newest) < FEW * before:
            return f"samples are of {newest[-1]:g} classes, after {before:g}"
    return None
