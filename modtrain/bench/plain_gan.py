"""What the plain loops of a generator and a discriminator have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam


class PlainGan:
    """Both networks with Adam, and a moving average of the generator."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Any, *, beta2: float = 0.999, eps: float = 1e-8) -> None:
        """`nets`: generator and discriminator under the names of the recipe's modules; they are trained in place."""
        self.generator, self.discriminator, self.params = nets["generator"], nets["discriminator"], params
        self.average, self.updates = copy.deepcopy(self.generator).requires_grad_(False), 0
        self.optimizer_g, self.optimizer_d = (
            Adam(net.parameters(), lr=p.lr, betas=(p.beta1, beta2), eps=eps, fused=True)
            for net, p in ((self.generator, params.generator), (self.discriminator, params.discriminator))
        )

    def set_rates(self, factor: float) -> None:
        """Set the learning rates, by a factor on those of the parameters."""
        p = self.params
        for optimizer, rate in ((self.optimizer_g, p.generator.lr), (self.optimizer_d, p.discriminator.lr)):
            optimizer.param_groups[0]["lr"] = rate * factor

    def train_discriminator(self, loss: Tensor) -> None:
        """One step."""
        self.optimizer_d.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()

    def train_generator(self, loss: Tensor) -> None:
        """One step, and one of the average with modtrain's lower decay at first."""
        self.optimizer_g.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_g.step()
        self.updates += 1
        decay = min(self.params.generator.ema, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for value, current in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                value.lerp_(current, 1 - decay)
            for buffer, own in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                buffer.copy_(own)


def r1(logits: Tensor, real: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient of the logits at the images."""
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2
