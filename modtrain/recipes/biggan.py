"""BigGAN: "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (Brock, Donahue and Simonyan, ICLR
2019), and what "Exploring Generative Adversarial Networks: Improving training techniques" (Iyengar, Pandey and Mehta,
2018) takes of it.

A generator makes images of noise and a class, a discriminator tells them from real ones of that class. The parts of
the papers, and where they are:

- section 1.1.3 of the second paper, the hinge loss: `generator_loss`, `discriminator_loss`;
- 1.1.2, spectral normalisation, two time scales and several discriminator steps: `generator.lr`, `discriminator.lr`,
  `discriminator.updates`, each of which is on real images and fakes of its own;
- 1.1.4 to 1.1.9, conditional batch normalisation, self-attention, hierarchical noise, projection, shared embedding:
  `modtrain/nets/biggan.py`;
- 1.1.6 and 1.1.10, orthogonal initial weights and regularisation (`generator.lambda_orthogonal`), which the second
  paper leaves out; truncated noise (`modtrain sample --truncation`);
- the first paper: large batches (`accumulate`), an average of the generator from a step on (`generator.ema_from`), and
  statistics of batch normalisation that are computed for it (`settle`).

Not in the papers: several discriminator versions as opponents, and lazy R1, since no term anchors this game.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from modtrain.data.base import Batch
from modtrain.data.fruits.orchard import CLASSES
from modtrain.data.labelled import LabelledData, LabelledTest
from modtrain.data.labelled_folders import labelled_splits
from modtrain.data.labelled_params import LabelledParams, class_names, labelled_data
from modtrain.errors import InputError
from modtrain.metrics.identification import accuracy
from modtrain.metrics.judged_samples import judged_samples, real_images
from modtrain.metrics.sample_grid import sample_grid
from modtrain.nets import adversarial_losses, biggan, biggan_files
from modtrain.nets.adversarial_losses import GanMode
from modtrain.nets.full_precision import full_precision
from modtrain.nets.layers import in_batches
from modtrain.nets.orthogonal import OrthogonalForm, orthogonal_penalty
from modtrain.nets.standing_statistics import standing_statistics
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Decay, Positive, Share, Weight, linear_decay
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling

ROWS, COLUMNS = 12, 8
"""Classes and noises that the sheet of an evaluation shows, at most."""
ADAM_EPS = 1e-6
"""As in the authors' code."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneratorParams(AdamParams):
    """The generator and how it is trained."""

    width: Count = Field(default=8, description="its unit of channels, ch (the papers' sizes: 64 and 96)")
    shared_size: Count = Field(default=32, description="numbers of the embedding of a class (the paper's: 128)")
    norm_eps: Positive = Field(default=1e-5, description="epsilon of its batch normalisation")
    opponents: Count = Field(default=1, description="newest discriminator versions whose verdicts are averaged")
    lambda_orthogonal: Weight = Field(
        default=0.0, description="weight of orthogonal regularisation (the paper's: 1e-4)"
    )
    orthogonal_form: OrthogonalForm = Field(
        default="reference", description="paper: columns of the weights, as printed; reference: rows, as in the code"
    )
    ema: Decay = Field(default=0.995, description="decay of the moving average that is evaluated and sampled; 0: none")
    ema_from: Annotated[int, Field(ge=0)] = Field(default=0, description="steps after which it begins to average")
    lr: Positive = Field(default=5e-4, description="learning rate of Adam (the papers': 5e-5 or 1e-4)")
    beta1: Decay = Field(default=0.0, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """The discriminator and how it is trained."""

    width: Count = Field(default=8, description="its unit of channels, ch (the papers' sizes: 64 and 96)")
    gan_mode: GanMode = Field(default="hinge", description="the adversarial loss, for both sides")
    updates: Count = Field(default=2, description="its steps for each of the generator's, on batches of their own")
    lambda_r1: Weight = Field(default=0.1, description="weight of the gradient penalty on real images")
    r1_every: Count = Field(default=16, description="steps between two penalties, each of which counts as so many")
    lr: Positive = Field(default=5e-4, description="learning rate of Adam (the papers': 2e-4 or 4e-4)")
    beta1: Decay = Field(default=0.0, description="Adam's first decay rate")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(LabelledParams):
    """All parameters. The defaults are those of the built-in data."""

    batch_size: Count = Field(default=32, description="images in a batch")
    accumulate: Count = Field(default=1, description="batches over which a gradient is averaged, as if they were one")
    classes: Count = Field(default=len(CLASSES), description="classes of the data")
    noise_size: Count = Field(
        default=16, description="numbers of noise for each image: a chunk for each block of the generator, and one more"
    )
    attention: Annotated[int, Field(ge=0)] = Field(
        default=16, description="edge of the feature maps with self-attention (the paper's: 64); 0: none"
    )
    decay_from: Share = Field(
        default=1.0, description="share of the run after which the learning rates fall linearly to 0; 1: constant rates"
    )
    generator: GeneratorParams = GeneratorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()

    def __post_init__(self) -> None:
        super().__post_init__()
        size, noise_size, attention = self.crop_size, self.noise_size, self.attention
        if size < min(biggan.MULTIPLES) or size & (size - 1):
            raise ValueError(f"crop_size = {size} is no power of two from 32 on, such as 32, 64 or 128")
        levels = biggan.generator_levels(self.generator.width, size)
        if noise_size % (len(levels) + 1):
            raise ValueError(
                f"noise_size = {noise_size} is no multiple of {len(levels) + 1}: a chunk for each of the "
                f"{len(levels)} blocks that make {size} pixels, and one more"
            )
        if attention and attention not in (edges := [level.edge for level in levels[:-1]]):
            raise ValueError(f"attention = {attention} is not allowed; it is 0 or one of {', '.join(map(str, edges))}")


def data(dataroot: Path | None, params: Params) -> LabelledData:
    """Images with labels, in folders or IDX files, or the built-in orchard."""

    def check_classes(count: int) -> None:
        if count != params.classes:
            raise InputError(f"classes = {params.classes}, but the data has {count}: set classes={count}.")

    return labelled_data(dataroot, params, check_classes=check_classes)


def build_generator(params: Params) -> nn.Module:
    """Noise (N, noise_size) and labels (N,) to images (N, 3, crop_size, crop_size) in [-1, 1]."""
    p = params.generator
    sizes = params.classes, params.noise_size, p.shared_size, p.width, params.crop_size
    return biggan.initialised(biggan.Generator(*sizes, attention=params.attention, eps=p.norm_eps))


def build_discriminator(params: Params) -> nn.Module:
    """Images (N, 3, crop_size, crop_size) and labels (N,) to logits (N,)."""
    sizes = params.classes, params.discriminator.width, params.crop_size
    return biggan.initialised(biggan.Discriminator(*sizes, attention=params.attention))


def drawn(count: int, params: Params, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise and labels for so many images, each class as likely as any other."""
    noise = torch.randn(count, params.noise_size)
    return noise.to(device), torch.randint(params.classes, (count,)).to(device)


def fake(nets: Nets, batch: Batch, params: Params) -> tuple[Tensor, Tensor]:
    """Images that the generator makes and their labels, computed once for all modules of a worker."""
    image = batch["image"]
    labels = nets.once("labels", lambda: torch.randint(params.classes, (len(image),)).to(image.device))

    def made() -> Tensor:
        return nets.generator(torch.randn(len(image), params.noise_size).to(image.device), labels)  # type: ignore[no-any-return]

    return nets.once("fake", made), labels


def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """The generator's images are to be taken for real ones of their class; with orthogonal regularisation."""
    p, (made, labels), gan_mode = params.generator, fake(nets, batch, params), params.discriminator.gan_mode
    adversarial = nets.average(
        "discriminator", lambda judge: adversarial_losses.generator_loss(judge(made, labels), gan_mode)
    )
    if not p.lambda_orthogonal:
        return {"loss": adversarial}
    shared = nets.generator.shared.weight
    with full_precision():
        weights = (weight for weight in nets.generator.parameters() if weight is not shared)
        penalty = orthogonal_penalty(weights, p.orthogonal_form)
    return {"loss": adversarial + p.lambda_orthogonal * penalty, "adversarial": adversarial, "orthogonal": penalty}


def discriminator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:
    """Images of the data are real, made ones are fake, each of its class; every `r1_every` steps with R1."""
    p, (made, made_labels), judge = params.discriminator, fake(nets, batch, params), nets.discriminator
    labels = torch.cat([batch["label"], made_labels])

    def both(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        on_real, on_fake = judge(torch.cat([real, made]), labels).chunk(2)
        return on_real, on_fake

    weight = adversarial_losses.lazy(p.lambda_r1, p.r1_every, nets.step)
    return adversarial_losses.judged(both, batch["image"], made.detach(), p.gan_mode, lambda_r1=weight)


def schedule(progress: float, params: Params) -> float:
    """Factor on the learning rates: 1, from `decay_from` on linearly to 0 at the end."""
    return linear_decay(progress, decay_from=params.decay_from)


def settle(net: nn.Module, params: Params) -> None:
    """Statistics of batch normalisation, and of spectral normalisation, that belong to the weights of the average."""
    device = next(net.parameters()).device
    standing_statistics(net, lambda: drawn(params.batch_size, params, device))


def generate(nets: Nets, noise: Tensor, labels: Tensor | None, params: Params) -> Tensor:
    """Images of noise (N, noise_size) and labels (N,)."""
    return nets.generator(noise, labels)  # type: ignore[no-any-return]


def evaluate(nets: Nets, test: LabelledTest, params: Params) -> Evaluation:
    """Samples of all classes in equal numbers against as many test images, by the judge of the built-in fruits.

    `label_accuracy_orchard` is the share of the samples whose class the judge finds, where the classes are its own. The
    sheet has a row for each class and a noise for each column, always the same ones.
    """
    real = real_images(test)
    noise, _ = drawn(max(len(real), COLUMNS), params, real.device)
    made = sampled(nets, noise[: len(real)], torch.arange(len(real), device=real.device) % params.classes, params)
    metrics, logits = judged_samples(made, real)
    if set(test.classes) <= set(CLASSES) and test.classes:
        wanted = torch.tensor([CLASSES.index(name) for name in test.classes])[torch.arange(len(real)) % params.classes]
        metrics["label_accuracy_orchard"] = float(accuracy(logits, wanted))
    shown = min(ROWS, params.classes)
    sheet = sampled(nets, noise[:COLUMNS].repeat(shown, 1), torch.arange(shown).repeat_interleave(COLUMNS), params)
    rows = zip(test.classes, torch.split(sheet, COLUMNS), strict=False)
    return Evaluation(metrics=metrics, grid=sample_grid(dict(rows)))


def sampled(nets: Nets, noise: Tensor, labels: Tensor, params: Params) -> Tensor:
    """Images of noise and labels, a few at a time."""
    labels = labels.to(noise.device)
    parts = torch.arange(len(noise), device=noise.device)
    return in_batches(lambda part: nets.generator(noise[part], labels[part]), parts, 2 * params.batch_size)


def files_of(names: Mapping[str, str], **functions: Any) -> Format:
    """The files of another project, by module: how its tensors are named there, and become ours and theirs again."""
    return Format(files={module: WeightsFile(name=name, **functions) for module, name in names.items()})


authors_files = files_of(
    {"generator": "G_ema.pth", "discriminator": "D.pth"},
    weights=biggan_files.authors_names,
    params=biggan_files.authors_params,
    upgrade=biggan_files.from_authors,
    finish=biggan_files.to_authors,
)
studio_files = files_of(
    {
        "generator": "model=G_ema-best-weights-step={epoch}.pth",
        "discriminator": "model=D-best-weights-step={epoch}.pth",
    },
    key="state_dict",
    weights=biggan_files.studio_names,
    params=biggan_files.studio_params,
    upgrade=biggan_files.from_studio,
    finish=biggan_files.to_studio,
)

recipe = Recipe(
    params=Params,
    data=data,
    check_dataroot=labelled_splits,
    placement=(("generator",), ("discriminator",)),
    modules={
        "generator": Module(
            build=build_generator,
            loss=generator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.generator, eps=ADAM_EPS),
            schedule=schedule,
            reads=(Reads("discriminator", last=lambda params: params.generator.opponents),),
            accumulate=lambda params: params.accumulate,
            ema=lambda params: params.generator.ema,
            ema_from=lambda params: params.generator.ema_from,
            frozen_mode="train",
            settle=settle,
        ),
        "discriminator": Module(
            build=build_discriminator,
            loss=discriminator_loss,
            optimizer=lambda parameters, params: adam(parameters, params.discriminator, eps=ADAM_EPS),
            schedule=schedule,
            reads=("generator",),
            updates=lambda params: params.discriminator.updates,
            accumulate=lambda params: params.accumulate,
        ),
    },
    formats={"authors": authors_files, "studiogan": studio_files},
    sample=Sampling(generate=generate, noise_size=lambda params: params.noise_size, classes=class_names),
    evaluate=evaluate,
    primary_metric="fid_orchard",
    lower_is_better=("fid_orchard",),
    epochs=16,
    exchange_every=2,
    max_staleness="exchange",
)
