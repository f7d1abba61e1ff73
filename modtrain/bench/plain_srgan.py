"""SRGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.bench.plain_gan import PlainGan
from modtrain.metrics.feature_maps import feature_network
from modtrain.recipes.srgan import Params, gan_schedule


class PlainSrgan(PlainGan):
    """The published algorithm in its second stage, and a moving average of the generator."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        super().__init__(nets, params)
        self.features = feature_network(params.features).eval().requires_grad_(False)

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """The generator, then the discriminator with the fakes of before."""
        (batch,) = batches
        p = self.params.generator
        self.set_rates(gan_schedule(progress, self.params))
        fake, real = self.generator(batch["lr"]), batch["hr"]
        self.discriminator.requires_grad_(False)
        pixel = F.mse_loss(fake, real)
        content = F.mse_loss(self.features(fake), self.features(real))
        adversarial = F.softplus(-self.discriminator(fake)).mean()
        weighted = ((p.lambda_pixel, pixel), (p.lambda_content, content), (p.lambda_adversarial, adversarial))
        self.train_generator(torch.stack([weight * term for weight, term in weighted]).sum())
        self.discriminator.requires_grad_(True)
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        self.train_discriminator((F.softplus(-on_real).mean() + F.softplus(on_fake).mean()) / 2)
