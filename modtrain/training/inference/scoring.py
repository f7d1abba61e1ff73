"""Scores of the samples that trained networks make, against real images of the recipe's data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from modtrain.data.labelled import LabelledData, LabelledTest
from modtrain.errors import InputError, one_of
from modtrain.metrics.class_conditional import Classes
from modtrain.metrics.folder_scores import EXTRACTOR, FRUITS_ONLY, extractors_of
from modtrain.metrics.sample_grid import to_uint8
from modtrain.metrics.scores import Progress, Scores, metric_name, score
from modtrain.nets.noise import Truncate
from modtrain.recipes.loading import data_of
from modtrain.storage import filesystem
from modtrain.training.inference.model import TrainedModel
from modtrain.training.random_state import kept_random_state

Reference = Literal["test", "train"]


def score_samples(
    model: TrainedModel,
    metrics: Sequence[str],
    *,
    samples: int,
    truncations: Sequence[float | None] = (None,),
    truncate: Truncate = "resample",
    reference: Reference = "test",
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Metrics such as `fid_orchard` of so many samples, those of `TrainedModel.sample`, each class in turn.

    The reference is the recipe's `Data.test`, a `LabelledTest`, or the training images of a `LabelledData`. Returns
    what `score_folders` does, with the run, the versions, the truncation of the noise, and the split that the reference
    is of. With several `truncations` it has `curve` instead of `metrics`: those of each, of the same noise. Raises
    InputError.
    """
    networks = extractors_of(metrics, device=model.device)
    noises = [model.noise(samples, truncation=each, truncate=truncate) for each in truncations]
    labels, real = model.labels(samples), _real_images(model, reference)
    classes = None
    if labels is not None and real.labels is not None and real.classes == model.classes:
        classes = Classes(names=real.classes, images=labels, reference=real.labels)
    wanted, measured = [metric_name(each) for each in metrics], list[Scores]()
    for noise, truncation in zip(noises, truncations, strict=True):
        made = _samples(model, noise, labels, _title(truncation), progress)
        is_first = not measured  # real images score the same at each truncation
        sets = (made, real.pixels, networks)
        measured.append(score(*sets, metrics=wanted, classes=classes, with_reals=is_first, progress=progress))
    if model.run.spec.dataroot and EXTRACTOR in measured[0].extractors:
        measured[0].notes.insert(0, FRUITS_ONLY)
    facts = {
        "run": model.run.name,
        "versions": model.versions,
        "images": {"count": samples, "size": made.shape[-1]},
        "reference": {"split": real.split, "count": len(real.pixels), "size": real.pixels.shape[-1]},
        "truncate": truncate,
    }
    return facts | _document(truncations, measured)


def record_scores(model: TrainedModel, scored: Mapping[str, Any]) -> None:
    """Append what `score_samples` has returned to `evaluation/scores.jsonl`. Raises OSError.

    The names of the metrics carry the number of samples, the split and the truncation, as in `fid_orchard:10000:test`
    or `fid_orchard:10000:test:0.5`: by other numbers of them they do not compare, nor with those of an evaluation.
    """
    points = scored.get("curve") or [{"truncation": scored["truncation"], "metrics": scored["metrics"]}]
    of, metrics = f":{scored['images']['count']}:{scored['reference']['split']}", dict[str, float | None]()
    for point in points:
        how = "" if scored["truncate"] == "resample" else scored["truncate"]
        at = "" if point["truncation"] is None else f":{how}{point['truncation']:g}"
        metrics |= {name + of + at: value for name, value in point["metrics"].items()}
    epochs = {name: checkpoint.epoch for name, checkpoint in model.checkpoints.items()}
    line = {**scored, "metrics": metrics, "epochs": epochs, "grid": None, "at": time.time()}
    model.run.evaluation_path.mkdir(exist_ok=True)
    filesystem.append_line(model.run.scores_path, json.dumps(line))


def _document(truncations: Sequence[float | None], measured: Sequence[Scores]) -> dict[str, Any]:
    """The scores at one truncation, or the curve over several."""
    parts = [each.as_dict() for each in measured]
    seconds = {what: round(sum(part["seconds"][what] for part in parts), 1) for what in parts[0]["seconds"]}
    if len(parts) == 1:
        return {"truncation": truncations[0]} | parts[0]
    points = zip(truncations, measured, strict=True)
    curve = [{"truncation": truncation, "metrics": each.metrics} for truncation, each in points]
    return (
        {"curve": curve} | {name: value for name, value in parts[0].items() if name != "metrics"} | {"seconds": seconds}
    )


def _real_images(model: TrainedModel, reference: Reference) -> LabelledTest:
    if reference not in get_args(Reference):
        raise InputError(f"reference = {reference!r} is not allowed; use {one_of(get_args(Reference))}.")
    with kept_random_state():
        data = data_of(model.run.spec, model.recipe, model.params)
        images = data.test
        if reference == "train":
            images = data.train_images() if isinstance(data, LabelledData) else None
    if isinstance(images, LabelledTest):
        return images
    what = "its `Data.test` must be that" if reference == "test" else "its data must be those"
    raise InputError(
        f"The recipe {model.run.spec.recipe} has no real images to compare samples with: {what} of `labelled`. "
        "`modtrain sample` and `modtrain score` compare with a folder."
    )


def _title(truncation: float | None) -> str:
    return "samples" if truncation is None else f"samples truncated at {truncation:g}"


def _samples(model: TrainedModel, noise: Tensor, labels: Tensor | None, what: str, progress: Progress) -> Tensor:
    """The samples of noise, uint8 (N, 3, H, W)."""
    made = list[Tensor]()
    for images in model.generate(noise, labels):
        made.append(to_uint8(images))
        progress(what, sum(map(len, made)), len(noise))
    return torch.cat(made)
