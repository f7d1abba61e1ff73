"""Progressive GAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modtrain.bench.plain_gan import PlainGan
from modtrain.nets.progressive import Growth, faded, level_of
from modtrain.recipes.progressive_gan import Params


class PlainProgressiveGan(PlainGan):
    """WGAN-GP with drift and one batch of fakes for both networks, in a stage of one size."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        super().__init__(nets, params, beta2=0.99)

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """The generator, then the discriminator with the fakes of before; `progress` is that of the stage."""
        growth = Growth(level_of(self.params.size), progress if self.params.fading else 1.0)
        (batch,) = batches
        images = batch["image"]
        fake = self.generator(torch.randn(len(images), self.params.noise_size), growth)
        self.discriminator.requires_grad_(False)
        self.train_generator(-self.discriminator(fake, growth).mean())
        self.discriminator.requires_grad_(True)
        self.train_discriminator(self._critic_loss(faded(images, growth), fake.detach(), growth))

    def _critic_loss(self, real: Tensor, fake: Tensor, growth: Growth) -> Tensor:
        on_real, on_fake = self.discriminator(real, growth), self.discriminator(fake, growth)
        between = torch.lerp(real, fake, torch.rand(len(real), 1, 1, 1)).requires_grad_()
        score = self.discriminator(between, growth).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        p = self.params.discriminator
        loss: Tensor = on_fake.mean() - on_real.mean() + p.drift * on_real.square().mean() + p.lambda_gp * penalty
        return loss
