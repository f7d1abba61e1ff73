"""The scores of two folders of images, as `modtrain score` prints them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modtrain.metrics.class_conditional import Classes
from modtrain.metrics.features import Extractor, extractor
from modtrain.metrics.image_folders import common_classes, common_size, image_files, load_images
from modtrain.metrics.scores import Progress, metric_name, requested_extractor, score

EXTRACTOR = "orchard"
"""By default, since it needs neither a package nor a file more."""
FRUITS_ONLY = (
    "orchard knows only the built-in fruits; photographs are judged by efficientnet-lite0, as with "
    "--metric fid_efficientnet-lite0."
)
OTHER_FEATURES = (
    "orchard knows only the built-in fruits; for photographs train a new run with --features efficientnet-lite0."
)
"""Instead, of a distance of the features by which a run was trained."""


def score_folders(
    images: Path,
    reference: Path,
    *,
    extractors: Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    size: int | None = None,
    device: str = "cpu",
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Compare the images of a folder with those of another one, which are real.

    `extractors` are names as of `features.extractor`, by default those that `metrics` name, else `orchard`. All images
    must be squares of one size, or are resized to `size`. Where both folders have the same subfolders, with all images
    in them, these are their classes. Returns metrics by name and what they are of: path, count and size of both sets,
    the resize of each extractor, `reals`, the same metrics of real images, and `notes`, sentences on what to beware of.
    Raises InputError.
    """
    networks = extractors_of(metrics, extractors, device=device)
    folders = (images, reference)
    files = [image_files(folder) for folder in folders]
    edge, names = size or common_size(files), common_classes(folders, files)
    (made, of_made), (real, of_real) = (
        load_images(folder, found, edge, functools.partial(progress, f"reading {folder}"), classes=names)
        for folder, found in zip(folders, files, strict=True)
    )
    classes = Classes(names=names, images=of_made, reference=of_real) if names else None
    wanted = [metric_name(each) for each in metrics]
    scores = score(made, real, networks, metrics=wanted, classes=classes, progress=progress)
    if EXTRACTOR in scores.extractors:
        scores.notes.insert(0, FRUITS_ONLY)
    return {
        "images": {"path": str(images), "count": scores.images, "size": edge},
        "reference": {"path": str(reference), "count": scores.reference, "size": edge},
    } | scores.as_dict()


def extractors_of(
    metrics: Sequence[str], extractors: Sequence[str] | None = None, *, device: str = "cpu"
) -> list[Extractor]:
    """Those that are named, else those that metrics name, as in `fid_orchard`, else `orchard`. Raises InputError."""
    named = dict.fromkeys(name for metric in metrics if (name := requested_extractor(metric)))
    return [extractor(name, device=device) for name in extractors or named or ([] if metrics else [EXTRACTOR])]
