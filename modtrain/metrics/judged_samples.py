"""What the recipes that make images from noise report of their samples, by the judge of the built-in fruits."""

from __future__ import annotations

from torch import Tensor

from modtrain.data.labelled import LabelledTest
from modtrain.metrics.features import Features, extractor
from modtrain.metrics.sample_grid import to_uint8
from modtrain.metrics.scores import feature_scores

SAMPLES = 1000
"""Samples of an evaluation, at most."""


def real_images(test: LabelledTest) -> Tensor:
    """The test images that samples are compared with, uint8 (N, 3, size, size): SAMPLES of them, if there are."""
    return test.pixels[:: max(1, len(test.pixels) // SAMPLES)]


def judged_samples(made: Tensor, real: Tensor) -> tuple[dict[str, float], Tensor]:
    """Scores of samples in [-1, 1] against as many real images, and the judge's logits (N, 8) of the samples."""
    judge = extractor("orchard", device=str(real.device))
    of_made, of_real = judge.extract(to_uint8(made)), judge.extract_cached(real)
    metrics = feature_scores(of_made, of_real, judge.name, ("fid", "class_score", "coverage"))
    return metrics | feature_variance(of_made, of_real, judge.name), of_made.logits


def feature_variance(made: Features, real: Features, name: str) -> dict[str, float]:
    """The total variance of the features of samples, as a share of that of real images: near 0, all look alike."""
    return {f"feature_variance_{name}": float(made.features.var(0).sum() / real.features.var(0).sum())}
