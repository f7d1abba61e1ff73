"""DCGAN: "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks" (Radford, Metz
and Chintala, ICLR 2016), with what "Exploring Generative Adversarial Networks: Improving training techniques" (Iyengar,
Pandey and Mehta, 2018) adds to it.

A generator makes images of noise, a discriminator tells them from real ones. The parts of the papers:

- DCGAN, section 3: strided and transposed convolutions, batch normalisation, in images of any power of two
  (`build_generator`, `build_discriminator`); Adam with 2e-4 and 0.5, N(0, 0.02) initial weights;
- section 2.2 of the second paper: spectral normalisation (`spectral_norm`), dropout in the discriminator for 128
  pixels (`discriminator.dropout`), truncated noise (`modtrain sample --truncation`);
- section 1.1.3, the hinge loss, beside the original one (`gan_mode`);
- section 1.1.11, MINE: a statistics network estimates the information that an image has of its noise, which the
  generator increases to keep its variety. `generator.lambda_information` is its weight, 0 by default.

Not in the papers: several discriminator versions as opponents, lazy R1, and a moving average of the generator. There is
no term that anchors this game, so old opponents matter more than in image translation.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from modtrain.data.base import Batch
from modtrain.data.labelled import LabelledTest
from modtrain.data.labelled_folders import image_splits
from modtrain.data.labelled_params import LabelledParams, image_data
from modtrain.metrics.judged_samples import judged_samples, real_images
from modtrain.metrics.sample_grid import sample_sheet
from modtrain.nets import adversarial_losses, dcgan
from modtrain.nets.adversarial_losses import AnyGanMode, separately
from modtrain.nets.dcgan import Norm
from modtrain.nets.full_precision import as_full, full_precision
from modtrain.nets.layers import in_batches
from modtrain.nets.mutual_information import StatisticsNetwork, information, statistics_loss, with_clipped
from modtrain.nets.standing_statistics import standing_statistics
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Decay, Positive, Share, Weight, linear_decay
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling

SHEET = 64
"""Samples that the sheet of an evaluation shows."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneratorParams(AdamParams):
    """The generator and how it is trained."""

    width: Count = Field(default=32, description="channels of its largest feature maps (64: the paper's size)")
    norm: Norm = Field(default="batch", description="normalisation of its layers")
    opponents: Count = Field(default=1, description="newest discriminator versions whose verdicts are averaged")
    lambda_information: Weight = Field(
        default=0.0, description="weight of the mutual information of image and noise (MINE); 0: no statistics network"
    )
    ema: Decay = Field(default=0.995, description="decay of the moving average that is evaluated and sampled; 0: none")
    lr: Positive = Field(default=1e-3, description="learning rate of Adam (the paper's: 2e-4)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """The discriminator and how it is trained."""

    width: Count = Field(default=32, description="channels of its first layer (64: the paper's size)")
    norm: Literal["auto", "batch", "none"] = Field(
        default="auto", description="normalisation of its layers; auto: batch, or none beside spectral normalisation"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.25,
        description="share that is dropped after each middle layer (0.5: the second paper's for 128 pixels)",
    )
    gan_mode: AnyGanMode = Field(default="vanilla", description="the adversarial loss, for both sides")
    lambda_r1: Weight = Field(default=0.2, description="weight of the gradient penalty on real images")
    r1_every: Count = Field(default=16, description="steps between two penalties, each of which counts as so many")
    lr: Positive = Field(default=5e-4, description="learning rate of Adam (the paper's: 2e-4)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class StatisticsParams(AdamParams):
    """The statistics network of MINE."""

    width: Count = Field(default=16, description="channels of its first layer")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(LabelledParams):
    """All parameters. The defaults are those of the built-in data."""

    noise_size: Count = Field(default=100, description="numbers of noise for each image")
    spectral_norm: Literal["none", "discriminator", "both"] = Field(
        default="none", description="the networks whose layers are spectrally normalised"
    )
    decay_from: Share = Field(
        default=1.0, description="share of the run after which the learning rates fall linearly to 0; 1: constant rates"
    )
    generator: GeneratorParams = GeneratorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()
    statistics: StatisticsParams = StatisticsParams()

    def __post_init__(self) -> None:
        super().__post_init__()
        p = self.discriminator
        if self.crop_size & (self.crop_size - 1):
            raise ValueError(f"crop_size = {self.crop_size} is no power of two, such as 32, 64 or 128")
        if p.gan_mode == "wasserstein" and self.spectral_norm == "none" and not p.lambda_r1:
            raise ValueError("gan_mode wasserstein needs a bounded discriminator: set spectral_norm or lambda_r1")


def build_generator(params: Params) -> nn.Module:
    """Noise (N, noise_size) to images (N, 3, crop_size, crop_size) in [-1, 1]."""
    p = params.generator
    net = dcgan.Generator(params.noise_size, p.width, params.crop_size, norm=p.norm)
    return dcgan.initialised(net, spectral_norm=params.spectral_norm == "both")


def build_discriminator(params: Params) -> nn.Module:
    """Images (N, 3, crop_size, crop_size) to logits (N,).

    Where it is spectrally normalised there is no batch normalisation by default, which would undo the bound.
    """
    p, is_bounded = params.discriminator, params.spectral_norm != "none"
    norm: Norm = ("none" if is_bounded else "batch") if p.norm == "auto" else p.norm
    net = dcgan.Discriminator(p.width, params.crop_size, norm=norm, dropout=p.dropout)
    return dcgan.initialised(net, spectral_norm=is_bounded)


def noise(nets: Nets, batch: Batch, params: Params) -> Tensor:
    """The noise of a batch, the same for all modules of a worker."""
    image = batch["image"]
    return nets.once("noise", lambda: torch.randn(len(image), params.noise_size).to(image.device))


def fake(nets: Nets, batch: Batch, params: Params) -> Tensor:
    """The images that the generator makes, computed once for all modules of a worker."""
    return nets.once("fake", lambda: nets.generator(noise(nets, batch, params)))


def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """The generator's images are to be taken for real ones and, with MINE, to tell their noise."""
    p, made, gan_mode = params.generator, fake(nets, batch, params), params.discriminator.gan_mode

    def fooled(judge: Any) -> Tensor:
        on_real = judge(batch["image"]) if gan_mode == "relativistic" else None
        return adversarial_losses.generator_loss(judge(made), gan_mode, real=on_real)

    adversarial = nets.average("discriminator", fooled)
    if not p.lambda_information:
        return {"loss": adversarial}
    with full_precision():
        known = information(*statistics_of(nets, as_full(made), noise(nets, batch, params)))
        gradients = [torch.autograd.grad(term, made)[0] for term in (adversarial, -p.lambda_information * known)]
        loss = (made * with_clipped(*gradients)).sum()  # its gradient is that sum, its value says nothing
    return {"loss": loss, "adversarial": adversarial, "information": known}


def discriminator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Images of the data are real, made ones are fake; every `r1_every` steps with R1 (Mescheder et al. 2018)."""
    p, judge, made = params.discriminator, separately(nets.discriminator), fake(nets, batch, params).detach()
    weight = adversarial_losses.lazy(p.lambda_r1, p.r1_every, nets.step)
    return adversarial_losses.judged(judge, batch["image"], made, p.gan_mode, lambda_r1=weight)


def statistics_of(nets: Nets, made: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The statistics of images with their noise, and with the noise of other images."""
    return nets.statistics(made, known), nets.statistics(made, known.roll(1, 0))


def statistics_network_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """MINE: the bound on the mutual information of an image and its noise, which is maximised."""
    made = fake(nets, batch, params).detach()
    joint, independent = statistics_of(nets, made, noise(nets, batch, params))
    loss = statistics_loss(joint, independent, nets.statistics.log_mean)
    return {"loss": loss, "information": information(joint, independent)}


def schedule(progress: float, params: Params) -> float:
    """Factor on the learning rates: 1, from `decay_from` on linearly to 0 at the end."""
    return linear_decay(progress, decay_from=params.decay_from)


def statistics_schedule(progress: float, params: Params) -> float:
    """0, so that the statistics network rests, where nothing reads it."""
    return schedule(progress, params) if params.generator.lambda_information else 0.0


def settle(net: nn.Module, params: Params) -> None:
    """Statistics of batch normalisation that belong to the weights of the average."""
    device = next(net.parameters()).device
    standing_statistics(net, lambda: (torch.randn(params.batch_size, params.noise_size).to(device),))


def generate(nets: Nets, known: Tensor, labels: Tensor | None, params: Params) -> Tensor:
    """Images of noise (N, noise_size)."""
    return nets.generator(known)  # type: ignore[no-any-return]


def evaluate(nets: Nets, test: LabelledTest, params: Params) -> Evaluation:
    """Samples against as many test images, by the judge of the built-in fruits; the sheet has always the same noise."""
    real = real_images(test)
    known = torch.randn(len(real), params.noise_size).to(real.device)
    made = in_batches(nets.generator, known, 2 * params.batch_size)
    return Evaluation(metrics=judged_samples(made, real)[0], grid=sample_sheet(made[:SHEET]))


examples_files = Format(
    files={
        "generator": WeightsFile(
            name="netG_epoch_{epoch}.pth", weights=dcgan.example_names, params=dcgan.generator_params
        ),
        "discriminator": WeightsFile(
            name="netD_epoch_{epoch}.pth", weights=dcgan.example_names, params=dcgan.discriminator_params
        ),
    }
)

recipe = Recipe(
    params=Params,
    data=image_data,
    check_dataroot=image_splits,
    placement=(("generator",), ("discriminator", "statistics")),
    modules={
        "generator": Module(
            build=build_generator,
            loss=generator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.generator),
            schedule=schedule,
            reads=(Reads("discriminator", last=lambda params: params.generator.opponents), "statistics"),
            ema=lambda params: params.generator.ema,
            frozen_mode="train",
            settle=settle,
        ),
        "discriminator": Module(
            build=build_discriminator,
            loss=discriminator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.discriminator),
            schedule=schedule,
            reads=("generator",),
            frozen_mode="train",
        ),
        "statistics": Module(
            build=lambda params: StatisticsNetwork(params.noise_size, params.statistics.width, params.crop_size),
            loss=statistics_network_loss,
            optimizer=lambda parameters, params: adam(parameters, params.statistics),
            schedule=statistics_schedule,
            reads=("generator",),
        ),
    },
    formats={"pytorch-examples": examples_files},
    sample=Sampling(generate=generate, noise_size=lambda params: params.noise_size),
    evaluate=evaluate,
    primary_metric="fid_orchard",
    lower_is_better=("fid_orchard",),
    epochs=26,
    exchange_every=1,
    max_staleness="exchange",
)
