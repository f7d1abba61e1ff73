"""CycleGAN: "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks" (Zhu et al., ICCV 2017).

Two generators translate between the domains A and B, each judged by a discriminator of the domain that it makes. The
equations of the paper and their functions:

- equation 1, the adversarial loss in each direction, as least squares (section 4): `generator` and `discriminator`;
- equation 2, cycle consistency, `a -> B -> A = a` and `b -> A -> B = b`, weight 10: `cycle` in `generator`;
- section 5.2, the identity loss, `b -> B = b`, half of that weight: `identity` in `generator`;
- section 7.2: the generator with residual blocks, the 70x70 PatchGAN (`build_generator`, `build_discriminator`).

On one worker both generators are stepped together from one graph, then each discriminator, as published. Apart a
generator has the same gradient: each cycle passes it once, on the way there or back, and the other terms do not depend
on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

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
from modtrain.nets import adversarial_losses, cyclegan_project
from modtrain.nets.adversarial_losses import GanMode, judged, separately
from modtrain.nets.image_pool import ImagePool
from modtrain.nets.layers import in_batches, normal_initialised, pad_to_multiple, patchgan
from modtrain.nets.resnet_generator import ResnetGenerator
from modtrain.recipes.adam import AdamParams, adam
from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
from modtrain.recipes.fields import OPTIONS, Count, Positive, Share, Weight, linear_decay
from modtrain.recipes.formats import Format, WeightsFile
from modtrain.recipes.nets_view import Nets

Domain = Literal["a", "b"]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneratorParams(AdamParams):
    """Both generators and how they are trained."""

    width: Count = Field(default=16, description="channels of the first layer (64: the paper's size)")
    blocks: Count = Field(default=3, description="residual blocks (the paper's size: 9, or 6 up to 128 pixels)")
    lambda_cycle_a: Weight = Field(default=10.0, description="weight of the cycle A to B to A")
    lambda_cycle_b: Weight = Field(default=10.0, description="weight of the cycle B to A to B")
    lambda_identity: Weight = Field(default=0.5, description="weight of the identity loss, in units of the cycle's")
    opponents: Count = Field(default=4, description="newest discriminator versions whose verdicts are averaged")
    lr: Positive = Field(default=8e-4, description="learning rate of Adam (2e-4: the paper's, for many more steps)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiscriminatorParams(AdamParams):
    """Both discriminators and how they are trained."""

    width: Count = Field(default=16, description="channels of the first layer (64: the paper's size)")
    gan_mode: GanMode = Field(default="lsgan", description="lsgan, vanilla or hinge, for both sides")
    pool_size: Annotated[int, Field(ge=0)] = Field(
        default=50, description="earlier fakes that are kept; half of what is judged is one of them (0: none)"
    )
    lambda_r1: Weight = Field(
        default=0.0, description="weight of the gradient penalty on real images (the paper: none)"
    )
    lr: Positive = Field(default=8e-4, description="learning rate of Adam (2e-4: the paper's, for many more steps)")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(UnpairedParams):
    """All parameters. The defaults are those of the built-in demo."""

    direction: Literal["AtoB", "BtoA"] = Field(default="AtoB", description="what `apply` and the metrics translate")
    decay_from: Share = Field(
        default=0.5, description="share of the run after which the learning rates fall linearly to 0"
    )
    generator: GeneratorParams = GeneratorParams()
    discriminator: DiscriminatorParams = DiscriminatorParams()


def build_generator(params: Params) -> nn.Module:
    """Images (N, 3, H, W) in [-1, 1], edges a multiple of 4, to the same shape."""
    return normal_initialised(ResnetGenerator(params.generator.width, params.generator.blocks))


def build_discriminator(params: Params) -> nn.Module:
    """The 70x70 PatchGAN, `C64-C128-C256-C512`: images (N, 3, H, W) to logits of patches (N, 1, H/8-2, W/8-2)."""
    width = params.discriminator.width
    layers = ((width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1))
    return normal_initialised(patchgan(3, layers, affine=False))


def fake(nets: Nets, batch: Batch, source: Domain, target: Domain) -> Tensor:
    """The batch's images of `source` as images of `target`, computed once for all modules of a worker."""
    return nets.once(f"fake_{target}", lambda: generator(nets, source, target)(batch[source]))


def generator(nets: Nets, source: Domain, target: Domain) -> Callable[[Tensor], Tensor]:
    """The network that translates `source` to `target`."""
    return getattr(nets, f"generator_{source}{target}")  # type: ignore[no-any-return]


def cycle(nets: Nets, batch: Batch, source: Domain, target: Domain) -> Tensor:
    """The mean distance of the batch's images of `source` from themselves after there and back (equation 2)."""

    def compute() -> Tensor:
        return F.l1_loss(generator(nets, target, source)(fake(nets, batch, source, target)), batch[source])

    return nets.once(f"cycle_{source}", compute)


def weighted_cycle(nets: Nets, batch: Batch, params: Params, source: Domain, target: Domain) -> Tensor:
    """A cycle as a term of the loss, the same of both generators."""
    weight = cycle_weight(params, source)
    return nets.once(f"weighted_cycle_{source}", lambda: weight * cycle(nets, batch, source, target))


def cycle_weight(params: Params, source: Domain) -> float:
    """Weight of the cycle that begins in `source`."""
    return params.generator.lambda_cycle_a if source == "a" else params.generator.lambda_cycle_b


def generator_loss(nets: Nets, batch: Batch, params: Params, *, source: Domain, target: Domain) -> dict[str, Any]:
    """What the generator from `source` to `target` minimises: adversarial, both cycles through it, identity."""
    made, gan_mode = fake(nets, batch, source, target), params.discriminator.gan_mode
    adversarial = nets.average(
        f"discriminator_{target}", lambda judge: adversarial_losses.generator_loss(judge(made), gan_mode)
    )
    terms = [adversarial]
    parts = {"adversarial": adversarial}
    for start, middle in ((source, target), (target, source)):
        parts[f"cycle_{start}"] = cycle(nets, batch, start, middle)
        terms.append(weighted_cycle(nets, batch, params, start, middle))
    if params.generator.lambda_identity:
        parts["identity"] = F.l1_loss(generator(nets, source, target)(batch[target]), batch[target])
        terms.append(params.generator.lambda_identity * cycle_weight(params, target) * parts["identity"])
    return {"loss": tuple(terms)} | parts


def discriminator_loss(
    nets: Nets, batch: Batch, params: Params, *, source: Domain, target: Domain
) -> dict[str, Tensor]:
    """Images of `target` are real; translated ones of `source` are fake, half of them from the pool (section 4).

    With `lambda_r1` also R1 (Mescheder et al. 2018), which is not in the paper: it keeps a discriminator smooth.
    """
    judge, p = separately(getattr(nets, f"discriminator_{target}")), params.discriminator
    made = nets.memory.query(fake(nets, batch, source, target))
    return judged(judge, batch[target], made, p.gan_mode, lambda_r1=p.lambda_r1)


def schedule(progress: float, params: Params) -> float:
    """Factor on the learning rates: 1, from `decay_from` on linearly to 0 at the end (section 7.1)."""
    return linear_decay(progress, decay_from=params.decay_from)


def domains(params: Params) -> tuple[Domain, Domain]:
    """Source and target of `direction`."""
    return ("a", "b") if params.direction == "AtoB" else ("b", "a")


def translate(nets: Nets, images: Tensor, source: Domain, target: Domain) -> Tensor:
    """Images (N, 3, H, W) of any size from one domain to the other; the same shape."""
    height, width = images.shape[-2:]
    return generator(nets, source, target)(pad_to_multiple(images, 4))[..., :height, :width]


def apply(nets: Nets, images: Tensor, params: Params) -> Tensor:
    """Translate images (N, 3, H, W) in [-1, 1] of any size in the run's `direction`; the same shape."""
    return translate(nets, images, *domains(params))


def evaluate(nets: Nets, test: UnpairedTest | None, params: Params) -> Evaluation:
    """Held-out metrics (PSNR in dB, SSIM; means over images); grid rows: input, translation, cycle, truth."""
    if test is None:
        raise InputError("The data has no test images; add testA and testB to see how well it is translated.")
    source, target = domains(params)
    images, truth = (test.a, test.b) if source == "a" else (test.b, test.a)

    def through(images: Tensor, source: Domain, target: Domain) -> Tensor:
        return in_batches(lambda x: translate(nets, x, source, target), images, 2 * params.batch_size)

    translated, kept = through(images, source, target), through(truth, source, target)
    cycled = through(translated, target, source)
    metrics = {"cycle_psnr": psnr(cycled, images), "target_kept_psnr": psnr(kept, truth)}
    rows = {"input": images, "translation": translated, "cycle": cycled}
    if test.mask is None:
        return Evaluation(metrics=metrics, grid=sample_grid(rows))
    with_truth = translation_metrics(images, translated, truth, test.mask)
    return Evaluation(metrics=with_truth | metrics, grid=sample_grid(rows | {"truth": truth}))


def generator_module(source: Domain, target: Domain) -> Module:
    """The generator from `source` to `target`."""
    judges = Reads(f"discriminator_{target}", last=lambda params: params.generator.opponents)
    return Module(
        build=build_generator,
        loss=partial(generator_loss, source=source, target=target),
        optimizer=lambda parameters, params: adam(parameters, params.generator),
        schedule=schedule,
        reads=(f"generator_{target}{source}", judges),
    )


def discriminator_module(source: Domain, target: Domain) -> Module:
    """The discriminator of `target`; its fakes were translated from `source`."""
    return Module(
        build=build_discriminator,
        loss=partial(discriminator_loss, source=source, target=target),
        optimizer=lambda parameters, params: adam(parameters, params.discriminator),
        schedule=schedule,
        reads=(f"generator_{source}{target}",),
        memory=lambda params: ImagePool(params.discriminator.pool_size),
    )


def generator_file(letter: str) -> WeightsFile:
    """A generator in the files of the authors, where `A` translates A to B."""
    return WeightsFile(
        name=f"{{epoch}}_net_G_{letter}.pth",
        weights=cyclegan_project.resnet_generator_names,
        params=lambda tensors: {"generator": cyclegan_project.resnet_generator_size(tensors)},
        upgrade=cyclegan_project.without_statistics,
    )


def discriminator_file(letter: str) -> WeightsFile:
    """A discriminator in the files of the authors, where `A` judges images of B."""
    return WeightsFile(
        name=f"{{epoch}}_net_D_{letter}.pth",
        weights=cyclegan_project.patchgan_names,
        params=lambda tensors: {"discriminator": cyclegan_project.patchgan_size(tensors)},
        upgrade=cyclegan_project.without_statistics,
    )


authors_files = Format(
    files={
        "generator_ab": generator_file("A"),
        "generator_ba": generator_file("B"),
        "discriminator_b": discriminator_file("A"),
        "discriminator_a": discriminator_file("B"),
    }
)

recipe = Recipe(
    params=Params,
    data=unpaired_data,
    check_dataroot=unpaired_folders,
    modules={
        "generator_ab": generator_module("a", "b"),
        "generator_ba": generator_module("b", "a"),
        "discriminator_b": discriminator_module("a", "b"),
        "discriminator_a": discriminator_module("b", "a"),
    },
    together=(("generator_ab", "generator_ba"),),
    # In halves no adversarial game is played across workers.
    placement=(("generator_ab", "discriminator_b"), ("generator_ba", "discriminator_a")),
    apply=apply,
    evaluate=evaluate,
    formats={"cyclegan": authors_files},
    primary_metric="translation_psnr",
    epochs=10,
    max_staleness=0,
)
