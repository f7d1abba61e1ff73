"""BigGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from modtrain.bench.plain_dcgan import move_average, r1
from modtrain.recipes.biggan import Params, schedule


class PlainBiggan:
    """The published algorithm, generator first, whose fakes the first discriminator step takes as well."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        """`nets`: generator and discriminator under the names of the recipe's modules; they are trained in place."""
        self.generator, self.discriminator, self.params = nets["generator"], nets["discriminator"], params
        self.average, self.updates = copy.deepcopy(self.generator).requires_grad_(False), 0
        self.optimizer_g, self.optimizer_d = (
            Adam(net.parameters(), lr=p.lr, betas=(p.beta1, 0.999), eps=1e-6, fused=True)
            for net, p in ((self.generator, params.generator), (self.discriminator, params.discriminator))
        )

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """A step of the generator, and one of the discriminator on each of the batches."""
        p = self.params
        for optimizer, rate in ((self.optimizer_g, p.generator.lr), (self.optimizer_d, p.discriminator.lr)):
            optimizer.param_groups[0]["lr"] = rate * schedule(progress, p)
        labels, noise = self._drawn()
        fake = self.generator(noise, labels)
        self.discriminator.requires_grad_(False)
        self.optimizer_g.zero_grad()
        (-self.discriminator(fake, labels).mean()).backward()
        self.optimizer_g.step()
        self.updates += 1
        move_average(self.average, self.generator, self.updates, p.generator.ema)
        self.discriminator.requires_grad_(True)
        for number, batch in enumerate(batches):
            if number:
                labels, noise = self._drawn()
                with torch.no_grad():
                    fake = self.generator(noise, labels)
            self._judge(batch, fake.detach(), labels)

    def _judge(self, batch: Mapping[str, Tensor], fake: Tensor, labels: Tensor) -> None:
        self.optimizer_d.zero_grad()
        p = self.params.discriminator
        is_penalised = not (self.updates - 1) % p.r1_every
        real = batch["image"].detach().requires_grad_(is_penalised)
        both, of_both = torch.cat([real, fake]), torch.cat([batch["label"], labels])
        on_real, on_fake = self.discriminator(both, of_both).chunk(2)
        loss = (F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()) / 2
        if is_penalised:
            loss = loss + p.lambda_r1 * p.r1_every * r1(on_real, real)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()

    def _drawn(self) -> tuple[Tensor, Tensor]:
        p = self.params
        return torch.randint(p.classes, (p.batch_size,)), torch.randn(p.batch_size, p.noise_size)
