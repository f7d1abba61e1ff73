"""Scores of the samples that trained networks make, against the real images of the recipe's test data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modtrain.data.labelled import LabelledTest
from modtrain.errors import InputError
from modtrain.metrics.folder_scores import EXTRACTOR, FRUITS_ONLY, extractors_of
from modtrain.metrics.sample_grid import to_uint8
from modtrain.metrics.scores import Progress, metric_name, score
from modtrain.recipes.loading import data_of
from modtrain.training.inference.model import TrainedModel
from modtrain.training.random_state import kept_random_state


def score_samples(
    model: TrainedModel,
    metrics: Sequence[str],
    *,
    samples: int,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Metrics such as `fid_orchard` of so many samples, those of `TrainedModel.sample`, each class in turn.

    The reference is the recipe's `Data.test`, a `LabelledTest`. Returns what `score_folders` does, with the run and the
    versions, and the split that the reference is of. Raises InputError.
    """
    networks = extractors_of(metrics, device=model.device)
    noise, labels = model.noise(samples), model.labels(samples)
    with kept_random_state():
        test = data_of(model.run.spec, model.recipe, model.params).test
    if not isinstance(test, LabelledTest):
        raise InputError(
            f"The recipe {model.run.spec.recipe} has no real images to compare samples with: its `Data.test` must be "
            "that of `labelled`. `modtrain sample` and `modtrain score` compare with a folder."
        )
    made = list[torch.Tensor]()
    for images in model.generate(noise, labels):
        made.append(to_uint8(images))
        progress("samples", sum(map(len, made)), samples)
    images = torch.cat(made)
    scores = score(images, test.pixels, networks, metrics=[metric_name(each) for each in metrics], progress=progress)
    if model.run.spec.dataroot and EXTRACTOR in scores.extractors:
        scores.notes.insert(0, FRUITS_ONLY)
    return {
        "run": model.run.name,
        "versions": model.versions,
        "images": {"count": samples, "size": images.shape[-1]},
        "reference": {"split": test.split, "count": scores.reference, "size": test.pixels.shape[-1]},
    } | scores.as_dict()
