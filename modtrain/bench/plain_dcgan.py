"""DCGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from modtrain.bench.plain_gan import PlainGan, r1
from modtrain.recipes.dcgan import schedule


class PlainDcgan(PlainGan):
    """The published algorithm with one batch of fakes for both networks, and a moving average of the generator."""

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """The generator, then the discriminator with the fakes of before."""
        real, p = batches[0]["image"], self.params
        self.set_rates(schedule(progress, p))
        fake = self.generator(torch.randn(len(real), p.noise_size))
        self.discriminator.requires_grad_(False)
        self.train_generator(F.softplus(-self.discriminator(fake)).mean())
        self.discriminator.requires_grad_(True)
        is_penalised = not (self.updates - 1) % p.discriminator.r1_every
        real = real.detach().requires_grad_(is_penalised)
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        loss = (F.softplus(-on_real).mean() + F.softplus(on_fake).mean()) / 2
        if is_penalised:
            loss = loss + p.discriminator.lambda_r1 * p.discriminator.r1_every * r1(on_real, real)
        self.train_discriminator(loss)
