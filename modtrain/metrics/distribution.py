"""Distances of two sets of images by their features: FID, KID, precision and recall; and the class score of one set.

Features are (N, D) and logits (N, classes), of any extractor (`features.py`); everything is computed in float64. The
random draws are those of torch-fidelity with its default seed, so that equal features give equal numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modtrain.errors import InputError

SEED = 2020
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
SPLITS = 10
NEIGHBOURS = 3
ROWS_AT_ONCE, KERNEL_ROWS = 1000, 64
"""Rows of a matrix of distances, and of one of kernels, that are in memory at a time."""

Array = NDArray[np.float64]


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """FID: the Fréchet distance of two Gaussians with the means and the unbiased covariances of the features.

    Heusel et al. 2017, equation 6: |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^(1/2)). It is 0 for equal sets, and biased:
    fewer images read higher, so only sets of the same size compare. Raises InputError for a single image.
    """
    first, second = _moments(features), _moments(reference)
    root = _square_root(first[1])
    # The eigenvalues of S1 S2 are those of the symmetric S1^(1/2) S2 S1^(1/2): real, and none negative but by rounding.
    eigenvalues = np.linalg.eigvalsh(root @ second[1] @ root).clip(0)
    difference = first[0] - second[0]
    traces = np.trace(first[1]) + np.trace(second[1]) - 2 * np.sqrt(eigenvalues).sum()
    return max(0.0, float(difference @ difference + traces))


def _moments(features: Tensor) -> tuple[Array, Array]:
    values = features.double().cpu().numpy()
    if len(values) < 2:
        raise InputError(f"FID compares two sets of at least 2 images; one of them has {len(values)}.")
    return values.mean(0), np.atleast_2d(np.cov(values, rowvar=False))


def _square_root(symmetric: Array) -> Array:
    eigenvalues, vectors = np.linalg.eigh(symmetric)
    root: Array = (vectors * np.sqrt(eigenvalues.clip(0))) @ vectors.T
    return root


def kernel_distance(features: Tensor, reference: Tensor, *, subsets: int = KID_SUBSETS, size: int = 0) -> float:
    """KID: the unbiased squared maximum mean discrepancy with the kernel (x·y / D + 1)³, a mean over random subsets.

    Bińkowski et al. 2018, section 4. Its expectation does not depend on how many images there are; for equal
    distributions it is 0 on average and may be slightly negative. A subset has `size` images of each set, by default
    1000, or as many as the smaller set has. Raises InputError for a single image.
    """
    first, second = (each.double().cpu().numpy() for each in (features, reference))
    most = min(len(first), len(second))
    if most < 2:
        raise InputError(f"KID compares two sets of at least 2 images; one of them has {most}.")
    size = min(size or KID_SUBSET_SIZE, most)
    draws, total = np.random.RandomState(SEED), 0.0
    for _ in range(subsets):
        x, y = (each[draws.choice(len(each), size, replace=False)] for each in (first, second))
        total += _within(x) + _within(y) - 2 * _kernel_sum(x, y) / size**2
    return total / subsets


def _within(x: Array) -> float:
    """Mean of the kernel over all pairs of different images."""
    of_itself = (np.einsum("ij,ij->i", x, x) / x.shape[1] + 1) ** 3
    return (_kernel_sum(x, x) - float(of_itself.sum())) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Array, y: Array) -> float:
    """Sum of the kernel over all pairs, by a few rows at a time, which stay in the processor's cache."""
    total = 0.0
    for first in range(0, len(x), KERNEL_ROWS):
        products = x[first : first + KERNEL_ROWS] @ y.T
        products /= x.shape[1]
        products += 1
        total += float(np.vdot(products * products, products))
    return total


def class_score(logits: Tensor, *, splits: int = SPLITS) -> float:
    """The Inception score by the logits of any classifier: exp of the mean KL(p(y|x) || p(y)), a mean over `splits`.

    Salimans et al. 2016, section 4: from 1, where every image looks the same to the classifier, to the number of
    classes, where each image is surely of one and all are equally frequent. The splits are shuffled; with fewer than
    two images each there are fewer of them. Logits of Inception are those without bias. Raises InputError.
    """
    if not len(logits):
        raise InputError("The class score needs at least one image.")
    splits = max(1, min(splits, len(logits) // 2))
    order = np.random.RandomState(SEED).permutation(len(logits))
    probabilities = logits.double().cpu()[order].softmax(1)
    edges = [number * len(logits) // splits for number in range(splits + 1)]
    scores = []
    for first, last in itertools.pairwise(edges):
        p = probabilities[first:last]
        divergences = torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))  # 0 log 0 is 0
        scores.append(float(divergences.sum(1).mean().exp()))
    return sum(scores) / len(scores)


def precision_and_recall(features: Tensor, reference: Tensor, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of the images inside the manifold of the reference, and of the reference inside that of the images.

    Kynkäänniemi et al. 2019, equation 1: a manifold is the union of balls around each of its points, as large as the
    distance to its third neighbour. Precision falls with bad images, recall with missing ones. Raises InputError where
    a set is not larger than `neighbours`.
    """
    if min(len(features), len(reference)) <= neighbours:
        raise InputError(
            f"Precision and recall take the distance to neighbour {neighbours} of each image, so each set needs at "
            f"least {neighbours + 1} images; one has {min(len(features), len(reference))}."
        )
    images, real = features.double(), reference.double()
    return _share_inside(images, real, neighbours), _share_inside(real, images, neighbours)


def _share_inside(points: Tensor, centres: Tensor, neighbours: int) -> float:
    def radius(distances: Tensor) -> Tensor:  # the nearest one is the point itself
        return distances.kthvalue(neighbours + 1).values

    radii = _by_rows(centres, centres, radius)
    return float(_by_rows(points, centres, lambda distances: (distances <= radii).any(1)).double().mean())


def _by_rows(points: Tensor, others: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """What `reduce` makes of the distances (n, M) of n points, one after the other, to all others."""
    return torch.cat([reduce(torch.cdist(part, others)) for part in torch.split(points, ROWS_AT_ONCE)])
