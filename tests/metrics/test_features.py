"""Extractors: the judge that comes with modtrain, the cache of features, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modtrain.data.fruits.orchard import CLASSES, Orchard, orchard
from modtrain.data.images import Files
from modtrain.errors import InputError
from modtrain.metrics.distribution import frechet_distance
from modtrain.metrics.features import Extractor, extractor
from modtrain.metrics.orchard import SIZE, WEIGHTS, accuracy_on, trained_judge


@pytest.fixture(scope="module")
def judge() -> Extractor:
    return extractor("orchard")


@pytest.fixture(scope="module")
def pictures() -> Orchard:
    return orchard(SIZE, "test")


def test_the_judge_that_comes_with_modtrain_knows_99_percent_of_the_test_pictures(pictures: Orchard) -> None:
    network, _ = trained_judge()
    assert WEIGHTS.stat().st_size < 1e6
    assert 80_000 < sum(weights.numel() for weights in network.parameters()) < 120_000
    assert accuracy_on(network.eval(), pictures.images, pictures.labels) >= 0.99


def test_features_have_64_dimensions_and_logits_one_for_each_class(judge: Extractor, pictures: Orchard) -> None:
    done: list[int] = []
    made = judge.extract(pictures.images[:300], done.append)
    assert (made.features.shape, made.logits.shape) == ((300, 64), (300, len(CLASSES)))
    assert done == [250, 300]
    assert len(made.part(torch.tensor([3, 5]))) == 2


def test_the_judge_resizes_images_of_other_sizes(judge: Extractor, pictures: Orchard) -> None:
    large = orchard(64, "test", each=20).images
    small = judge.extract(pictures.images).features
    score = frechet_distance(judge.extract(large).features, small)
    noise = torch.randint(0, 256, large.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert score < 0.2 * frechet_distance(judge.extract(noise).features, small)


class Counting(torch.nn.Module):
    """Features that are the mean colours; counts its images."""

    seen = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(images)
        return images.float().mean((2, 3)), images.float().mean((2, 3))


def test_features_of_the_same_images_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = Counting()
    made = [Extractor(name="mean", network=network, resize="none", digest=digest, images_at_once=4) for digest in "ab"]
    images = torch.arange(6 * 3 * 16).to(torch.uint8).view(6, 3, 4, 4)
    first = made[0].extract_cached(images)
    assert torch.equal(first.features, made[0].extract_cached(images.clone()).features)
    assert network.seen == 6
    as_files = Files(list(range(6)), 4, read=lambda index, size, grey_range, notify: images[index])
    assert torch.equal(first.features, made[0].extract_cached(as_files).features)
    assert network.seen == 6, "the content counts, not where it is from"
    made[0].extract_cached(images.flip(0))
    made[1].extract_cached(images)
    assert network.seen == 18, "other images, and other weights"


@pytest.mark.parametrize("name", ["orchards", "orchard:weights.pth", "inception", ""])
def test_an_extractor_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"There is no extractor '{name}'; there are orchard"):
        extractor(name)
