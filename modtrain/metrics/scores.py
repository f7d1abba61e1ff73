"""Scores of a set of images against real ones: all that can be said of it, beside what real images score."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modtrain.data.images import MEMORY_BYTES, Pictures
from modtrain.errors import InputError, did_you_mean, one_of
from modtrain.metrics.distribution import class_score, frechet_distance, kernel_distance, precision_and_recall
from modtrain.metrics.features import Extractor, Features
from modtrain.metrics.identification import coverage
from modtrain.metrics.ms_ssim import ms_ssim_of_pairs
from modtrain.metrics.sliced_wasserstein import MOST_IMAGES, sliced_wasserstein_distances

FEATURE_SCORES = ("fid", "kid", "precision", "recall", "class_score", "coverage")
"""Followed by the name of an extractor, as in `fid_orchard`."""
PIXEL_SCORES = ("swd", "ms_ssim")
LOWER_IS_BETTER = ("fid", "kid", "swd", "ms_ssim")
LEAST_IMAGES = 8
FEW_IMAGES = 2048
"""Fewer images than these, or than twice the features, are too few for FID: its bias is no longer small."""
MOST_IN_PAIRS = 2000
"""Images whose MS-SSIM is measured, in pairs: its mean over 1,000 pairs is accurate to some 0.003."""

Progress = Callable[[str, int, int], object]
"""Takes what is done, how much of it, and of how much; 0 where it has no parts."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What `score` measures."""

    metrics: dict[str, float]
    """By name."""
    reals: dict[str, float]
    """The same of real images: one random half of the reference against the other, or all where one set counts."""
    images: int
    """How many."""
    reference: int
    extractors: dict[str, str]
    """How each network resizes images, by its name."""
    seconds: dict[str, float]
    """What took how long: features of both sets, and each kind of comparison."""
    notes: list[str]
    """What to beware of in these values, in sentences."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the numbers of images."""
        return {
            "extractors": self.extractors,
            "metrics": self.metrics,
            "reals": self.reals,
            "lower_is_better": [name for name in self.metrics if is_lower_better(name)],
            "seconds": {what: round(taken, 1) for what, taken in self.seconds.items()},
            "notes": self.notes,
        }


def score(
    images: Pictures,
    reference: Pictures,
    extractors: Sequence[Extractor],
    *,
    metrics: Collection[str] = (),
    progress: Progress = lambda what, done, total: None,
) -> Scores:
    """Compare a set of images with real ones of the same size, uint8 (3, size, size) of at least 16 pixels.

    Both sets have at least 8 images. `metrics` are names such as `fid_orchard` or `swd`; all that there are without it.
    Features of the reference are kept in the cache of the node. Raises InputError.
    """
    if min(len(images), len(reference)) < LEAST_IMAGES:
        raise InputError(
            f"A comparison needs at least {LEAST_IMAGES} images on both sides; there are {len(images)} and, as the "
            f"reference, {len(reference)}."
        )
    _check_names(metrics, extractors)
    found, reals, seconds, notes = dict[str, float](), dict[str, float](), dict[str, float](), list[str]()

    def measure(what: str, compare: Callable[[], tuple[dict[str, float], dict[str, float]]]) -> None:
        progress(what, 0, 0)
        with _timed(what, seconds):
            values = compare()
        found.update(values[0])
        reals.update(values[1])

    for each in extractors:
        wanted = [kind for kind in FEATURE_SCORES if not metrics or f"{kind}_{each.name}" in metrics]
        if wanted:
            with _timed(f"features by {each.name}", seconds):
                sets = _features(each, images, reference, progress)
            measure(f"scores by {each.name}", functools.partial(_feature_scores, *sets, each.name, wanted))
            if "fid" in wanted:
                notes += _too_few(each.name, *sets)
    for kind, compare in {"swd": _swd, "ms_ssim": _ms_ssim}.items():
        if not metrics or kind in metrics:
            measure(kind, functools.partial(compare, images, reference))
    return Scores(
        metrics=found,
        reals=reals,
        images=len(images),
        reference=len(reference),
        extractors={each.name: each.resize for each in extractors},
        seconds=seconds,
        notes=notes,
    )


def feature_scores(
    images: Features, reference: Features, name: str, wanted: Sequence[str] = FEATURE_SCORES
) -> dict[str, float]:
    """The scores by the features of an extractor of that name, such as `fid_orchard`."""
    scores: dict[str, float] = {}
    if "fid" in wanted:
        scores["fid"] = frechet_distance(images.features, reference.features)
    if "kid" in wanted:
        scores["kid"] = kernel_distance(images.features, reference.features)
    if {"precision", "recall"} & set(wanted):
        scores["precision"], scores["recall"] = precision_and_recall(images.features, reference.features)
    if "class_score" in wanted:
        scores["class_score"] = class_score(images.logits)
    if "coverage" in wanted:
        scores["coverage"] = coverage(images.logits, reference.logits)
    return {f"{kind}_{name}": scores[kind] for kind in wanted}


def requested_extractor(metric: str) -> str | None:
    """The extractor of `fid_orchard`, or of `fid_inception:PATH`; None of a metric of pixels. Raises InputError."""
    if metric in PIXEL_SCORES:
        return None
    for kind in FEATURE_SCORES:
        if metric.startswith(f"{kind}_"):
            return metric.removeprefix(f"{kind}_")
    known = [*(f"{kind}_orchard" for kind in FEATURE_SCORES), *PIXEL_SCORES]
    raise InputError(
        f"There is no metric {metric!r}; there are {', '.join(known)}, and the same with another extractor, such as "
        f"fid_efficientnet-lite0.{did_you_mean(metric, known)}"
    )


def metric_name(metric: str) -> str:
    """`fid_inception` of `fid_inception:PATH`; any other name is as it was typed."""
    return metric.partition(":")[0]


def is_lower_better(metric: str) -> bool:
    """Whether less of a metric is better, by its name."""
    return any(metric == kind or metric.startswith(f"{kind}_") for kind in LOWER_IS_BETTER)


def _features(
    extractor: Extractor, images: Pictures, reference: Pictures, progress: Progress
) -> tuple[Features, Features]:
    what = f"features by {extractor.name}"
    real = extractor.extract_cached(reference, lambda done: progress(f"{what}, reference", done, len(reference)))
    made = extractor.extract(images, lambda done: progress(what, done, len(images)))
    return made, real


def _too_few(name: str, made: Features, real: Features) -> list[str]:
    """A sentence where FID by these features is of too few images."""
    count, needed = min(len(made), len(real)), max(FEW_IMAGES, 2 * real.features.shape[1])
    if count >= needed:
        return []
    return [
        f"fid_{name} is of {count} images, fewer than {needed}: it reads too high, and compares only with one of "
        f"as many images; kid_{name} has no such bias."
    ]


@contextlib.contextmanager
def _timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    started_at = time.monotonic()
    yield
    seconds[what] = time.monotonic() - started_at


def _feature_scores(
    made: Features, real: Features, name: str, wanted: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    first, second = (real.part(half) for half in _halves(len(real)))
    whole = [kind for kind in ("class_score", "coverage") if kind in wanted]
    reals = feature_scores(first, second, name, wanted) | feature_scores(real, real, name, whole)
    return feature_scores(made, real, name, wanted), reals


def _swd(images: Pictures, reference: Pictures) -> tuple[dict[str, float], dict[str, float]]:
    count = min(len(images), len(reference), MOST_IMAGES)
    halves = [_some(reference, half[:count]) for half in _halves(len(reference))]
    made, real = (_some(each, _order(len(each))[:count]) for each in (images, reference))
    return _by_level(made, real), _by_level(*halves)


def _by_level(images: Tensor, reference: Tensor) -> dict[str, float]:
    levels = sliced_wasserstein_distances(images, reference)
    return {"swd": sum(levels.values()) / len(levels)} | {f"swd_{edge}": value for edge, value in levels.items()}


def _ms_ssim(images: Pictures, reference: Pictures) -> tuple[dict[str, float], dict[str, float]]:
    sets = [_some(each, _order(len(each))[:MOST_IN_PAIRS]) for each in (images, reference)]
    made, real = ({"ms_ssim": ms_ssim_of_pairs(each)} for each in sets)
    return made, real


def _order(count: int) -> Tensor:
    """A random order, always the same."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _halves(count: int) -> tuple[Tensor, Tensor]:
    order = _order(count)
    return order[: count // 2], order[count // 2 :]


def _some(images: Pictures, chosen: Tensor) -> Tensor:
    """Some of the images, as many as fit into memory."""
    if isinstance(images, Tensor):
        return images[chosen]
    fitting = chosen[: MEMORY_BYTES // (3 * images.size**2)]
    return torch.stack([images[index] for index in fitting.tolist()])


def _check_names(metrics: Collection[str], extractors: Sequence[Extractor]) -> None:
    known = [*(f"{kind}_{each.name}" for each in extractors for kind in FEATURE_SCORES), *PIXEL_SCORES]
    for metric in metrics:
        if metric not in known:
            raise InputError(f"There is no metric {metric!r}; it is {one_of(known)}.{did_you_mean(metric, known)}")
