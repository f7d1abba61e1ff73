"""SRGAN: "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (Ledig et al., CVPR
2017), and SRResNet, which is its generator after the first stage.

A generator enlarges images; a discriminator tells what it makes from images that were always large. The parts of the
paper and their functions:

- section 2.1 and figure 4, the networks: `build_generator`, `build_discriminator`;
- equation 4, the distance of the pixels: what counts in the stage `mse`, in which the discriminator rests (section
  3.2);
- equation 5, the distance of the feature maps of a network that is never trained, with weight 1, and equation 6, the
  adversarial loss, with weight 1e-3: what counts in the stage `gan` (`generator_loss`).

That network is VGG19 in the paper, which no package has; here it is one of `metrics/feature_maps.py`. Not in the paper,
and options: a generator without batch normalisation (`generator.norm`), one that adds to bicubic interpolation
(`generator.skip`), the distance of the pixels also in the stage `gan`, a moving average of the generator. The small
defaults use them all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.data.base import Batch, Data
from modtrain.data.grey_range import GreyRange
from modtrain.data.hr_folders import hr_folders
from modtrain.data.images import as_float
from modtrain.data.super_resolution import BuiltIn, SuperResolutionTest, super_resolution
from modtrain.errors import InputError
from modtrain.metrics.feature_maps import check_name, feature_network, weights_file
from modtrain.metrics.super_resolution import LOWER_IS_BETTER, SuperResolutionScores
from modtrain.nets import adversarial_losses, srgan_pytorch
from modtrain.nets.adversarial_losses import GanMode
from modtrain.nets.srresnet import STRIDES, Discriminator, Norm, Skip, SrResNet, shuffle_factors
from modtrain.nets.tiles import in_tiles
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Decay, Positive, Share, Weight, linear_decay
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.stages import Stage

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}
LEAST_RATE = 0.02
"""Factor on the learning rates at the end of a stage: at 0 a module would rest."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneratorParams(AdamParams):
    """The generator and how it is trained."""

    width: Count = Field(default=16, description="channels of its feature maps (64: the paper's size)")
    blocks: Count = Field(default=4, description="residual blocks (16: the paper's size)")
    norm: Norm = Field(default="none", description="normalisation of its layers (batch: the paper's)")
    skip: Skip = Field(default="bicubic", description="what its result is added to (none: the paper's)")
    pixel_loss: Literal["l1", "l2"] = Field(default="l2", description="distance of the pixels (l2: the paper's)")
    lambda_pixel: Weight = Field(default=1.0, description="weight of that distance in the stage gan (the paper's: 0)")
    lambda_content: Weight = Field(default=1.0, description="weight of the distance of the features")
    lambda_adversarial: Weight = Field(default=3e-4, description="weight of the adversarial loss (the paper's: 1e-3)")
    opponents: Count = Field(default=1, description="newest discriminator versions whose verdicts are averaged")
    ema: Decay = Field(default=0.99, description="decay of the moving average that is evaluated and applied; 0: none")
    lr: Positive = Field(default=1e-3, description="learning rate of Adam in the stage mse (the paper's: 1e-4)")
    gan_lr: Positive = Field(default=2e-4, description="lr in the stage gan (the paper's: 1e-4, then 1e-5)")
    beta1: Decay = Field(default=0.9, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """The discriminator and how it is trained."""

    width: Count = Field(default=16, description="channels of its first layer (64: the paper's size)")
    gan_mode: GanMode = Field(default="vanilla", description="lsgan, vanilla or hinge, for both sides")
    beta1: Decay = Field(default=0.9, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class UpscalingParams:
    """The networks, their stages, and the crops that they are trained on, whatever images these are of."""

    batch_size: Count = Field(default=16, description="crops in a batch")
    scale: int = Field(default=4, description="factor on the edges of an image: 3, or a power of two")
    crop_size: Count = Field(default=48, description="edge of a random crop of a large image, a multiple of 16")
    features: str = Field(
        default="orchard", description="network whose features count: orchard, efficientnet-lite0, vgg19:PATH"
    )
    pretraining: Share = Field(default=2 / 3, description="share of the epochs in which the pixels alone count; 1: all")
    decay_from: Share = Field(
        default=0.5, description="share of each stage after which its learning rates fall linearly; 1: constant rates"
    )
    tile: Count = Field(
        default=160, description="edge of the parts in which `apply` takes an image; less memory: fewer"
    )
    generator: GeneratorParams = GeneratorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()

    def __post_init__(self) -> None:
        shuffle_factors(self.scale)
        check_name(self.features)
        if self.crop_size % (1 << STRIDES) or self.crop_size % self.scale:
            least = math.lcm(1 << STRIDES, self.scale)
            raise ValueError(f"crop_size = {self.crop_size} is no multiple of {least}, such as {least} or {2 * least}")


P = TypeVar("P", bound=UpscalingParams)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(UpscalingParams):
    """All parameters. The defaults are those of the built-in data."""

    crops: Count = Field(default=4000, description="crops in an epoch; the images take turns")
    flip: bool = Field(default=True, description="mirror half of the crops left to right")
    built_in: BuiltIn = Field(default="orchard", description="images without --dataroot: orchard or photographs")
    grey_range: GreyRange | None = Field(default=None, description="black and white of 16-bit grey, such as 0,4095")


def data(dataroot: Path | None, params: Params) -> Data:
    """Crops of large images in folders `train` and `test`, or of the built-in ones, with their small versions."""
    return super_resolution(
        dataroot,
        scale=params.scale,
        crop_size=params.crop_size,
        crops=params.crops,
        batch_size=params.batch_size,
        flip=params.flip,
        built_in=params.built_in,
        grey_range=params.grey_range,
    )


def build_generator(params: UpscalingParams) -> nn.Module:
    """Images (N, 3, H, W) in [-1, 1] to (N, 3, scale x H, scale x W)."""
    p = params.generator
    return SrResNet(p.width, p.blocks, params.scale, norm=p.norm, skip=p.skip)


def build_discriminator(params: UpscalingParams) -> nn.Module:
    """Images (N, 3, crop_size, crop_size) to logits (N,)."""
    return Discriminator(params.discriminator.width, params.crop_size)


def stages(params: UpscalingParams) -> list[Stage]:
    """First the pixels alone count, and the discriminator rests; then the features and the discriminator."""
    share = params.pretraining
    if share == 1:
        return [Stage("mse", 1, params=pixels_alone)]
    if not (params.generator.lambda_content or params.generator.lambda_adversarial):
        raise InputError(
            "generator.lambda_content = 0 and generator.lambda_adversarial = 0 are not allowed together: the pixels "
            "alone would count in the stage gan as well. Set one of them above 0, or pretraining to 1."
        )
    gan = Stage("gan", 1 - share, params=with_rate_of_gan, fresh_optimizers=True)
    return [Stage("mse", share, params=pixels_alone, trains=("generator",)), gan] if share else [gan]


def pixels_alone(params: P) -> P:
    """The parameters of the stage mse."""
    return replace(
        params, generator=replace(params.generator, lambda_pixel=1.0, lambda_content=0.0, lambda_adversarial=0.0)
    )


def with_rate_of_gan(params: P) -> P:
    """The parameters of the stage gan."""
    return replace(params, generator=replace(params.generator, lr=params.generator.gan_lr))


def fake(nets: Nets, batch: Batch) -> Tensor:
    """The images that the generator makes of the small ones, computed once for all modules of a worker."""
    return nets.once("fake", lambda: nets.generator(batch["lr"]))


def generator_loss(nets: Nets, batch: Batch, params: UpscalingParams) -> dict[str, Tensor]:
    """Equation 3, or in the stage mse equation 4: a sum of the distances that have a weight."""
    p, made = params.generator, fake(nets, batch)
    terms: dict[str, tuple[float, Tensor]] = {}
    if p.lambda_pixel:
        terms["pixel"] = p.lambda_pixel, DISTANCES[p.pixel_loss](made, batch["hr"])
    if p.lambda_content:
        terms["content"] = p.lambda_content, F.mse_loss(nets.features(made), nets.features(batch["hr"]))
    if p.lambda_adversarial:
        gan_mode = params.discriminator.gan_mode
        fooled = nets.average("discriminator", lambda judge: adversarial_losses.generator_loss(judge(made), gan_mode))
        terms["adversarial"] = p.lambda_adversarial, fooled
    loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
    return {"loss": loss} | {name: term for name, (_, term) in terms.items()}


def discriminator_loss(nets: Nets, batch: Batch, params: UpscalingParams) -> dict[str, Tensor]:
    """Large images of the data are real, enlarged ones are fake."""
    judge, made = adversarial_losses.separately(nets.discriminator), fake(nets, batch).detach()
    return adversarial_losses.judged(judge, batch["hr"], made, params.discriminator.gan_mode)


def generator_schedule(progress: float, params: UpscalingParams) -> float:
    """Factor on the learning rate: 1, which falls linearly in the last part of each stage."""
    p, share = params.generator, params.pretraining
    if p.lambda_content or p.lambda_adversarial:
        return gan_schedule(progress, params)
    return max(linear_decay(progress, decay_from=share * params.decay_from, finished_at=share), LEAST_RATE)


def gan_schedule(progress: float, params: UpscalingParams) -> float:
    """The same in the stage gan."""
    share = params.pretraining
    falling = linear_decay(progress, decay_from=share + (1 - share) * params.decay_from)
    return max(falling, LEAST_RATE)


def discriminator_schedule(progress: float, params: UpscalingParams) -> float:
    """That of the stage gan; 0, so that the discriminator rests, where nothing reads it."""
    is_read = params.pretraining < 1 and params.generator.lambda_adversarial
    return gan_schedule(progress, params) if is_read else 0.0


def apply(nets: Nets, images: Tensor, params: UpscalingParams) -> Tensor:
    """Enlarge images (N, 3, H, W) in [-1, 1] of any size, in parts that leave no seams."""
    net = nets.generator
    return in_tiles(net, images, tile=params.tile, reach=net.reach, scale=params.scale).clamp(-1, 1)


def evaluate(nets: Nets, test: SuperResolutionTest | None, params: UpscalingParams) -> Evaluation:
    """PSNR in dB and SSIM, of all colours and of the luma alone, without a border of `scale` pixels; means over images.

    The distance of the features, and the SWD, are of parts of the images. Everything beside bicubic interpolation.
    """
    if test is None:
        raise InputError("The data has no test images; add test or val to see how well they are enlarged.")
    name = params.features.partition(":")[0]
    scores = SuperResolutionScores(test.pixels, scale=params.scale, network=nets.features, name=name)
    for pixels, small in zip(test.pixels, test.small, strict=True):
        scores.add(apply(nets, as_float(small), params), as_float(small), as_float(pixels))
    return Evaluation(metrics=scores.metrics(), grid=scores.grid())


srgan_pytorch_files = Format(
    files={
        "generator": WeightsFile(
            name="g_{epoch}.pth.tar",
            weights=srgan_pytorch.names,
            params=srgan_pytorch.params,
            key="state_dict",
            upgrade=srgan_pytorch.without_prefix,
            check=srgan_pytorch.check,
        )
    }
)

recipe = Recipe(
    params=Params,
    data=data,
    check_dataroot=hr_folders,
    stages=stages,
    placement=(("generator",), ("discriminator",)),
    modules={
        "generator": Module(
            build=build_generator,
            loss=generator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.generator),
            schedule=generator_schedule,
            reads=(Reads("discriminator", last=lambda params: params.generator.opponents), "features"),
            ema=lambda params: params.generator.ema,
            frozen_mode="train",
        ),
        "discriminator": Module(
            build=build_discriminator,
            loss=discriminator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.discriminator),
            schedule=discriminator_schedule,
            reads=("generator",),
            frozen_mode="train",
        ),
        "features": Module(
            build=lambda params: feature_network(params.features),
            weights=lambda params: weights_file(params.features),
        ),
    },
    apply=apply,
    evaluate=evaluate,
    formats={"srgan-pytorch": srgan_pytorch_files},
    primary_metric="swd",
    lower_is_better=LOWER_IS_BETTER,
    epochs=12,
    max_staleness=0,
)
