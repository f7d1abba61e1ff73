"""DCGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from modtrain.recipes.dcgan import Params, schedule


class PlainDcgan:
    """The published algorithm with one batch of fakes for both networks, and a moving average of the generator."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        """`nets`: generator and discriminator under the names of the recipe's modules; they are trained in place."""
        self.generator, self.discriminator, self.params = nets["generator"], nets["discriminator"], params
        self.average, self.updates = copy.deepcopy(self.generator).requires_grad_(False), 0
        p, q = params.generator, params.discriminator
        self.optimizer_g = Adam(self.generator.parameters(), lr=p.lr, betas=(p.beta1, 0.999), fused=True)
        self.optimizer_d = Adam(self.discriminator.parameters(), lr=q.lr, betas=(q.beta1, 0.999), fused=True)

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """The generator, then the discriminator with the fakes of before."""
        real, p = batches[0]["image"], self.params
        for optimizer, rate in ((self.optimizer_g, p.generator.lr), (self.optimizer_d, p.discriminator.lr)):
            optimizer.param_groups[0]["lr"] = rate * schedule(progress, p)
        fake = self.generator(torch.randn(len(real), p.noise_size))
        self.discriminator.requires_grad_(False)
        self.optimizer_g.zero_grad()
        F.softplus(-self.discriminator(fake)).mean().backward()  # type: ignore[no-untyped-call]
        self.optimizer_g.step()
        self.updates += 1
        move_average(self.average, self.generator, self.updates, p.generator.ema)
        self.discriminator.requires_grad_(True)
        self.optimizer_d.zero_grad()
        is_penalised = not (self.updates - 1) % p.discriminator.r1_every
        real = real.detach().requires_grad_(is_penalised)
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        loss = (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()) / 2
        if is_penalised:
            loss = loss + p.discriminator.lambda_r1 * p.discriminator.r1_every * r1(on_real, real)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()


def r1(logits: Tensor, real: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient of the logits at the images."""
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


@torch.no_grad()
def move_average(average: nn.Module, net: nn.Module, updates: int, decay: float) -> None:
    """Move an average towards the weights after so many updates, with modtrain's lower decay at first."""
    decay = min(decay, (1 + updates) / (10 + updates))
    for value, current in zip(average.parameters(), net.parameters(), strict=True):
        value.lerp_(current, 1 - decay)
    for buffer, own in zip(average.buffers(), net.buffers(), strict=True):
        buffer.copy_(own)
