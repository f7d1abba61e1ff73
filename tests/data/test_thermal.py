"""The built-in pairs: thermal pictures of twelve cultivars, and the same scenes in colour."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modtrain.data.fruits.thermal import Thermal, thermal, thermal_candidates
from modtrain.data.paired import PairedTest, paired


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Thermal:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return thermal(64, "test", each=6)


def warm(pairs: Tensor) -> Tensor:
    """Where the fruit is, of the thermal picture alone: bool (N, 1, S, S)."""
    return pairs[:, :1] > 150


def test_a_is_grey_and_tells_the_fruit_from_the_ground(pairs: Thermal) -> None:
    assert pairs.pairs.shape == (12 * 6, 6, 64, 64)
    a = pairs.pairs[:, :3].float()
    assert (a == a[:, :1]).all()
    fruit = warm(pairs.pairs)
    assert fruit.float().mean((1, 2, 3)).min() > 0.1
    edge = torch.cat([fruit[..., 0, :], fruit[..., -1, :], fruit[..., :, 0], fruit[..., :, -1]], -1)
    assert edge.float().mean() < 0.01  # the whole fruit is in the picture
    values = a[:, :1] / 255
    assert 0.25 < values[~fruit].mean() < 0.45  # 0.25, and a fifth of the ground
    assert 0.75 < values[fruit].mean() < 0.95


def test_hue_is_in_b_alone_and_follows_from_the_cultivar(pairs: Thermal) -> None:
    """Two pictures of a cultivar are alike in colour, and those of any two cultivars differ more."""
    fruit = warm(pairs.pairs)
    colour = (pairs.pairs[:, 3:] * fruit).sum((2, 3)) / fruit.sum((2, 3))
    chroma = (colour / colour.sum(1, keepdim=True)).view(12, 6, 3)
    means = chroma.mean(1)
    nearest = torch.cdist(chroma.flatten(0, 1), means).argmin(1)
    assert (nearest == pairs.labels).float().mean() > 0.9


def outline(pairs: Tensor) -> Tensor:
    """Strengths of the harmonics 2 to 6 of the warm region's radius, (N, 5): whatever its place, size and tilt."""
    described = []
    for fruit in warm(pairs)[:, 0]:
        y, x = fruit.nonzero().float().T
        angle, far = torch.atan2(y - y.mean(), x - x.mean()), torch.hypot(y - y.mean(), x - x.mean())
        bins = ((angle / torch.pi + 1) * 12).long().clamp(0, 23)
        radius = torch.zeros(24).scatter_reduce(0, bins, far, "amax")
        harmonics = torch.fft.rfft(radius).abs()
        described.append(harmonics[2:7] / harmonics[0])
    return torch.stack(described)


def test_a_cultivar_is_recognised_in_the_thermal_picture_by_its_outline(pairs: Thermal) -> None:
    known = thermal(64, "train", each=6)
    nearest = torch.cdist(outline(pairs.pairs), outline(known.pairs)).argmin(1)
    accuracy = (known.labels[nearest] == pairs.labels).float().mean()
    assert accuracy > 0.9  # chance is 0.08


def test_a_recipe_gets_thermal_pairs_without_a_dataroot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modtrain.data.fruits.thermal.EACH", {"train": 2, "val": 1, "test": 1})
    data = paired(None, load_size=18, crop_size=16, batch_size=4, direction="BtoA")
    assert data.description == "thermal 16x16: 24 pairs for training, 12 for testing, 12 labels"
    batch = next(data.train.epoch(0, seed=0))
    assert batch["a"].shape == batch["b"].shape == (4, 3, 16, 16)
    assert batch["label"].dtype == torch.int64
    assert isinstance(data.test, PairedTest)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == list(range(12))
    for images in (batch["b"], data.test.b):  # the other direction: grey is wanted
        assert torch.equal(images[:, 0], images[:, 2])
    assert not torch.equal(paired(None, load_size=18, crop_size=16, batch_size=4, held_out="val").test.b, data.test.a)


def test_the_mask_is_the_fruit_and_a_scene_with_each_cultivar_differs_only_there() -> None:
    shown, candidates = thermal(24, "test", each=1), thermal_candidates(24, "test", each=1)
    assert candidates.shape == (12, 12, 3, 24, 24)
    assert torch.equal(candidates[torch.arange(12), shown.labels], shown.pairs[:, 3:])
    fruit = warm(shown.pairs)
    assert (shown.masks.bool() >= fruit).float().mean() > 0.99
    assert shown.masks.float().sum() < 1.5 * fruit.sum()
    others = (candidates.int() - shown.pairs[:, None, 3:].int()).abs().amax((1, 2))
    for number in range(12):
        assert others[number][fruit[number, 0]].float().mean() > 50
        assert others[number].count_nonzero() < 2 * fruit[number].sum()  # the ground is the same
