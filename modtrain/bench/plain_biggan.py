"""BigGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.bench.plain_gan import PlainGan, r1
from modtrain.recipes.biggan import Params, schedule


class PlainBiggan(PlainGan):
    """The published algorithm, generator first, whose fakes the first discriminator step takes as well."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        super().__init__(nets, params, eps=1e-6)

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """A step of the generator, and one of the discriminator on each of the batches."""
        self.set_rates(schedule(progress, self.params))
        labels, noise = self._drawn()
        fake = self.generator(noise, labels)
        self.discriminator.requires_grad_(False)
        self.train_generator(-self.discriminator(fake, labels).mean())
        self.discriminator.requires_grad_(True)
        for number, batch in enumerate(batches):
            if number:
                labels, noise = self._drawn()
                with torch.no_grad():
                    fake = self.generator(noise, labels)
            self._judge(batch, fake.detach(), labels)

    def _judge(self, batch: Mapping[str, Tensor], fake: Tensor, labels: Tensor) -> None:
        p = self.params.discriminator
        is_penalised = not (self.updates - 1) % p.r1_every
        real = batch["image"].detach().requires_grad_(is_penalised)
        both, of_both = torch.cat([real, fake]), torch.cat([batch["label"], labels])
        on_real, on_fake = self.discriminator(both, of_both).chunk(2)
        loss = (F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()) / 2
        if is_penalised:
            loss = loss + p.lambda_r1 * p.r1_every * r1(on_real, real)
        self.train_discriminator(loss)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        p = self.params
        return torch.randint(p.classes, (p.batch_size,)), torch.randn(p.batch_size, p.noise_size)
