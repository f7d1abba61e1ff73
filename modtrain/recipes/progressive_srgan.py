"""The pipeline of "Time Efficient Training of Progressive Generative Adversarial Network using Depthwise Separable
Convolution and Super Resolution Generative Adversarial Network" (Karwande, Kulkarni, Kolhe, Joshi and Kamble).

A progressive GAN makes small images and an SRGAN enlarges them, which saves the sizes between: 64 -> 256 pixels in the
paper. Both are the other two recipes, `progressive_gan.py` and `srgan.py`, in one run. Neither reads the other one, so
that they are trained at the same time, on four workers of which each waits for its own opponent at most. Sections:

- IV, `generator` and `discriminator`, which grow;
- V, `upscaler`, `upscaler_discriminator` and the fixed `features`, trained on crops of the same images in large;
- VI and table 2, `evaluate`: the samples in both sizes, with real images and bicubic interpolation beside.

The paper does not say on what the SRGAN was trained ("we are upscaling the image by 4x without training"). Here it is
trained on real images, made small by bicubic downsampling; samples differ from these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from modtrain.data.base import Data
from modtrain.data.images import as_float
from modtrain.data.labelled_folders import image_splits
from modtrain.data.super_resolution import SuperResolutionTest, downsampled
from modtrain.data.two_sizes import (
    CropBatches,
    JoinedBatches,
    TwoSizesTest,
    large_images,
    loaded_with_large,
    with_large,
)
from modtrain.errors import InputError
from modtrain.metrics.distribution import class_score
from modtrain.metrics.features import extractor
from modtrain.metrics.judged_samples import real_images
from modtrain.metrics.sample_grid import sample_grid, to_uint8
from modtrain.metrics.super_resolution import BICUBIC
from modtrain.nets.layers import in_batches
from modtrain.nets.srresnet import bicubic
from modtrain.recipes import progressive_gan, srgan
from modtrain.recipes.base import Evaluation, Recipe
from modtrain.recipes.fields import OPTIONS
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.part import Part
from modtrain.recipes.part_modules import formats_of, modules_of
from modtrain.recipes.sampling import Sampling
from modtrain.recipes.stages import Stage

GROWING = tuple(progressive_gan.recipe.modules)
UPSCALING = {"generator": "upscaler", "discriminator": "upscaler_discriminator"}
PARTS = {"progressive-gan": Part(), "srgan": Part(names=UPSCALING, group="upscaling")}
"""What the modules and the parameters of both recipes are called here."""
UPSCALED, REALS = "upscaled", "reals"
"""What precedes the name of a metric of enlarged samples, and what follows one of real images."""
AT_ONCE, SHOWN, MOST_RESTORED = 16, 8, 64
"""Images that are enlarged in one call, those of a row of the grid, and real ones that are enlarged to evaluate."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Params(progressive_gan.Params):
    """All parameters: those of the growing part, and in the group `upscaling` those of the other one.

    Large images have `load_size` times `upscaling.scale` pixels.
    """

    upscaling: srgan.UpscalingParams = srgan.UpscalingParams()
    enlarged: int = Field(default=200, ge=2, le=1000, description="samples that an evaluation enlarges and measures")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.upscaling.crop_size > self.large_size:
            raise ValueError(
                f"upscaling.crop_size = {self.upscaling.crop_size} is larger than the large images, which have "
                f"{self.large_size} pixels: load_size times upscaling.scale"
            )

    @property
    def large_size(self) -> int:
        """Edge of the large images."""
        return self.load_size * self.upscaling.scale


def stages(params: Params) -> list[Stage]:
    """The sizes in turn, as in progressive-gan; the second stage of srgan begins with one of them.

    That is the one that begins next to `upscaling.pretraining` of the epochs. The rates of srgan fall by the share of
    the steps that are done, so that each stage has the share at which it begins as `upscaling.pretraining`.
    """
    growing, upscaling = progressive_gan.stages(params), srgan.stages(params.upscaling)
    first = _first_of_gan(growing, params) if len(upscaling) > 1 else 0
    steps = [stage.epochs / stage.params(params).batch_size for stage in growing]
    share = sum(steps[:first]) / sum(steps) if len(upscaling) > 1 else params.upscaling.pretraining
    return [
        _both(stage, upscaling[0] if number < first else upscaling[-1], share, begins=number == first)
        for number, stage in enumerate(growing)
    ]


def _first_of_gan(growing: Sequence[Stage], params: Params) -> int:
    share = params.upscaling.pretraining
    if len(growing) == 1:
        raise InputError(
            f"upscaling.pretraining = {share:g} is not allowed where size = {params.size} is the only one, since the "
            "upscaler changes its stage with the size. Give 0 or 1, or a smaller size."
        )
    ends = list(accumulate(stage.epochs for stage in growing))
    return min(range(1, len(growing)), key=lambda number: abs(ends[number - 1] / ends[-1] - share))


def _both(growing: Stage, upscaling: Stage, share: float, *, begins: bool) -> Stage:
    """A stage of the growing part during one of the other, whose optimizers go on unless that one `begins`."""

    def params(p: Params) -> Params:
        own = replace(upscaling.params(p.upscaling), pretraining=share)
        return replace(growing.params(p), upscaling=own)  # type: ignore[no-any-return]

    names = [UPSCALING[name] for name in upscaling.trains or UPSCALING]
    fresh = names if begins and upscaling.fresh_optimizers else []
    return replace(growing, params=params, trains=(*GROWING, *names), fresh_optimizers=(*GROWING, *fresh))


def data(dataroot: Path | None, params: Params) -> Data:
    """Images of a stage's size for the growing part, and crops of the large ones for the other.

    A folder is that of progressive-gan, with large images. A worker with one of the parts gets its images alone.
    """
    small = progressive_gan.data(dataroot, params)
    load = partial(large_images, dataroot, size=params.large_size, grey_range=params.grey_range, resize=params.resize)
    images = cache(partial(load, "train"))

    def at(p: Params) -> Data:
        if _read(p) != _read(params):
            return data(dataroot, p)
        growing = (small.at(p) if small.at else small).train
        crops = CropBatches(
            images=images,
            batches=len(growing),
            batch_size=p.upscaling.batch_size,
            crop_size=p.upscaling.crop_size,
            scale=p.upscaling.scale,
            flip=p.flip,
        )

        def train_of(modules: Collection[str]) -> JoinedBatches:
            is_growing = not set(GROWING).isdisjoint(modules)
            is_upscaling = not set(UPSCALING.values()).isdisjoint(modules)
            return JoinedBatches(parts=(growing,) * is_growing + (crops,) * is_upscaling)

        return replace(read, train=JoinedBatches(parts=(growing, crops)), train_of=train_of, at=at)

    read = Data(
        train=small.train,
        test=with_large(small.test, load),
        valid=loaded_with_large(small.valid, load),
        description=f"{small.description}, enlarged to {params.crop_size * params.upscaling.scale}",
    )
    return at(params)


def _read(params: Params) -> list[object]:
    """The parameters on which it depends what is read."""
    return [params.large_size, *(getattr(params, field.name) for field in progressive_gan.READ)]


def small_samples(nets: Nets, noise: Tensor, params: Params) -> Tensor:
    """Images of noise, in 8 bits as a file has them, uint8 (N, 3, size, size)."""
    return to_uint8(progressive_gan.generate(nets, noise, None, params))


def upscale(nets: Nets, images: Tensor, params: Params) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1], of any size, enlarged."""
    return srgan.apply(nets.renamed(UPSCALING), images, params.upscaling)


def generate(nets: Nets, noise: Tensor, labels: Tensor | None, params: Params) -> Tensor:
    """Images of noise (N, noise_size), enlarged: what `modtrain apply` makes of the files of progressive-gan."""
    small = as_float(small_samples(nets, noise, params))
    return in_batches(lambda images: upscale(nets, images, params), small, AT_ONCE)


def evaluate(nets: Nets, test: TwoSizesTest, params: Params) -> Evaluation:
    """Table 2: samples against real images in the small size, and enlarged ones against real ones in the large size.

    `upscaled_` are those that the upscaler has enlarged, `bicubic_` the same samples by bicubic interpolation; `_reals`
    is of real images. Also how well it restores real images, as of srgan.
    """
    real, large = real_images(test.small), _some(test.pixels, params.enlarged)
    made = progressive_gan.samples(nets, len(real), params, real.device)
    metrics = progressive_gan.sample_metrics(made, real) | _class_score(real)
    small = as_float(to_uint8(_some(made, len(large))))
    ways = {UPSCALED: partial(upscale, nets, params=params), BICUBIC: partial(bicubic, scale=params.upscaling.scale)}
    rows = {"samples": to_uint8(small)}
    for kind, enlarge in ways.items():
        rows[kind] = _in_8_bits(enlarge, small)
        scores = progressive_gan.compared(progressive_gan.enlarged(rows[kind], large.shape[-1]), large)
        own = {name: value for name, value in scores.items() if kind == UPSCALED or not name.endswith(REALS)}
        metrics |= {f"{kind}_{name}": value for name, value in own.items()}
    metrics |= {f"{UPSCALED}_{name}": value for name, value in _class_score(large).items()}
    return Evaluation(metrics=metrics | _restored(nets, test, params), grid=_grid({**rows, "real": large}))


def _in_8_bits(enlarge: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Enlarged images as uint8, made a few at a time."""
    return in_batches(lambda part: to_uint8(enlarge(part)), images, AT_ONCE)


def _some(images: Tensor, count: int) -> Tensor:
    """So many of the images, spread evenly, since they may be in the order of their classes; all if there are less."""
    return images[torch.arange(min(count, len(images))) * len(images) // min(count, len(images))]


def _class_score(real: Tensor) -> dict[str, float]:
    judge = extractor("orchard", device=str(real.device))
    return {f"class_score_{judge.name}_{REALS}": class_score(judge.extract_cached(real).logits)}


def _restored(nets: Nets, test: TwoSizesTest, params: Params) -> dict[str, float]:
    """What srgan measures of some real images, made small and enlarged again; without SWD, which samples have."""
    large = list(_some(test.pixels, MOST_RESTORED)[:, None])
    small = [downsampled(image[0].permute(1, 2, 0).cpu().numpy(), params.upscaling.scale) for image in large]
    given = [torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].to(test.pixels.device) for pixels in small]
    pairs = SuperResolutionTest(pixels=tuple(large), small=tuple(given))
    metrics = srgan.evaluate(nets.renamed(UPSCALING), pairs, params.upscaling).metrics
    return {name: value for name, value in metrics.items() if not name.endswith("swd")}


def _grid(rows: Mapping[str, Tensor]) -> Tensor:
    """Some images of each row, uint8, all in the size of the largest ones."""
    edge = max(images.shape[-1] for images in rows.values())
    shown = {name: progressive_gan.enlarged(_some(images, SHOWN), edge) for name, images in rows.items()}
    return sample_grid({name: as_float(images) for name, images in shown.items()})


LOWER_IS_BETTER = progressive_gan.recipe.lower_is_better

recipe = Recipe(
    params=Params,
    data=data,
    check_dataroot=image_splits,
    stages=stages,
    modules={
        **progressive_gan.recipe.modules,
        **modules_of(srgan.recipe, PARTS["srgan"]),
    },
    parts=PARTS,
    formats=formats_of(srgan.recipe, PARTS["srgan"]),
    apply=upscale,
    sample=Sampling(generate=generate, noise_size=lambda params: params.noise_size),
    evaluate=evaluate,
    primary_metric=f"{UPSCALED}_swd",
    lower_is_better=tuple(
        dict.fromkeys(
            [*LOWER_IS_BETTER, *srgan.recipe.lower_is_better]
            + [f"{kind}_{name}" for kind in (UPSCALED, BICUBIC) for name in LOWER_IS_BETTER if "stage" not in name]
        )
    ),
    epochs=progressive_gan.recipe.epochs,
    exchange_every=progressive_gan.recipe.exchange_every,
    max_staleness=progressive_gan.recipe.max_staleness,
)
