"""Adversarial losses on logits, what an alarm reads of them, and the gradient penalties R1 and WGAN-GP.

Logits are discriminator outputs of any shape, without a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from modtrain.errors import InputError
from modtrain.nets.full_precision import as_full, full_precision, is_full

GanMode = Literal["lsgan", "vanilla", "hinge"]
"""Losses in which a discriminator judges each sample by itself, and a bounded one at that."""
AnyGanMode = Literal["vanilla", "hinge", "lsgan", "wasserstein", "relativistic"]


def discriminator_loss(real: Tensor, fake: Tensor, gan_mode: AnyGanMode) -> Tensor:
    """Loss of the discriminator, a scalar. CycleGAN's factor 1/2 is included in all of them.

    `lsgan`: Mao et al. 2017, equation 9 (targets 1 and 0); `vanilla`: Goodfellow et al. 2014; `hinge`: Miyato et al.
    2018, equation 16; `wasserstein`: Arjovsky et al. 2017, equation 2, for a discriminator that something else bounds;
    `relativistic`: Jolicoeur-Martineau 2018, the first loss of section 4, by pairs of a real and a fake sample.
    """
    if gan_mode == "lsgan":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if gan_mode == "vanilla":
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    if gan_mode == "relativistic":
        return F.softplus(fake - real).mean() / 2
    if gan_mode == "wasserstein":
        return (fake.mean() - real.mean()) / 2
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def generator_loss(fake: Tensor, gan_mode: AnyGanMode, *, real: Tensor | None = None) -> Tensor:
    """Loss of the generator, a scalar, from the same papers; `vanilla` in its non-saturating form.

    `real` are the logits of as many real samples, which only `relativistic` needs.
    """
    if gan_mode == "lsgan":
        return (fake - 1).square().mean()
    if gan_mode == "vanilla":
        return F.softplus(-fake).mean()
    if gan_mode == "relativistic":
        assert real is not None
        return F.softplus(real - fake).mean()
    return -fake.mean()


def scores(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """What tells in any of the losses how a discriminator does: the mean logits, and how often it is right.

    `accuracy` is the share of pairs of a real and a fake sample (or patch) of which the real one has the higher logit:
    1/2 is chance. It needs no threshold, as the losses differ in theirs.
    """
    real, fake = real.detach(), fake.detach()
    return {"real_score": real.mean(), "fake_score": fake.mean(), "accuracy": (real > fake).float().mean()}


def judged(
    judge: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    real: Tensor,
    fake: Tensor,
    gan_mode: AnyGanMode,
    *,
    lambda_r1: float = 0.0,
) -> dict[str, Tensor]:
    """What a discriminator minimises, as `loss`, with its scores.

    `judge(real, fake)` returns the logits of both. With `lambda_r1`, the weight of R1, all is computed in full
    precision, and the loss is the sum of `adversarial` and the weighted `penalty`.
    """
    real = real.detach().requires_grad_(lambda_r1 > 0)
    with full_precision(lambda_r1 > 0):
        on_real, on_fake = judge(real, as_full(fake) if lambda_r1 else fake)
        losses = {"loss": discriminator_loss(on_real, on_fake, gan_mode)}
        if lambda_r1:
            adversarial, penalty = losses["loss"], gradient_penalty(on_real, real)
            losses = {"loss": adversarial + lambda_r1 * penalty, "adversarial": adversarial, "penalty": penalty}
    return losses | scores(on_real, on_fake)


def separately(judge: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A discriminator that judges real samples first and fakes then, for `judged`."""
    return lambda real, fake: (judge(real), judge(fake))


def lazy(weight: float, every: int, step: int) -> float:
    """Weight of a penalty at a step, of which one in `every` has it, `every` times as heavy (Karras et al. 2020, B)."""
    return 0.0 if step % every else weight * every


def gradient_penalty(logits: Tensor, samples: Tensor) -> Tensor:
    """Half the mean squared norm of the discriminator's gradient; a scalar whose graph reaches the weights.

    On real samples this is R1, on fakes R2 (Mescheder et al. 2018, equations 9 and 10, without gamma): zero-centred, so
    an undecided discriminator satisfies it. `logits` (N, ...) is the discriminator at `samples` (N, ...), which require
    gradients. With P patches a sample it is the squared gradient of their sum over P: each patch sees its own part of
    the sample, so this does not depend on the size of the image.

    InputError for logits of a lower precision than float32.
    """
    if not is_full(logits):
        raise InputError(
            f"gradient_penalty needs logits in float32, not {str(logits.dtype).removeprefix('torch.')}: compute them, "
            "and the penalty, inside of `with full_precision():` (modtrain.nets.full_precision), from float32 samples."
        )
    (gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
    return gradient.square().sum() / (2 * logits.numel())


def interpolated_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP's penalty (Gulrajani et al. 2017, algorithm 1, without lambda), a scalar whose graph reaches the weights.

    The mean squared difference from 1 of the norm of the critic's gradient, at one random point between each real
    sample and a fake one. They are float32, and what is not in `full_precision` is too coarse. The points are drawn
    from torch's default generator on the CPU.
    """
    share = torch.rand(len(real), *(1 for _ in real.shape[1:])).to(real.device)
    between = torch.lerp(real.detach(), fake.detach(), share).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return (norms - 1).square().mean()
