"""Noise: its distribution under both truncations, and walks that keep its length."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from modtrain.nets.noise import draw_noise, walk


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, stats.norm()),
        ({"truncation": 0.5}, stats.truncnorm(-0.5, 0.5)),
        ({"truncation": 2.0, "truncate": "resample"}, stats.truncnorm(-2, 2)),
        ({"truncation": 0.5, "truncate": "scale"}, stats.norm(scale=0.5)),
    ],
)
def test_noise_has_the_distribution_of_its_truncation(options: dict, expected: stats.rv_continuous) -> None:
    noise = draw_noise(200, 50, seed=3, **options)
    assert stats.kstest(noise.flatten().numpy(), expected.cdf).pvalue > 0.01
    assert torch.equal(draw_noise(7, 50, seed=3, **options), noise[:7])


def test_a_walk_passes_its_points_at_their_length() -> None:
    points = draw_noise(3, 100, seed=0)
    legs = walk(points, 5, closed=False)
    assert legs.shape == (2, 5, 100)
    assert torch.allclose(legs[0, 0], points[0])
    assert torch.allclose(legs[0, -1], points[1], atol=1e-6)
    assert torch.allclose(legs[1, -1], points[2], atol=1e-6)
    assert float(legs.norm(dim=2).min() / points.norm(dim=1).min()) > 0.95
    film = walk(points, 5, closed=True)
    assert film.shape == (3, 5, 100)
    assert torch.allclose(film[:, 0], points)
    assert not torch.equal(walk(points[:1].expand(2, -1), 3, closed=False), points.new_zeros(1, 3, 100))
    assert torch.allclose(walk(points[:1].repeat(2, 1), 3, closed=False), points[0].expand(1, 3, -1))
