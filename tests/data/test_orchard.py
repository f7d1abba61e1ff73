"""The built-in labelled pictures: eight classes of fruit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modtrain.data.fruits.orchard import CLASSES, Orchard, orchard


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Orchard:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return orchard(32, "test", each=40)


def in_the_middle(pictures: Orchard) -> Tensor:
    """Pixels within half a radius of the centre, bool (N, 1, S, S)."""
    x, y, radius = pictures.scenes[:, :3].T[..., None, None]
    size = pictures.images.shape[-1]
    centres = (torch.arange(size) + 0.5) / size
    return (torch.hypot(centres[None, None, :] - x, centres[None, :, None] - y) < radius / 2)[:, None]


@pytest.mark.parametrize("size", [16, 33, 64, 128])
def test_pictures_of_any_size_have_labels_and_known_scenes(size: int) -> None:
    data = orchard(size, "train", each=2)
    assert data.images.shape == (16, 3, size, size)
    assert data.images.dtype == torch.uint8
    assert data.labels.tolist() == [number for number in range(len(CLASSES)) for _ in range(2)]
    x, y, radius, _ = data.scenes.T
    assert (torch.minimum(x, y) > radius).all()
    assert (torch.maximum(x, y) < 1 - radius).all()


def test_the_known_scene_is_the_one_that_is_shown(pictures: Orchard) -> None:
    """The middle of the fruit has the hue that is known of it, whatever the ground and the light."""
    middle = in_the_middle(pictures)
    red, green, blue = ((pictures.images * middle).sum((2, 3)) / middle.sum((2, 3))).T
    shown = torch.rad2deg(torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue))
    away = (shown - pictures.scenes[:, 3]).abs().view(len(CLASSES), -1)
    assert away.mean(1).max() < 15


def close_ups(pictures: Orchard) -> Tensor:
    """The fruits alone, by their known place and radius: (N, 3 * 12 * 12)."""
    x, y, radius = 2 * pictures.scenes[:, :3].T
    zero = torch.zeros_like(x)
    frames = torch.stack([radius, zero, x - 1, zero, radius, y - 1], 1).view(-1, 2, 3)
    grid = F.affine_grid(frames, [len(x), 3, 12, 12], align_corners=False)
    return F.grid_sample(pictures.images.float(), grid, align_corners=False).flatten(1)


def test_each_class_is_told_from_the_others_by_its_fruit(pictures: Orchard) -> None:
    known = orchard(32, "train", each=40)
    nearest = torch.cdist(close_ups(pictures), close_ups(known)).argmin(1)
    right = (known.labels[nearest] == pictures.labels).float().view(len(CLASSES), -1).mean(1)
    assert right.min() > 0.85  # chance is 0.125; pixels are compared, nothing is learnt
    assert right.mean() > 0.97
