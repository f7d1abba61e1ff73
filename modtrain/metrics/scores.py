"""Scores of a set of images against real ones: all that can be said of it, beside what real images score."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from modtrain.data.images import MEMORY_BYTES, Pictures
from modtrain.errors import InputError, did_you_mean, one_of, shortened
from modtrain.metrics.class_conditional import (
    LEAST_OF_CLASS,
    Classes,
    halves_by_class,
    intra_class_frechet_distance,
)
from modtrain.metrics.distribution import class_score, frechet_distance, kernel_distance, precision_and_recall
from modtrain.metrics.features import Extractor, Features
from modtrain.metrics.identification import accuracy, coverage
from modtrain.metrics.ms_ssim import ms_ssim_of_pairs
from modtrain.metrics.sliced_wasserstein import MOST_IMAGES, sliced_wasserstein_scores

FEATURE_SCORES = ("fid", "kid", "precision", "recall", "class_score", "coverage")
"""Followed by the name of an extractor, as in `fid_orchard`."""
INTRA_FID, LABEL_ACCURACY = CLASS_SCORES = ("intra_fid", "label_accuracy")
"""The same, of images of known classes."""
PIXEL_SCORES = ("swd", "ms_ssim")
LOWER_IS_BETTER = ("fid", "kid", "intra_fid", "swd", "ms_ssim")
LEAST_IMAGES = 8
CLASSES_NAMED = 4
"""Number of classes that a message names."""
FEW_IMAGES = 2048
"""Fewer images than these, or than twice the features, are too few for FID: its bias is no longer small."""
MOST_IN_PAIRS = 2000
"""Images whose MS-SSIM is measured, in pairs: its mean over 1,000 pairs is accurate to some 0.003."""

Progress = Callable[[str, int, int], object]
"""Takes what is done, how much of it, and of how much; 0 where it has no parts."""
Measure = Callable[..., dict[str, float]]
"""Metrics by name of two sets; a second one, of the same arguments, makes those of real images."""


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
    classes: Classes | None = None,
    with_reals: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Scores:
    """Compare a set of images with real ones of the same size, uint8 (3, size, size) of at least 16 pixels.

    Both sets have at least 8 images. `metrics` are names such as `fid_orchard` or `swd`; all that there are without it,
    with `classes` also those by class. Features of the reference are kept in the cache of the node. `with_reals` is
    False where the same metrics of real images are known. Raises InputError.
    """
    if min(len(images), len(reference)) < LEAST_IMAGES:
        raise InputError(
            f"A comparison needs at least {LEAST_IMAGES} images on both sides; there are {len(images)} and, as the "
            f"reference, {len(reference)}."
        )
    kinds = {each.name: (*FEATURE_SCORES, *_class_scores(each, classes)) for each in extractors}
    _check_names(metrics, kinds, classes)
    found, reals, seconds, notes = dict[str, float](), dict[str, float](), dict[str, float](), list[str]()

    def measure(what: str, compare: Measure, compare_reals: Measure, *given: Any) -> None:
        progress(what, 0, 0)
        with _timed(what, seconds):
            found.update(compare(*given))
            reals.update(compare_reals(*given) if with_reals else {})

    for each in extractors:
        wanted = [kind for kind in kinds[each.name] if not metrics or f"{kind}_{each.name}" in metrics]
        of_sets = [kind for kind in wanted if kind in FEATURE_SCORES]
        if wanted:
            with _timed(f"features by {each.name}", seconds):
                sets = _features(each, images, reference, progress)
            measure(f"scores by {each.name}", feature_scores, _of_real_features, *sets, each.name, of_sets)
            if "fid" in wanted:
                notes += _too_few(f"fid_{each.name}", f"kid_{each.name}", min(map(len, sets)), sets[1])
        if classes and (by_class := [kind for kind in wanted if kind in CLASS_SCORES]):
            measure(f"classes by {each.name}", _by_class, _reals_by_class, *sets, classes, each, by_class)
            if INTRA_FID in by_class:
                notes += _too_few(f"intra_fid_{each.name}", None, classes.smallest[1], sets[1])
    for kind, compare in {"swd": (_swd, _real_swd), "ms_ssim": (_ms_ssim, _real_ms_ssim)}.items():
        if not metrics or kind in metrics:
            measure(kind, *compare, images, reference)
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
    kinds = (*FEATURE_SCORES, *CLASS_SCORES)
    for kind in kinds:
        if metric.startswith(f"{kind}_"):
            return metric.removeprefix(f"{kind}_")
    known = [*(f"{kind}_orchard" for kind in kinds), *PIXEL_SCORES]
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


def _too_few(metric: str, unbiased: str | None, count: int, real: Features) -> list[str]:
    """A sentence where a Fréchet distance by these features is of too few images."""
    needed = max(FEW_IMAGES, 2 * real.features.shape[1])
    if count >= needed:
        return []
    what = f"{count} images" if unbiased else f"{count} images of a class"
    other = f"; {unbiased} has no such bias" if unbiased else ""
    return [
        f"{metric} is of {what}, fewer than {needed}: it reads too high, and compares only with one of as many "
        f"images{other}."
    ]


@contextlib.contextmanager
def _timed(what: str, seconds: dict[str, float]) -> Iterator[None]:
    started_at = time.monotonic()
    yield
    seconds[what] = time.monotonic() - started_at


def _of_real_features(made: Features, real: Features, name: str, wanted: Sequence[str]) -> dict[str, float]:
    first, second = (real.part(half) for half in _halves(len(real)))
    whole = [kind for kind in ("class_score", "coverage") if kind in wanted]
    return feature_scores(first, second, name, wanted) | feature_scores(real, real, name, whole)


def _by_class(
    made: Features, real: Features, classes: Classes, extractor: Extractor, wanted: Sequence[str]
) -> dict[str, float]:
    scores: dict[str, float] = {}
    if INTRA_FID in wanted:
        sets = made.features, classes.images, real.features, classes.reference
        scores[INTRA_FID] = intra_class_frechet_distance(*sets)
    if LABEL_ACCURACY in wanted:
        scores[LABEL_ACCURACY] = float(accuracy(made.logits, classes.columns(extractor.classes)))
    return {f"{kind}_{extractor.name}": value for kind, value in scores.items()}


def _reals_by_class(
    made: Features, real: Features, classes: Classes, extractor: Extractor, wanted: Sequence[str]
) -> dict[str, float]:
    labels, (first, second) = classes.reference, halves_by_class(classes.reference)
    halves = replace(classes, images=labels[first], reference=labels[second])
    whole, judged = replace(classes, images=labels), [kind for kind in wanted if kind == LABEL_ACCURACY]
    return _by_class(real.part(first), real.part(second), halves, extractor, wanted) | _by_class(
        real, real, whole, extractor, judged
    )


def _swd(images: Pictures, reference: Pictures) -> dict[str, float]:
    count = min(len(images), len(reference), MOST_IMAGES)
    return sliced_wasserstein_scores(*(_some(each, _order(len(each))[:count]) for each in (images, reference)))


def _real_swd(images: Pictures, reference: Pictures) -> dict[str, float]:
    count = min(len(images), len(reference), MOST_IMAGES)
    return sliced_wasserstein_scores(*(_some(reference, half[:count]) for half in _halves(len(reference))))


def _ms_ssim(images: Pictures, reference: Pictures) -> dict[str, float]:
    return {"ms_ssim": ms_ssim_of_pairs(_some(images, _order(len(images))[:MOST_IN_PAIRS]))}


def _real_ms_ssim(images: Pictures, reference: Pictures) -> dict[str, float]:
    return _ms_ssim(reference, reference)


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


def _class_scores(extractor: Extractor, classes: Classes | None) -> tuple[str, ...]:
    """The scores by class that there are: an accuracy only by a network that knows the classes."""
    if classes is None or classes.smallest[1] < LEAST_OF_CLASS:
        return ()
    return CLASS_SCORES if set(classes.names) <= set(extractor.classes) else (INTRA_FID,)


def _check_names(metrics: Collection[str], kinds: Mapping[str, Sequence[str]], classes: Classes | None) -> None:
    known = [*(f"{kind}_{name}" for name, each in kinds.items() for kind in each), *PIXEL_SCORES]
    for metric in metrics:
        if metric in known:
            continue
        if metric.startswith(CLASS_SCORES):
            raise InputError(f"{metric} cannot be measured: {_missing_classes(metric, classes)}.")
        raise InputError(f"There is no metric {metric!r}; it is {one_of(known)}.{did_you_mean(metric, known)}")


def _missing_classes(metric: str, classes: Classes | None) -> str:
    if classes is None:
        return (
            "the images of both sets must have classes, as those of a recipe with classes have, or folders with the "
            "same subfolders, one for each class"
        )
    name, count = classes.smallest
    if count < LEAST_OF_CLASS:
        return f"it needs at least {LEAST_OF_CLASS} images of each class on both sides, and of {name} there are {count}"
    extractor = metric.partition(f"{LABEL_ACCURACY}_")[2]
    return f"{extractor} does not know the classes {shortened(list(classes.names), CLASSES_NAMED)}"
