"""Progressive GAN: "Progressive Growing of GANs for Improved Quality, Stability, and Variation" (Karras, Aila, Laine
and Lehtinen, ICLR 2018), with the depthwise separable convolutions of "Time Efficient Training of Progressive
Generative Adversarial Network using Depthwise Separable Convolution and Super Resolution Generative Adversarial
Network" (Karwande, Kulkarni, Kolhe, Joshi and Kamble).

Images grow from 4 pixels on. Each size but the first one has two stages: in `8-fade` the new level is blended in, in
the generator, in the discriminator and in the real images; in `8` it stands alone. The parts of the papers:

- section 2, growing and fading (`stages`, `growth`);
- section 3, the standard deviation of the minibatch, and section 4, equalised learning rates and pixel normalisation
  (`nets/progressive.py`);
- appendix A.1, WGAN-GP with drift, Adam with (0, 0.99), anew in each stage, a moving average of the generator;
- the second paper, section IV: `convolution: separable`.

Not in the papers: `penalty: r1`, the non-saturating loss with R1 (Mescheder et al. 2018), which may be computed every
few steps (Karras et al. 2020, appendix B) and so makes a cheaper discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.data.base import Batch
from modtrain.data.cache import cached
from modtrain.data.images import as_float
from modtrain.data.labelled import LabelledData, LabelledTest
from modtrain.data.labelled_folders import image_splits
from modtrain.data.labelled_params import LabelledParams, image_data
from modtrain.metrics.distribution import frechet_distance
from modtrain.metrics.features import content_digest, extractor
from modtrain.metrics.judged_samples import feature_variance, real_images
from modtrain.metrics.ms_ssim import ms_ssim_of_pairs
from modtrain.metrics.sample_grid import sample_sheet, to_uint8
from modtrain.metrics.scores import feature_scores
from modtrain.metrics.sliced_wasserstein import sliced_wasserstein_scores
from modtrain.nets import adversarial_losses, progressive
from modtrain.nets.adversarial_losses import separately
from modtrain.nets.full_precision import as_full, full_precision
from modtrain.nets.layers import Conv, channels_last, in_batches
from modtrain.nets.progressive import Growth, level_of, widths
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Counts, Decay, Positive, Positives, Weight
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling
from modtrain.recipes.stages import Stage

T = TypeVar("T")

SHEET = 64
"""Samples that the sheet of an evaluation shows."""
BETA2 = 0.99
"""Adam's second decay rate (appendix A.1)."""
READ = tuple(field for field in fields(LabelledParams) if field.name != "batch_size")
"""Parameters on which it depends what is read."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneratorParams(AdamParams):
    """How the generator is trained."""

    ema: Decay = Field(default=0.998, description="decay of the moving average that is evaluated and sampled; 0: none")
    lr: Positive = Field(default=7e-4, description="learning rate of Adam (1e-3: the paper's)")
    beta1: Decay = Field(default=0.0, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """How the discriminator is trained."""

    penalty: Literal["wgan-gp", "r1"] = Field(
        default="r1", description="what bounds it: R1 with the non-saturating loss, or WGAN-GP as published"
    )
    lambda_gp: Weight = Field(default=10.0, description="weight of WGAN-GP's penalty")
    drift: Weight = Field(default=1e-3, description="weight of the squared score of real images, with WGAN-GP")
    lambda_r1: Weight = Field(default=3.0, description="weight of R1")
    r1_every: Count = Field(default=16, description="steps between two R1 penalties, each of which counts as so many")
    lr: Positive = Field(default=7e-4, description="learning rate of Adam (1e-3: the paper's)")
    beta1: Decay = Field(default=0.0, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(LabelledParams):
    """All parameters. The defaults are those of the built-in data; `crop_size` is the size that images grow to."""

    batch_size: Count = Field(default=16, description="images in a batch where batch_sizes names none")
    size: Count = Field(default=4, description="edge of the images of the first stage; each further size doubles it")
    fading: bool = Field(default=False, description="whether the level of `size` is faded in; each stage sets it")
    batch_sizes: Counts = Field(
        default=(), description="images in a batch by size, from 4 pixels on; the last one holds for larger images"
    )
    rates: Positives = Field(default=(), description="factors on the learning rates by size, as batch_sizes")
    lengths: Positives = Field(
        default=(2, 1), description="lengths of the stages by size, in proportion, as batch_sizes"
    )
    noise_size: Count = Field(default=64, description="numbers of noise for each image (512: the paper's)")
    base: Count = Field(default=256, description="twice the channels at 4 pixels, which each size halves (8192)")
    most: Count = Field(default=64, description="channels at most (512)")
    convolution: Conv = Field(default="dense", description="all 3x3 convolutions, dense or depthwise separable")
    generator: GeneratorParams = GeneratorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_size", "size"):
            edge = getattr(self, name)
            if edge < progressive.SMALLEST or edge & (edge - 1):
                raise ValueError(f"{name} = {edge} is no power of two from 4 on, such as 32, 64 or 128")
        if self.size > self.crop_size:
            raise ValueError(f"size = {self.size} is larger than crop_size = {self.crop_size}, which it grows to")

    @property
    def channels(self) -> list[int]:
        """Channels of both networks by level."""
        return widths(self.base, self.most, self.crop_size)


def stages(params: Params) -> list[Stage]:
    """The sizes in turn, each but the first one after a fade of the same length."""
    found = list[Stage]()
    for level in range(level_of(params.size), level_of(params.crop_size) + 1):
        for suffix, fading in (("-fade", True), ("", False))[not found :]:
            own, size = partial(_at_level, level=level, fading=fading), Growth(level).size
            length = _by_level(params.lengths, level, 1.0)
            found.append(Stage(f"{size}{suffix}", length, params=own, fresh_optimizers=True))
    return found


def _at_level(params: Params, *, level: int, fading: bool) -> Params:
    rate = _by_level(params.rates, level, 1.0)
    return replace(
        params,
        size=Growth(level).size,
        fading=fading,
        batch_size=_by_level(params.batch_sizes, level, params.batch_size),
        generator=replace(params.generator, lr=params.generator.lr * rate),
        discriminator=replace(params.discriminator, lr=params.discriminator.lr * rate),
    )


def _by_level(values: Sequence[T], level: int, otherwise: T) -> T:
    return values[min(level, len(values) - 1)] if values else otherwise


def data(dataroot: Path | None, params: Params) -> LabelledData:
    """Training images of a stage's size: means of those of `crop_size` pixels, which are read once for all stages."""
    read = image_data(dataroot, params)

    def at(p: Params) -> LabelledData:
        is_read = all(getattr(p, field.name) == getattr(params, field.name) for field in READ)
        return (read if is_read else image_data(dataroot, p)).at_size(p.size, p.batch_size)

    return replace(at(params), at=at)


def build_generator(params: Params) -> nn.Module:
    """Noise (N, noise_size) to images (N, 3, size, size), of any size up to `crop_size`."""
    return channels_last(progressive.Generator(params.noise_size, params.channels, params.convolution))


def build_discriminator(params: Params) -> nn.Module:
    """Images (N, 3, size, size) of such a size to scores (N,)."""
    return channels_last(progressive.Discriminator(params.channels, params.convolution))


def growth(nets: Nets, params: Params) -> Growth:
    """How far both networks have grown at a step: alpha is the completed share of a fade."""
    return Growth(level_of(params.size), nets.stage_progress if params.fading else 1.0)


def fake(nets: Nets, batch: Batch, params: Params) -> Tensor:
    """The images that the generator makes, computed once for all modules of a worker."""
    image = batch["image"]

    def make() -> Tensor:
        noise = torch.randn(len(image), params.noise_size).to(image.device)
        return nets.generator(noise, growth(nets, params))  # type: ignore[no-any-return]

    return nets.once("fake", make)


def gan_mode(params: Params) -> Literal["wasserstein", "vanilla"]:
    """The loss that goes with the penalty."""
    return "wasserstein" if params.discriminator.penalty == "wgan-gp" else "vanilla"


def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """The generator's images are to be taken for real ones."""
    grown = growth(nets, params)
    nets.generator.grow(grown)
    scores = nets.discriminator(fake(nets, batch, params), grown)
    return {"loss": adversarial_losses.generator_loss(scores, gan_mode(params))}


def discriminator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Images of the data are real, made ones are fake, with WGAN-GP or every `r1_every` steps with R1."""
    p, grown, made = params.discriminator, growth(nets, params), fake(nets, batch, params).detach()
    real = progressive.faded(batch["image"], grown)
    judge = partial(nets.discriminator, growth=grown)
    if p.penalty == "r1":
        weight = adversarial_losses.lazy(p.lambda_r1, p.r1_every, nets.step)
        return adversarial_losses.judged(separately(judge), real, made, gan_mode(params), lambda_r1=weight)
    with full_precision():
        made = as_full(made)
        on_real, on_fake = judge(real), judge(made)
        loss = on_fake.mean() - on_real.mean() + p.drift * on_real.square().mean()
        penalty = adversarial_losses.interpolated_penalty(judge, real, made)
    return {"loss": loss + p.lambda_gp * penalty, "penalty": penalty} | adversarial_losses.scores(on_real, on_fake)


def generate(nets: Nets, noise: Tensor, labels: Tensor | None, params: Params) -> Tensor:
    """Images of noise (N, noise_size), as large as the generator has grown."""
    return nets.generator(noise)  # type: ignore[no-any-return]


def pixel_scores(images: Tensor, real: Tensor) -> dict[str, float]:
    """SWD of images from real ones, its levels, and MS-SSIM of pairs of the images."""
    return sliced_wasserstein_scores(images, real) | {"ms_ssim": ms_ssim_of_pairs(images)}


def as_tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    """Numbers as the cache of the node keeps them."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def samples(nets: Nets, count: int, params: Params, device: torch.device) -> Tensor:
    """So many images that the generator makes, of random noise."""
    return in_batches(nets.generator, torch.randn(count, params.noise_size).to(device), 2 * params.batch_size)


def enlarged(images: Tensor, edge: int) -> Tensor:
    """Images (N, 3, H, W) with each pixel repeated, so that their edges have this length."""
    factor = edge // images.shape[-1]
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def compared(images: Tensor, real: Tensor) -> dict[str, float]:
    """Scores of images against as many real ones of their size, all uint8.

    Those of pixels are of half of the images; followed by `_reals`, they are of the other half of the real ones.
    """
    judge = extractor("orchard", device=str(real.device))
    wanted = ("fid", "class_score", "coverage")
    metrics = feature_scores(judge.extract(images), judge.extract_cached(real), judge.name, wanted)
    metrics |= pixel_scores(images[::2], real[::2])
    floor = cached(f"pixel-scores-{content_digest(real)[:32]}", lambda: as_tensors(pixel_scores(real[1::2], real[::2])))
    return metrics | {f"{name}_reals": float(value) for name, value in floor.items()}


def evaluate(nets: Nets, test: LabelledTest, params: Params) -> Evaluation:
    """Samples against as many test images; their sheet has always the same noise."""
    real = real_images(test)
    made = samples(nets, len(real), params, real.device)
    return Evaluation(metrics=sample_metrics(made, real), grid=sample_sheet(made[:SHEET]))


def sample_metrics(made: Tensor, real: Tensor) -> dict[str, float]:
    """Scores of samples in [-1, 1] against as many real images, uint8.

    Smaller samples are enlarged to the size of the real images, as in the published code, so that the values of all
    stages compare; `stage_fid_orchard` and `feature_variance_orchard` are of the stage's own size. `swd` is the mean
    over the levels of the pyramid.
    """
    judge, small = extractor("orchard", device=str(real.device)), to_uint8(made)
    own = to_uint8(F.avg_pool2d(as_float(real), real.shape[-1] // made.shape[-1]))
    of_made, of_own = judge.extract(small), judge.extract_cached(own)
    metrics = compared(enlarged(small, real.shape[-1]), real) | feature_variance(of_made, of_own, judge.name)
    return metrics | {f"stage_fid_{judge.name}": frechet_distance(of_made.features, of_own.features)}


recipe = Recipe(
    params=Params,
    data=data,
    check_dataroot=image_splits,
    stages=stages,
    modules={
        "generator": Module(
            build=build_generator,
            loss=generator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.generator, beta2=BETA2),
            reads=("discriminator",),
            ema=lambda params: params.generator.ema,
        ),
        "discriminator": Module(
            build=build_discriminator,
            loss=discriminator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.discriminator, beta2=BETA2),
            reads=("generator",),
        ),
    },
    sample=Sampling(generate=generate, noise_size=lambda params: params.noise_size),
    evaluate=evaluate,
    primary_metric="swd",
    lower_is_better=("swd", "fid_orchard", "stage_fid_orchard", "ms_ssim"),
    epochs=64,
    exchange_every=2,
    max_staleness="exchange",
)
