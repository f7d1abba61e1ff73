"""CycleGAN as a plain PyTorch loop, without modtrain's: what a joint step of the recipe is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.nets.image_pool import ImagePool
from modtrain.recipes.adam import adam
from modtrain.recipes.cyclegan import Params, schedule


class PlainCycleGan:
    """The published algorithm in the order of the authors' `cycle_gan_model.py`, with least squares."""

    def __init__(self, nets: Mapping[str, nn.Module], params: Params) -> None:
        """`nets`: the four networks under the names of the recipe's modules; they are trained in place."""
        self.g_ab, self.g_ba = nets["generator_ab"], nets["generator_ba"]
        self.d_b, self.d_a = nets["discriminator_b"], nets["discriminator_a"]
        self.params = params
        generators = [*self.g_ab.parameters(), *self.g_ba.parameters()]
        self.discriminators = [*self.d_b.parameters(), *self.d_a.parameters()]
        self.optimizer_g = adam(generators, params.generator)
        self.optimizer_d = adam(self.discriminators, params.discriminator)
        self.pool_b, self.pool_a = (ImagePool(params.discriminator.pool_size) for _ in range(2))

    def step(self, batches: Sequence[Mapping[str, Tensor]], progress: float) -> None:
        """Both generators together, then each discriminator with the fakes of before."""
        a, b, p = batches[0]["a"], batches[0]["b"], self.params
        for optimizer, rate in ((self.optimizer_g, p.generator.lr), (self.optimizer_d, p.discriminator.lr)):
            optimizer.param_groups[0]["lr"] = rate * schedule(progress, p)
        fake_b = self.g_ab(a)
        cycled_a = self.g_ba(fake_b)
        fake_a = self.g_ba(b)
        cycled_b = self.g_ab(fake_a)
        self._freeze_discriminators(True)
        self.optimizer_g.zero_grad()
        loss = (self.d_b(fake_b) - 1).square().mean() + (self.d_a(fake_a) - 1).square().mean()
        loss = loss + p.generator.lambda_cycle_a * F.l1_loss(cycled_a, a)
        loss = loss + p.generator.lambda_cycle_b * F.l1_loss(cycled_b, b)
        weight_b = p.generator.lambda_identity * p.generator.lambda_cycle_b
        weight_a = p.generator.lambda_identity * p.generator.lambda_cycle_a
        loss = loss + weight_b * F.l1_loss(self.g_ab(b), b) + weight_a * F.l1_loss(self.g_ba(a), a)
        loss.backward()
        self.optimizer_g.step()
        self._freeze_discriminators(False)
        self.optimizer_d.zero_grad()
        _judge(self.d_b, b, self.pool_b.query(fake_b))
        _judge(self.d_a, a, self.pool_a.query(fake_a))
        self.optimizer_d.step()

    def _freeze_discriminators(self, frozen: bool) -> None:
        for weight in self.discriminators:
            weight.requires_grad_(not frozen)


def _judge(discriminator: nn.Module, real: Tensor, fake: Tensor) -> None:
    """Add the gradient of a discriminator's loss."""
    loss = ((discriminator(real) - 1).square().mean() + discriminator(fake).square().mean()) / 2
    loss.backward()
