"""MINE: the estimate for Gaussians, whose information is known, the correction of its gradient, and its clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import Adam

from modtrain.nets.mutual_information import StatisticsNetwork, information, statistics_loss, with_clipped


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_estimate_approaches_the_information_of_correlated_gaussians(correlation: float) -> None:
    torch.manual_seed(0)
    net, log_mean = (
        nn.Sequential(nn.Linear(2, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 1)),
        torch.zeros(()),
    )
    optimizer, threads = Adam(net.parameters(), lr=5e-3, fused=True), torch.get_num_threads()
    torch.set_num_threads(1)  # the network is so small that threads only wait for each other

    def statistics(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, other = torch.randn(2, count, 1)
        z = correlation * x + math.sqrt(1 - correlation**2) * other
        return net(torch.cat([x, z], 1)).flatten(), net(torch.cat([x, z.roll(1, 0)], 1)).flatten()

    for _ in range(200):
        optimizer.zero_grad()
        statistics_loss(*statistics(512), log_mean).backward()
        optimizer.step()
    with torch.no_grad():
        estimate = float(information(*statistics(20_000)))
    torch.set_num_threads(threads)
    assert estimate == pytest.approx(-math.log(1 - correlation**2) / 2, abs=0.03)


def test_the_gradient_of_a_small_batch_is_corrected_by_the_moving_average() -> None:
    """Over many batches of two its mean is that of all pairs at once; that of the plain bound is not."""
    torch.manual_seed(0)
    pairs = torch.randn(1024)

    def gradient(loss: torch.Tensor, scale: torch.Tensor) -> float:
        return float(torch.autograd.grad(loss, scale)[0])

    def statistics(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scale = torch.ones((), requires_grad=True)
        return scale * 0, scale * batch, scale

    joint, independent, scale = statistics(pairs)
    truth = gradient(-information(joint[None], independent), scale)
    log_mean = pairs.logsumexp(0) - math.log(len(pairs))
    plain, corrected = list[float](), list[float]()
    for batch in pairs.split(2):
        joint, independent, scale = statistics(batch)
        plain.append(gradient(-information(joint[None], independent), scale))
        joint, independent, scale = statistics(batch)
        corrected.append(gradient(statistics_loss(joint[None], independent, log_mean.clone(), rate=1e-6), scale))
    assert abs(sum(plain) / len(plain) - truth) > 10 * abs(sum(corrected) / len(corrected) - truth)


def test_the_gradient_of_the_information_is_at_most_as_long_as_the_adversarial_one() -> None:
    adversarial, short, long = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 50.0])
    assert with_clipped(adversarial, short).tolist() == [3.0, 6.0]
    assert with_clipped(adversarial, long).tolist() == [3.0, 9.0]
    assert with_clipped(adversarial, torch.zeros(2)).tolist() == [3.0, 4.0]


def test_the_statistic_of_a_pair_does_not_depend_on_the_others() -> None:
    net = StatisticsNetwork(5, 4, 32)
    images, noise = torch.randn(6, 3, 32, 32), torch.randn(6, 5)
    whole = net(images, noise)
    assert whole.shape == (6,)
    torch.testing.assert_close(net(images[:2], noise[:2]), whole[:2])
    assert not torch.allclose(net(images, noise.roll(1, 0)), whole)
