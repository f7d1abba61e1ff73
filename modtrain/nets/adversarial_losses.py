"""Adversarial losses on logits (LSGAN, vanilla, hinge) and the zero-centred gradient penalty.

Logits are discriminator outputs of any shape, without a sigmoid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from modtrain.errors import InputError
from modtrain.nets.full_precision import is_full

GanMode = Literal["lsgan", "vanilla", "hinge"]


def discriminator_loss(real: Tensor, fake: Tensor, gan_mode: GanMode) -> Tensor:
    """Loss of the discriminator, a scalar. CycleGAN's factor 1/2 is included in all three.

    `lsgan`: Mao et al. 2017, equation 9 (targets 1 and 0); `vanilla`: Goodfellow et al. 2014; `hinge`: Miyato et al.
    2018, equation 16.
    """
    if gan_mode == "lsgan":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if gan_mode == "vanilla":
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def generator_loss(fake: Tensor, gan_mode: GanMode) -> Tensor:
    """Loss of the generator, a scalar, from the same papers; `vanilla` in its non-saturating form."""
    if gan_mode == "lsgan":
        return (fake - 1).square().mean()
    if gan_mode == "vanilla":
        return F.softplus(-fake).mean()
    return -fake.mean()


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
