"""Progressive GAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam

from modtrain.nets.progressive import Growth, faded, level_of
from modtrain.recipes.progressive_gan import Params


class PlainProgressiveGan:
    """WGAN-GP with drift and one batch of fakes for both networks, in a stage of one size."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        """`nets`: generator and discriminator under the names of the recipe's modules; they are trained in place."""
        self.generator, self.discriminator, self.params = nets["generator"], nets["discriminator"], params
        self.average, self.updates = copy.deepcopy(self.generator).requires_grad_(False), 0
        betas, p, q = (0.0, 0.99), params.generator, params.discriminator
        self.optimizer_g = Adam(self.generator.parameters(), lr=p.lr, betas=betas, fused=True)
        self.optimizer_d = Adam(self.discriminator.parameters(), lr=q.lr, betas=betas, fused=True)

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """The generator, then the discriminator with the fakes of before; `progress` is that of the stage."""
        growth = Growth(level_of(self.params.size), progress if self.params.fading else 1.0)
        (batch,) = batches
        images = batch["image"]
        fake = self.generator(torch.randn(len(images), self.params.noise_size), growth)
        self.discriminator.requires_grad_(False)
        self.optimizer_g.zero_grad()
        (-self.discriminator(fake, growth).mean()).backward()
        self.optimizer_g.step()
        self._average()
        self.discriminator.requires_grad_(True)
        self.optimizer_d.zero_grad()
        self._critic_loss(faded(images, growth), fake.detach(), growth).backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()

    def _critic_loss(self, real: Tensor, fake: Tensor, growth: Growth) -> Tensor:
        on_real, on_fake = self.discriminator(real, growth), self.discriminator(fake, growth)
        between = torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1)).requires_grad_()
        score = self.discriminator(between, growth).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        p = self.params.discriminator
        loss: Tensor = on_fake.mean() - on_real.mean() + p.drift * on_real.square().mean() + p.lambda_gp * penalty
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        self.updates += 1
        decay = min(self.params.generator.ema, (1 + self.updates) / (10 + self.updates))
        for value, current in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            value.lerp_(current, 1 - decay)
