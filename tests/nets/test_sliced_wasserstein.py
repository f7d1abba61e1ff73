"""The sliced Wasserstein distance against small cases by hand and against SciPy."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance

from modtrain.nets.sliced_wasserstein import sliced_wasserstein, wasserstein


@pytest.mark.parametrize(
    ("samples", "target", "distance"),
    [
        ([[3.0, 1.0, 2.0]], [[1.0, 2.0, 3.0]], 0.0),  # the order does not count
        ([[0.0, 5.0]], [[7.0, 2.0]], 2.0),  # a shift
        ([[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [3.0, 3.0]], 2.0),  # the mean of the rows
        ([[0.0, 1.0]], [[0.0, 1.0, 2.0]], 0.5),
        ([[1.0]], [[0.0, 1.0, 5.0, 2.0]], 1.5),
    ],
)
def test_the_distance_of_numbers_is_the_area_between_their_quantiles(
    samples: list[list[float]], target: list[list[float]], distance: float
) -> None:
    for first, second in ((samples, target), (target, samples)):
        assert float(wasserstein(torch.tensor(first), torch.tensor(second))) == pytest.approx(distance)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 9), (7, 5), (1, 8)])
def test_the_distance_of_numbers_is_that_of_scipy(n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(n)
    samples, target = (torch.randn(count, generator=generator, dtype=torch.float64) for count in (n, m))
    by_scipy = wasserstein_distance(samples.numpy(), target.numpy())
    assert float(wasserstein(samples[None], target[None])) == pytest.approx(by_scipy)


def distance(features: torch.Tensor, target: torch.Tensor, patch_size: int = 3, projections: int = 8) -> float:
    torch.manual_seed(0)
    return float(sliced_wasserstein(features, target, projections=projections, patch_size=patch_size))


def test_maps_with_the_same_patches_have_no_distance_wherever_these_are() -> None:
    maps = torch.randn(4, 5, 6, 6)
    assert distance(maps, maps.flip(0)) == 0
    assert distance(maps, maps.roll((1, 2), (2, 3)), patch_size=1) == pytest.approx(0, abs=1e-6)
    assert distance(maps, maps.roll((1, 2), (2, 3))) > 0.01, "patches across the edge are others"
    assert distance(maps, torch.cat((maps, maps))) == pytest.approx(0, abs=1e-6), "shares count, not numbers"


def test_a_shift_is_as_far_as_the_filters_pass_it_on() -> None:
    target = torch.randn(3, 2, 5, 5)
    torch.manual_seed(0)
    filters = torch.randn(8, 2, 3, 3)
    sums = filters.sum((1, 2, 3)) / filters.square().sum((1, 2, 3)).sqrt()
    by_hand = 1.5 * float(sums.abs().mean() / target.std())
    assert distance(target + 1.5, target) == pytest.approx(by_hand, rel=1e-5)


def test_a_common_scale_does_not_change_it() -> None:
    features, target = torch.randn(3, 2, 5, 5), torch.randn(2, 2, 7, 4)
    assert distance(1000 * features, 1000 * target) == pytest.approx(distance(features, target), rel=1e-5)


def test_maps_smaller_than_a_patch_are_compared_as_a_whole() -> None:
    features, target = torch.randn(3, 2, 2, 5), torch.randn(3, 2, 5, 5)
    assert distance(features, target, patch_size=9) > 0
    assert distance(target, target, patch_size=9) == 0


def test_new_filters_are_drawn_in_each_call_and_the_same_ones_from_the_same_state() -> None:
    features, target = torch.randn(3, 2, 5, 5), torch.randn(3, 2, 5, 5)
    state = torch.get_rng_state()
    first, second = (sliced_wasserstein(features, target, projections=2, patch_size=3) for _ in range(2))
    torch.set_rng_state(state)
    again = sliced_wasserstein(features, target, projections=2, patch_size=3)
    assert first != second
    assert first == again


def test_its_gradient_moves_each_value_towards_the_one_of_its_rank() -> None:
    features, target = torch.tensor([[[[6.0, 0.0]]]]).requires_grad_(), torch.tensor([[[[3.0, 5.0]]]])
    loss = sliced_wasserstein(features, target, projections=4, patch_size=1)  # the filters are 1 or -1
    (gradient,) = torch.autograd.grad(loss, features)
    assert float(loss.detach()) == pytest.approx((1 + 3) / 2 / 2**0.5)
    assert gradient.flatten().tolist() == pytest.approx([0.5 / 2**0.5, -0.5 / 2**0.5])
