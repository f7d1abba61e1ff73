"""FID, KID, the class score, precision and recall against torch-fidelity and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from modtrain.errors import InputError
from modtrain.metrics.distribution import class_score, frechet_distance, kernel_distance, precision_and_recall
from tests.support.fidelity import fidelity

SIZES = [(400, 300, 16), (20, 30, 64)]
"""Images of both sets, and dimensions: in the second case fewer images than dimensions."""


def features(count: int, dimensions: int, *, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Correlated, skewed, with a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(dimensions))
    return ((torch.randn(count, dimensions, generator=generator) * scale + 0.3) @ mixing).relu()


def pair(sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    first, second, dimensions = sizes
    return features(first, dimensions), features(second, dimensions, seed=1, scale=1.2)


@pytest.mark.parametrize("sizes", SIZES)
def test_fid_is_that_of_torch_fidelity_and_of_the_matrix_square_root(sizes: tuple[int, int, int]) -> None:
    images, reference = pair(sizes)
    fid = fidelity("metric_fid")
    statistics = [fid.fid_features_to_statistics(each.double()) for each in (images, reference)]
    published = fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID]
    assert frechet_distance(images, reference) == pytest.approx(published, rel=1e-6)
    covariances = [each["sigma"] for each in statistics]
    root: Any = scipy.linalg.sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(sizes[2]))
    shift = ((statistics[0]["mu"] - statistics[1]["mu"]) ** 2).sum()
    by_hand = shift + sum(map(np.trace, covariances)) - 2 * np.trace(root).real
    assert frechet_distance(images, reference) == pytest.approx(by_hand, rel=1e-5)


def test_fid_of_a_shift_is_its_square_and_that_of_equal_sets_is_0() -> None:
    images = features(200, 8)
    assert frechet_distance(images, images + 0.5) == pytest.approx(8 * 0.25)
    assert frechet_distance(images, images.flip(0)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("size", "subsets"), [(100, 20), (0, 3)])
def test_kid_is_that_of_torch_fidelity(size: int, subsets: int) -> None:
    images, reference = pair(SIZES[0])
    kid = fidelity("metric_kid")
    options = {"kid_subsets": subsets, "kid_subset_size": size or 300, "verbose": False}
    published = kid.kid_features_to_metric(images.double(), reference.double(), **options)[kid.KEY_METRIC_KID_MEAN]
    assert kernel_distance(images, reference, subsets=subsets, size=size) == pytest.approx(published, rel=1e-6)


def test_kid_of_equal_distributions_is_0_on_average_however_few_images_there_are_and_fid_is_not() -> None:
    sets = torch.randn(400, 12, 4, generator=torch.Generator().manual_seed(0)).unbind()
    pairs = list(zip(sets[::2], sets[1::2], strict=True))
    kid = [kernel_distance(first, second, subsets=1) for first, second in pairs]
    assert abs(np.mean(kid)) < 2.5 * np.std(kid) / len(kid) ** 0.5
    assert np.std(kid) < kernel_distance(2 * sets[0], sets[1], subsets=1)
    assert np.mean([frechet_distance(first, second) for first, second in pairs]) > 0.8


@pytest.mark.parametrize(("count", "splits"), [(503, 10), (40, 1)])
def test_the_class_score_is_the_inception_score_of_torch_fidelity(count: int, splits: int) -> None:
    logits = 3 * torch.randn(count, 12, generator=torch.Generator().manual_seed(0))
    isc = fidelity("metric_isc")
    published = isc.isc_features_to_metric(logits, splits=splits)[isc.KEY_METRIC_ISC_MEAN]
    assert class_score(logits, splits=splits) == pytest.approx(published, rel=1e-6)


def test_the_class_score_is_between_1_and_the_number_of_classes() -> None:
    certain = 1000 * torch.eye(8).repeat(200, 1)
    assert class_score(certain) == pytest.approx(8, rel=0.03), "splits hold nearly as many of each class"
    assert class_score(certain, splits=1) == pytest.approx(8)
    assert class_score(certain[:1].repeat(50, 1)) == pytest.approx(1)
    assert class_score(torch.zeros(50, 8)) == pytest.approx(1)


@pytest.mark.parametrize("sizes", SIZES)
def test_precision_and_recall_are_those_of_torch_fidelity(sizes: tuple[int, int, int]) -> None:
    images, reference = pair(sizes)
    prc = fidelity("metric_prc")
    published = prc.prc_features_to_metric(images.double(), reference.double(), verbose=False)
    precision, recall = precision_and_recall(images, reference)
    assert precision == pytest.approx(published[prc.KEY_METRIC_PRECISION], abs=1e-6)
    assert recall == pytest.approx(published[prc.KEY_METRIC_RECALL], abs=1e-6)


def test_precision_falls_with_bad_images_and_recall_with_missing_ones() -> None:
    reference = torch.cat([features(200, 8), features(200, 8, seed=1) + 100])
    precision, recall = precision_and_recall(features(200, 8, seed=2), reference)
    assert precision > 0.8
    assert 0.4 < recall <= 0.5, "one of two modes is missing"
    assert precision_and_recall(reference, features(200, 8, seed=2))[0] == recall


def test_too_few_images_are_refused_in_one_sentence() -> None:
    one, many = features(1, 8), features(50, 8)
    with pytest.raises(InputError, match="at least 2 images; one of them has 1"):
        frechet_distance(one, many)
    with pytest.raises(InputError, match="at least 2 images; one of them has 1"):
        kernel_distance(many, one)
    with pytest.raises(InputError, match="needs at least 4 images; one has 3"):
        precision_and_recall(many, many[:3])
    with pytest.raises(InputError, match="at least one image"):
        class_score(one[:0])
