"""pix2pix: "Image-to-Image Translation with Conditional Adversarial Networks" (Isola et al., CVPR 2017), with the face
recogniser of "Using a Multi-GPU node to accelerate the training of Pix2Pix neural networks" (Lupión et al., 2022).

A generator makes of an image x, such as a thermal picture, its partner y, such as the face in colour. A discriminator
judges pairs, a recogniser tells which person is in an image. The equations of the papers and their functions:

- equation 1 of pix2pix, the conditional adversarial loss: `generator_loss` and `discriminator_loss`;
- equation 3, the distance to the true image, weight 100 (L1; "l2" is what Lupión et al. describe): `pixel`;
- Lupión et al., section 3.4.2, the face recognition loss: the cross-entropy of the recogniser's verdict on the image
  that was made, whose person it should show: `recognition`. Its weight is not given there; it is 1 here;
- pix2pix, section 6.1: the U-Net with dropout, the 70x70 PatchGAN (`build_generator`, `build_discriminator`).

The noise z of the papers is dropout. At test time they keep train mode (pix2pix, section 3.4), where batch
normalisation has the statistics of one image, as in their training with batches of one. So does this recipe where
`batch_size` is 1; a generator trained on larger batches has never seen those and is used in eval mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, cat, nn
from torch.nn import functional as F

from modtrain.data.aligned_folders import aligned_folders
from modtrain.data.base import Batch, Data
from modtrain.data.crops import check_sizes
from modtrain.data.decoding import Resize
from modtrain.data.grey_range import GreyRange
from modtrain.data.paired import PairedTest, paired
from modtrain.errors import InputError, counted
from modtrain.metrics.full_reference import psnr, ssim
from modtrain.metrics.identification import accuracy, nearest_candidate
from modtrain.metrics.sample_grid import sample_grid
from modtrain.nets import adversarial_losses, cyclegan_project
from modtrain.nets.adversarial_losses import GanMode, judged, separately
from modtrain.nets.layers import in_batches, normal_initialised, pad_to_multiple, patchgan
from modtrain.nets.recogniser import Recogniser
from modtrain.nets.unet import UnetGenerator
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Decay, Positive, Share, Weight, linear_decay
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.stages import Stage

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneratorParams(AdamParams):
    """The generator and how it is trained."""

    width: Count = Field(default=16, description="channels of the first layer (64: the paper's size)")
    levels: Annotated[int, Field(ge=1, le=12)] = Field(
        default=6, description="times that the U-Net halves the edge (the paper's size: 8)"
    )
    pixel_loss: Literal["l1", "l2"] = Field(default="l1", description="distance to the true image")
    lambda_pixel: Weight = Field(default=300.0, description="weight of that distance (the paper's: 100)")
    lambda_recognition: Weight = Field(
        default=10.0, description="weight of the recognition loss; 0: no recogniser, as for data without labels"
    )
    opponents: Count = Field(default=3, description="newest discriminator versions whose verdicts are averaged")
    lr: Positive = Field(default=2e-3, description="learning rate of Adam (the paper's: 2e-4)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """The discriminator and how it is trained."""

    width: Count = Field(default=8, description="channels of the first layer (64: the paper's size)")
    gan_mode: GanMode = Field(default="vanilla", description="lsgan, vanilla or hinge, for both sides")
    lr: Positive = Field(default=1e-4, description="learning rate of Adam (the paper's: 2e-4)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class RecogniserParams(AdamParams):
    """The recogniser and how it is trained."""

    width: Count = Field(default=32, description="channels of the first of four layers, doubled by each")
    classes: Count = Field(default=12, description="persons that it tells apart; at least the labels of the data")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of the epochs in which it alone is trained, before the others are"
    )
    lr: Positive = Field(default=2e-3, description="learning rate of Adam, which falls to the end of its stage")
    beta1: Decay = Field(default=0.9, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params:
    """All parameters. The defaults are those of the built-in demo."""

    batch_size: Count = Field(default=8, description="pairs in a batch")
    load_size: int = Field(default=64, ge=24, description="images are resized to this edge, then cropped")
    crop_size: int = Field(default=64, ge=24, description="edge of a random crop, a multiple of 2^generator.levels")
    flip: bool = Field(default=False, description="mirror half of the training pairs left to right")
    direction: Literal["AtoB", "BtoA"] = Field(default="AtoB", description="which image is given, which is wanted")
    held_out: Literal["test", "val"] = Field(default="test", description="folder of the pairs to evaluate on")
    resize: Resize = Field(default="bicubic", description="filter with which images are resized")
    grey_range: GreyRange | None = Field(default=None, description="black and white of 16-bit grey, such as 0,4095")
    decay_from: Share = Field(
        default=0.5, description="share of the run after which the learning rates fall linearly to 0"
    )
    generator: GeneratorParams = GeneratorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()
    recogniser: RecogniserParams = RecogniserParams()

    def __post_init__(self) -> None:
        check_sizes(self.load_size, self.crop_size, self.batch_size)
        levels, edge = self.generator.levels, 2**self.generator.levels
        if self.crop_size % edge:
            raise InputError(
                f"crop_size = {self.crop_size} is no multiple of {edge}, which a generator of {levels} levels "
                "needs; change crop_size or generator.levels."
            )


def data(dataroot: Path | None, params: Params) -> Data:
    """Pairs in the layouts of the pix2pix project, with the labels that the recogniser needs, or the thermal ones."""

    def check_labels(count: int) -> None:
        if params.generator.lambda_recognition and not 1 <= count <= params.recogniser.classes:
            without = "generator.lambda_recognition=0, or give labels by subfolders of train or by labels.csv"
            raise InputError(
                f"The recogniser tells {counted(params.recogniser.classes, 'person')} apart, and the training images "
                f"have {counted(count, 'label')}: set {f'recogniser.classes={count}' if count else without}."
            )

    return paired(
        dataroot,
        load_size=params.load_size,
        crop_size=params.crop_size,
        batch_size=params.batch_size,
        flip=params.flip,
        direction=params.direction,
        held_out=params.held_out,
        grey_range=params.grey_range,
        resize=params.resize,
        check_labels=check_labels,
    )


def build_generator(params: Params) -> nn.Module:
    """Images (N, 3, H, W) in [-1, 1], edges a multiple of 2^levels, to the same shape."""
    return normal_initialised(UnetGenerator(params.generator.width, params.generator.levels))


def build_discriminator(params: Params) -> nn.Module:
    """The 70x70 PatchGAN on pairs, (N, 6, H, W) to logits (N, 1, H/8-2, W/8-2): 30x30 of them at 256 pixels."""
    width = params.discriminator.width
    layers = ((width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1))
    return normal_initialised(patchgan(6, layers, norm="batch"))


def build_recogniser(params: Params) -> nn.Module:
    """Images (N, 3, H, W) to a logit for each person."""
    return Recogniser(params.recogniser.width, params.recogniser.classes)


def fake(nets: Nets, batch: Batch) -> Tensor:
    """The image that the generator makes, computed once for all modules of a worker."""
    return nets.once("fake", lambda: nets.generator(batch["a"]))


def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """What the generator minimises: adversarial, the distance to the true image, and that its person is recognised."""
    p, made, gan_mode = params.generator, fake(nets, batch), params.discriminator.gan_mode
    pair = cat([batch["a"], made], 1)
    adversarial = nets.average("discriminator", lambda judge: adversarial_losses.generator_loss(judge(pair), gan_mode))
    pixel = DISTANCES[p.pixel_loss](made, batch["b"])
    terms = {"adversarial": adversarial, "pixel": pixel}
    loss = adversarial + p.lambda_pixel * pixel
    if p.lambda_recognition:
        terms["recognition"] = F.cross_entropy(nets.recogniser.verdict(made), batch["label"])
        loss = loss + p.lambda_recognition * terms["recognition"]
    return {"loss": loss} | terms


def discriminator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """True pairs are real; the given image with the one that was made of it is fake."""
    real, made = (cat([batch["a"], image], 1) for image in (batch["b"], fake(nets, batch)))
    return judged(separately(nets.discriminator), real, made, params.discriminator.gan_mode)


def recogniser_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Sparse categorical cross-entropy on the true images."""
    logits = nets.recogniser(batch["b"])
    return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": accuracy(logits, batch["label"])}


def schedule(progress: float, params: Params) -> float:
    """Factor on the learning rates: 1, from `decay_from` on linearly to 0 at the end, as in the authors' code."""
    return linear_decay(progress, decay_from=params.decay_from)


def stages(params: Params) -> list[Stage]:
    """The recogniser is trained first, as Lupión et al. do, and then only read; without it there is one stage."""
    if not params.generator.lambda_recognition:
        return [Stage("translate", 1)]
    return [
        Stage("recognise", params.recogniser.share, trains=("recogniser",)),
        Stage("translate", 1 - params.recogniser.share, trains=("generator", "discriminator")),
    ]


def recogniser_schedule(progress: float, params: Params) -> float:
    """Falls linearly to the end of its stage; 0, so that it rests, without a recognition loss."""
    return max(1 - progress / params.recogniser.share, 0.02) if params.generator.lambda_recognition else 0.0


def apply(nets: Nets, images: Tensor, params: Params) -> Tensor:
    """Translate images (N, 3, H, W) in [-1, 1] of any size; the same shape."""
    height, width = images.shape[-2:]
    padded = pad_to_multiple(images, 2**params.generator.levels, least=1)
    return nets.generator(padded)[..., :height, :width]  # type: ignore[no-any-return]


def evaluate(nets: Nets, test: PairedTest | None, params: Params) -> Evaluation:
    """Held-out metrics (PSNR in dB, SSIM; means over images); grid rows: input, translation, truth."""
    if test is None:
        raise InputError("The data has no test images; add test or val to see how well it is translated.")
    made = in_batches(lambda images: apply(nets, images, params), test.a, 1)
    metrics = {"psnr": psnr(made, test.b), "copy_psnr": psnr(test.a, test.b), "mean_psnr": psnr(test.mean, test.b)}
    metrics["ssim"] = ssim(made, test.b)
    if test.mask is not None:
        for name, images in {"fruit_psnr": made, "fruit_copy_psnr": test.a, "fruit_mean_psnr": test.mean}.items():
            metrics[name] = psnr(images, test.b, test.mask)
    if test.labels is not None and params.generator.lambda_recognition:
        for name, images in {"identity_accuracy": made, "identity_accuracy_real": test.b}.items():
            metrics[name] = float(accuracy(in_batches(nets.recogniser.verdict, images, 64), test.labels))
    if test.labels is not None and test.candidates is not None:
        for name, images in {"identity_accuracy_judge": made, "identity_accuracy_judge_copy": test.a}.items():
            metrics[name] = float(accuracy(nearest_candidate(images, test.candidates), test.labels))
    shown = slice(None, None, max(1, len(made) // 12))  # images of one person follow each other
    rows = {"input": test.a[shown], "translation": made[shown], "truth": test.b[shown]}
    return Evaluation(metrics=metrics, grid=sample_grid(rows))


authors_files = Format(
    files={
        "generator": WeightsFile(
            name="{epoch}_net_G.pth",
            weights=cyclegan_project.unet_names,
            params=lambda tensors: {"generator": cyclegan_project.unet_size(tensors)},
            upgrade=cyclegan_project.with_counts,
        ),
        "discriminator": WeightsFile(
            name="{epoch}_net_D.pth",
            weights=cyclegan_project.patchgan_names,
            params=lambda tensors: {"discriminator": cyclegan_project.patchgan_size(tensors)},
            upgrade=cyclegan_project.with_counts,
        ),
    }
)

recipe = Recipe(
    params=Params,
    data=data,
    check_dataroot=aligned_folders,
    stages=stages,
    placement=(("recogniser", "discriminator"), ("generator",)),
    modules={
        "recogniser": Module(
            build=build_recogniser,
            loss=recogniser_loss,
            optimizer=lambda parameters, params: adam(parameters, params.recogniser),
            schedule=recogniser_schedule,
        ),
        "generator": Module(
            build=build_generator,
            loss=generator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.generator),
            schedule=schedule,
            reads=(Reads("discriminator", last=lambda params: params.generator.opponents), "recogniser"),
            frozen_mode="train",
            infer_mode=lambda params: "train" if params.batch_size == 1 else "eval",
        ),
        "discriminator": Module(
            build=build_discriminator,
            loss=discriminator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.discriminator),
            schedule=schedule,
            reads=("generator",),
            frozen_mode="train",
        ),
    },
    apply=apply,
    evaluate=evaluate,
    formats={"pix2pix": authors_files},
    primary_metric="psnr",
    epochs=18,
    exchange_every=25,
    max_staleness=0,
)
