"""Scores of images of known classes see what FID does not: images of the wrong class."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from modtrain.data.fruits.orchard import CLASSES, orchard
from modtrain.errors import InputError
from modtrain.metrics.class_conditional import Classes, halves_by_class, intra_class_frechet_distance
from modtrain.metrics.distribution import frechet_distance
from modtrain.metrics.features import extractor
from modtrain.metrics.scores import score


def test_intra_class_fid_is_the_mean_of_fid_within_each_class() -> None:
    draws = torch.Generator().manual_seed(0)
    made, real = (torch.randn(60, 3, generator=draws) for _ in range(2))
    of_made, of_real = torch.arange(60) % 3, torch.arange(60) // 20
    expected = [frechet_distance(made[each::3], real[20 * each : 20 * each + 20]) for each in range(3)]
    assert intra_class_frechet_distance(made, of_made, real, of_real) == pytest.approx(sum(expected) / 3, rel=1e-12)


def test_the_halves_of_real_images_have_half_of_each_class() -> None:
    labels = torch.tensor([0] * 8 + [1] * 9)
    first, second = halves_by_class(labels)
    assert [torch.bincount(labels[half]).tolist() for half in (first, second)] == [[4, 5], [4, 4]]
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(17))


def test_images_of_the_wrong_class_are_seen() -> None:
    made, real = orchard(32, "test", each=8), orchard(32, "train", each=8)
    right = Classes(names=CLASSES, images=made.labels, reference=real.labels)
    wrong = dataclasses.replace(right, images=(made.labels + 1) % len(CLASSES))
    names = ("fid_orchard", "intra_fid_orchard", "label_accuracy_orchard")
    given = (made.images, real.images, [extractor("orchard")])
    of_right, of_wrong = (score(*given, metrics=names, classes=each) for each in (right, wrong))
    assert of_right.metrics["fid_orchard"] == of_wrong.metrics["fid_orchard"]
    assert 2 * of_right.metrics["intra_fid_orchard"] < of_wrong.metrics["intra_fid_orchard"]
    assert of_right.metrics["label_accuracy_orchard"] > 0.95 > 0.05 > of_wrong.metrics["label_accuracy_orchard"]
    assert of_right.reals == of_wrong.reals
    one_more = dataclasses.replace(right, reference=torch.cat([real.labels, torch.tensor([-1])]))
    with_unknown = score(
        made.images, torch.cat([real.images, made.images[:1]]), given[2], metrics=names, classes=one_more
    )
    assert with_unknown.metrics["intra_fid_orchard"] == pytest.approx(of_right.metrics["intra_fid_orchard"])
    assert with_unknown.reals["label_accuracy_orchard"] == of_right.reals["label_accuracy_orchard"]
    assert of_right.notes[-1].startswith("intra_fid_orchard is of 8 images of a class, fewer than 2048: it reads")


@pytest.mark.parametrize(
    ("metric", "names", "each", "says"),
    [
        (
            "intra_fid_orchard",
            CLASSES,
            2,
            "it needs at least 8 images of each class on both sides, and of red-apple there",
        ),
        ("label_accuracy_orchard", tuple("abcdefgh"), 8, "orchard does not know the classes a, b, c, d and 4 more."),
    ],
)
def test_what_cannot_be_measured_by_class_says_why(metric: str, names: tuple[str, ...], each: int, says: str) -> None:
    fruits = orchard(32, "test", each=each)
    classes = Classes(names=names, images=fruits.labels, reference=fruits.labels)
    with pytest.raises(InputError, match=says):
        score(fruits.images, fruits.images, [extractor("orchard")], metrics=[metric], classes=classes)
