"""What the recipes that make images from noise report of their samples, by the judge of the built-in fruits."""

from __future__ import annotations

from torch import Tensor

from modtrain.data.labelled import LabelledTest
from modtrain.metrics.features import extractor
from modtrain.metrics.sample_grid import to_uint8
from modtrain.metrics.scores import feature_scores

SAMPLES = 1000
"""Samples of an evaluation, at most."""


def real_images(test: LabelledTest) -> Tensor:
    """The test images that samples are compared with, uint8 (N, 3, size, size): SAMPLES of them, if there are."""
    return test.pixels[:: max(1, len(test.pixels) // SAMPLES)]


def judged_samples(made: Tensor, real: Tensor) -> tuple[dict[str, float], Tensor]:
    """Scores of samples in [-1, 1] against as many real images, and the judge's logits (N, 8) of the samples.

    `feature_variance_orchard` is the total variance of the features as a share of that of the real images.
    """
    judge = extractor("orchard", device=str(real.device))
    of_made, of_real = judge.extract(to_uint8(made)), judge.extract_cached(real)
    metrics = feature_scores(of_made, of_real, judge.name, ("fid", "class_score", "coverage"))
    spread = [float(each.features.var(0).sum()) for each in (of_made, of_real)]
    metrics["feature_variance_orchard"] = spread[0] / spread[1]
    return metrics, of_made.logits
