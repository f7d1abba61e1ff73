"""Unpaired translation on the encoding: "Improving Cycle-GAN using Intel AI DevCloud" (Mohan Nikam, Intel, June 2018).

Apples (domain A) become oranges (domain B). One encoder-decoder serves both domains, one translator works on its
encoding, and one discriminator judges the encoding, never the image. The sentences of the article and their functions:

- "this pair can even be trained separately ... governed by the reconstruction loss": `encoder_decoder_loss`;
- "deviation loss, which is defined as the difference between the encodings of an image and the output of the generator
  network": `deviation_loss`. "To ensure that images from domain B do not change" it applies to B, and because the
  translator shall "translate only the bare-minimum part of the encoded image of domain A" it applies to A, too. How
  much each counts is left open there, so each has its own weight. The article gives no norm: L1, as in CycleGAN;
- "it can directly take the translated feature encodings ... as an input": `build_discriminator`;
- "loss is kept similar to that of Cycle-GAN": LSGAN. The discriminator's fakes are translations of A only.

The encoding drifts while its encoder trains: in the demo, within 25 of 1,000 steps, by 92 % of its norm at step 25, 23
% at 100, 12 % at 400, 2 % at 600. So it is normalised (its standard deviation stays within 0.62 to 0.65), the others
start later (discriminator at 5 %, translator at 10 % of the run), and the encoder is finished at 60 %. Against frozen
opponents the translator needs both the mean over many and a strong penalty. PSNR inside the fruit at step 600, one
seed, exchange every 25 steps: penalty weight 0.06, 0.6, 6: 16.9, 17.9, 19.5 dB; at 6 with 3 instead of 8 opponents:
16.4.

As in the article, workers exchange at the ends of epochs: eight opponents then come from eight rounds of the game.
`statistics_loss`, a term without an opponent, is not in the article. Against opponents of that age it is worth 0.2 to
0.4 dB inside the fruit; jointly it costs 0.2.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.data.base import Batch
from modtrain.data.unpaired import UnpairedTest
from modtrain.data.unpaired_folders import unpaired_folders
from modtrain.data.unpaired_params import UnpairedParams, unpaired_data
from modtrain.errors import InputError
from modtrain.metrics.full_reference import psnr
from modtrain.metrics.sample_grid import sample_grid
from modtrain.metrics.translation import translation_metrics
from modtrain.nets.adversarial_losses import GanMode, discriminator_loss, generator_loss, gradient_penalty, scores
from modtrain.nets.full_precision import as_full, full_precision
from modtrain.nets.layers import (
    Conv,
    Norm,
    ResnetBlock,
    c7s1,
    down,
    in_batches,
    normalisation,
    pad_to_multiple,
    patchgan,
    up,
)
from modtrain.nets.sliced_wasserstein import sliced_wasserstein
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Decay, Positive, Share, Weight, linear_decay
from modtrain.recipes.nets_view import Nets

Deviation = Literal["l1", "l2"]
Penalty = Literal["none", "r1", "r1+r2"]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class EncoderDecoderParams(AdamParams):
    """The encoder-decoder and how it is trained."""

    width: Count = Field(default=16, description="channels of the first layer; the encoding has 4 times as many (64)")
    norm: Norm = Field(default="instance", description="normalisation of its layers: instance or none")
    lr: Positive = Field(default=2e-3, description="learning rate of Adam")
    starts_at: Share = Field(default=0.0, description="share of the run before its first step")
    decay_from: Share = Field(default=0.2, description="share of the run after which lr falls linearly")
    finished_at: Share = Field(default=0.6, description="share of the run at which lr is 0: the drift ends")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class TranslatorParams(AdamParams):
    """The translator and how it is trained."""

    blocks: Count = Field(default=3, description="residual blocks (the article's size: 9, or 6)")
    conv: Conv = Field(default="dense", description="dense, or (depthwise-)separable convolutions")
    norm: Norm = Field(default="instance", description="normalisation in the blocks: instance or none")
    lr: Positive = Field(default=5e-4, description="learning rate of Adam")
    lambda_deviation_a: Weight = Field(default=0.7, description="weight of the deviation of A: keeps the background")
    lambda_deviation_b: Weight = Field(default=1.0, description="weight of the deviation of B: B stays B")
    deviation: Deviation = Field(default="l1", description="norm of the deviation loss: l1 or l2")
    lambda_swd: Weight = Field(default=2.0, description="weight of the distance of translated A from B: no opponent")
    swd_projections: Count = Field(default=64, description="random filters of that distance, drawn anew at each step")
    swd_patch_size: Count = Field(default=3, description="edge of the patches of encodings that it compares")
    opponents: Count = Field(default=8, description="newest discriminator versions whose verdicts are averaged")
    starts_at: Share = Field(default=0.1, description="share of the run before its first step: a head start")
    decay_from: Share = Field(default=0.4, description="share of the run after which lr falls linearly")
    finished_at: Share = Field(default=1.0, description="share of the run at which lr is 0")
    ema: Decay = Field(default=0.995, description="decay of the weights' moving average, for evaluation (0: none)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """The discriminator of encodings and how it is trained."""

    width: Count = Field(default=64, description="channels of its first layer (256: the article's size)")
    norm: Norm = Field(default="none", description="normalisation of its layers: instance or none")
    spectral_norm: bool = Field(default=False, description="spectral normalisation of its layers")
    gan_mode: GanMode = Field(default="lsgan", description="lsgan, vanilla or hinge, for both sides")
    penalty: Penalty = Field(default="r1+r2", description="on its gradient: none, r1 (at real) or r1+r2 (fake, too)")
    lambda_penalty: Weight = Field(default=12.0, description="of the penalty, in units of the encodings' variance")
    lr: Positive = Field(default=5e-4, description="learning rate of Adam")
    starts_at: Share = Field(default=0.05, description="share of the run before its first step: a head start")
    decay_from: Share = Field(default=0.4, description="share of the run after which lr falls linearly")
    finished_at: Share = Field(default=1.0, description="share of the run at which lr is 0")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(UnpairedParams):
    """All parameters. The defaults are those of the built-in demo; `jobs/` holds the article's full size."""

    encoder_decoder: EncoderDecoderParams = EncoderDecoderParams()
    translator: TranslatorParams = TranslatorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()

    def __post_init__(self) -> None:
        super().__post_init__()
        patch, edge = self.translator.swd_patch_size, self.crop_size // 4
        if patch > edge:
            raise InputError(f"translator.swd_patch_size = {patch} is too large; use at most crop_size / 4 = {edge}.")


class EncoderDecoder(nn.Module):
    """`c7s1-w, d2w, d4w | u2w, uw, c7s1-3`: images (N, 3, H, W) in [-1, 1] to encodings (N, 4w, H/4, W/4) and back.

    The article's "less-complex decoder" has no residual blocks: those are the translator.
    """

    def __init__(self, p: EncoderDecoderParams) -> None:
        super().__init__()
        width, norm = p.width, p.norm
        first = (c7s1(3, width), normalisation(norm, width), nn.ReLU())
        self.encoder = nn.Sequential(*first, down(2 * width, norm), down(4 * width, norm))
        self.decoder = nn.Sequential(up(2 * width, norm), up(width, norm), c7s1(width, 3), nn.Tanh())

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), edges a multiple of 4, to encodings (N, 4w, H/4, W/4)."""
        return self.encoder(images)  # type: ignore[no-any-return]

    def decode(self, encodings: Tensor) -> Tensor:
        """Encodings (N, 4w, h, w) to images (N, 3, 4h, 4w)."""
        return self.decoder(encodings)  # type: ignore[no-any-return]


def build_translator(params: Params) -> nn.Module:
    """Residual blocks on the encoding, (N, 4w, h, w) to the same shape; it starts as the identity."""
    p, channels = params.translator, 4 * params.encoder_decoder.width
    return nn.Sequential(*(ResnetBlock(channels, conv=p.conv, norm=p.norm) for _ in range(p.blocks)))


def build_discriminator(params: Params) -> nn.Module:
    """The latter half of CycleGAN's 70x70 PatchGAN: encodings (N, 4w, h, w) to logits of patches (N, 1, h/2-2, ...)."""
    p = params.discriminator
    layers = ((p.width, 2), (2 * p.width, 1))
    return patchgan(4 * params.encoder_decoder.width, layers, norm=p.norm, spectral_norm=p.spectral_norm)


def encodings(nets: Nets, batch: Batch) -> tuple[Tensor, Tensor]:
    """The encodings of a batch's images of A and of B, computed once for all modules of a worker."""
    both = nets.once("encodings", lambda: nets.encoder_decoder.encode(torch.cat((batch["a"], batch["b"]))))
    return both[: len(batch["a"])], both[len(batch["a"]) :]


def encoder_decoder_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Reconstruction: mean absolute difference between images and their decoded encodings, both domains."""
    images = torch.cat((batch["a"], batch["b"]))
    loss = F.l1_loss(nets.encoder_decoder.decode(torch.cat(encodings(nets, batch))), images)
    return {"loss": loss, "reconstruction": loss}


def translator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Adversarial loss, averaged over the discriminators read, plus weighted deviation and statistics losses."""
    p, gan_mode = params.translator, params.discriminator.gan_mode
    encoding_a, encoding_b = encodings(nets, batch)
    fake = nets.once("fake", lambda: nets.translator(encoding_a))
    adversarial = nets.average("discriminator", lambda judge: generator_loss(judge(fake), gan_mode))
    deviation_a = deviation_loss(encoding_a, fake, p.deviation)
    deviation_b = deviation_loss(encoding_b, nets.translator(encoding_b), p.deviation)
    loss = adversarial + p.lambda_deviation_a * deviation_a + p.lambda_deviation_b * deviation_b
    losses = {"adversarial": adversarial, "deviation_a": deviation_a, "deviation_b": deviation_b}
    if p.lambda_swd:
        losses["swd"] = statistics_loss(fake, encoding_b, p)
        loss = loss + p.lambda_swd * losses["swd"]
    return {"loss": loss, **losses}


def deviation_loss(encoding: Tensor, translation: Tensor, deviation: Deviation) -> Tensor:
    """The difference between an encoding and its translation (N, C, H, W): a scalar, 0 for the identity."""
    return (F.l1_loss if deviation == "l1" else F.mse_loss)(translation, encoding)


def statistics_loss(fake: Tensor, real: Tensor, p: TranslatorParams) -> Tensor:
    """How far the patches of translated A are from those of B: a critic that is never old, unlike a discriminator."""
    return sliced_wasserstein(fake, real, projections=p.swd_projections, patch_size=p.swd_patch_size)


def discriminator_loss_on_encodings(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Encodings of B are real, translated encodings of A are fake; with a gradient penalty on one or both."""
    p = params.discriminator
    encoding_a, real = (encoding.detach() for encoding in encodings(nets, batch))
    fake = nets.once("fake", lambda: nets.translator(encoding_a)).detach()
    real = as_full(real).requires_grad_(p.penalty != "none")
    fake = as_full(fake).requires_grad_(p.penalty == "r1+r2")
    with full_precision(p.penalty != "none"):
        on_real, on_fake = nets.discriminator(real), nets.discriminator(fake)
        adversarial = discriminator_loss(on_real, on_fake, p.gan_mode)
        penalised = [(on, at) for on, at in ((on_real, real), (on_fake, fake)) if at.requires_grad]
        # In units of the encodings' variance, so that the weight means the same however the encoder scales its output.
        penalty = sum((gradient_penalty(on, at) for on, at in penalised), torch.zeros(())) * real.detach().var()
    losses = {"loss": adversarial + p.lambda_penalty * penalty, "adversarial": adversarial, "penalty": penalty}
    return losses | scores(on_real, on_fake)


Trained = EncoderDecoderParams | TranslatorParams | DiscriminatorParams


def schedule(progress: float, p: Trained) -> float:
    """Factor on a learning rate: 0 before `starts_at`, then 1, from `decay_from` on linearly to 0 at `finished_at`."""
    if progress < p.starts_at:
        return 0.0
    return linear_decay(progress, decay_from=p.decay_from, finished_at=p.finished_at)


def apply(nets: Nets, images: Tensor, params: Params) -> Tensor:
    """Translate images (N, 3, H, W) in [-1, 1] of any size to domain B; the same shape."""
    height, width = images.shape[-2:]
    encoding = nets.encoder_decoder.encode(pad_to_multiple(images, 4))
    return nets.encoder_decoder.decode(nets.translator(encoding))[..., :height, :width]  # type: ignore[no-any-return]


def evaluate(nets: Nets, test: UnpairedTest | None, params: Params) -> Evaluation:
    """Held-out metrics (PSNR in dB, SSIM; means over images) and a grid with the rows input, translation, truth."""
    if test is None:
        raise InputError("The data has no test images; add testA and testB to see how well it is translated.")
    a, b, code = test.a, test.b, nets.encoder_decoder
    both = torch.cat((a, b))
    size = 2 * params.batch_size
    translated, kept = (in_batches(lambda x: apply(nets, x, params), images, size) for images in (a, b))
    rebuilt = in_batches(lambda x: code.decode(code.encode(x)), both, size)
    metrics = {"reconstruction_psnr": psnr(rebuilt, both), "target_kept_psnr": psnr(kept, b)}
    rows = {"input": a, "translation": translated}
    if test.mask is None:
        return Evaluation(metrics=metrics, grid=sample_grid(rows))
    with_truth = translation_metrics(a, translated, b, test.mask)
    return Evaluation(metrics=with_truth | metrics, grid=sample_grid(rows | {"truth": b}))


recipe = Recipe(
    params=Params,
    data=unpaired_data,
    check_dataroot=unpaired_folders,
    modules={
        "encoder_decoder": Module(
            build=lambda params: EncoderDecoder(params.encoder_decoder),
            loss=encoder_decoder_loss,
            optimizer=lambda parameters, params: adam(parameters, params.encoder_decoder),
            schedule=lambda progress, params: schedule(progress, params.encoder_decoder),
        ),
        "translator": Module(
            build=build_translator,
            loss=translator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.translator),
            schedule=lambda progress, params: schedule(progress, params.translator),
            reads=("encoder_decoder", Reads("discriminator", last=lambda params: params.translator.opponents)),
            ema=lambda params: params.translator.ema,
        ),
        "discriminator": Module(
            build=build_discriminator,
            loss=discriminator_loss_on_encodings,
            optimizer=lambda parameters, params: adam(parameters, params.discriminator),
            schedule=lambda progress, params: schedule(progress, params.discriminator),
            reads=("encoder_decoder", "translator"),
        ),
    },
    apply=apply,
    evaluate=evaluate,
    primary_metric="translation_psnr",
    epochs=10,
    max_staleness=0,
)
