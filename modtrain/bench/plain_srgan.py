"""SRGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from modtrain.bench.plain_dcgan import move_average
from modtrain.metrics.feature_maps import feature_network
from modtrain.recipes.srgan import Params, gan_schedule


class PlainSrgan:
    """The published algorithm in its second stage, and a moving average of the generator."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        """`nets`: generator and discriminator under the names of the recipe's modules; they are trained in place."""
        self.generator, self.discriminator, self.params = nets["generator"], nets["discriminator"], params
        self.features = feature_network(params.features).eval().requires_grad_(False)
        self.average, self.updates = copy.deepcopy(self.generator).requires_grad_(False), 0
        p, q = params.generator, params.discriminator
        self.optimizer_g = Adam(self.generator.parameters(), lr=p.lr, betas=(p.beta1, 0.999), fused=True)
        self.optimizer_d = Adam(self.discriminator.parameters(), lr=q.lr, betas=(q.beta1, 0.999), fused=True)

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """The generator, then the discriminator with the fakes of before."""
        (batch,) = batches
        p, q = self.params.generator, self.params.discriminator
        for optimizer, rate in ((self.optimizer_g, p.lr), (self.optimizer_d, q.lr)):
            optimizer.param_groups[0]["lr"] = rate * gan_schedule(progress, self.params)
        fake, real = self.generator(batch["lr"]), batch["hr"]
        self.discriminator.requires_grad_(False)
        self.optimizer_g.zero_grad()
        pixel = F.mse_loss(fake, real)
        content = F.mse_loss(self.features(fake), self.features(real))
        adversarial = F.softplus(-self.discriminator(fake)).mean()
        weighted = ((p.lambda_pixel, pixel), (p.lambda_content, content), (p.lambda_adversarial, adversarial))
        loss = torch.stack([weight * term for weight, term in weighted]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer_g.step()
        self.updates += 1
        move_average(self.average, self.generator, self.updates, p.ema)
        self.discriminator.requires_grad_(True)
        self.optimizer_d.zero_grad()
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        ((F.softplus(-on_real).mean() + F.softplus(on_fake).mean()) / 2).backward()  # type: ignore[no-untyped-call]
        self.optimizer_d.step()
