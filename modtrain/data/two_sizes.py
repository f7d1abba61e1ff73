"""Images in two sizes, for a recipe that makes small ones and enlarges them: batches of both, and both to evaluate on.

The small ones are those of `labelled`. Large ones are the same images in a multiple of that size, which are loaded when
they are needed first: a worker that uses small images alone holds no large ones.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from PIL import Image
from torch import Tensor

from modtrain.data.base import Batch, Batches
from modtrain.data.crops import MAX_THREADS
from modtrain.data.decoding import Resize
from modtrain.data.fruits.orchard import orchard
from modtrain.data.images import Pictures, in_memory
from modtrain.data.labelled import LabelledTest
from modtrain.data.labelled_folders import image_splits
from modtrain.data.read_ahead import ReadAheadBatches
from modtrain.data.super_resolution import LargeCrops, Pixels
from modtrain.errors import InputError

ORCHARD_EACH = 125
"""Large pictures of each class of the built-in orchard."""
MOST_TESTED = 1000
"""Large images to evaluate on, at most; of more, every n-th one is taken."""


@dataclass(frozen=True, kw_only=True)
class TwoSizesTest(LabelledTest):
    """Large images to evaluate on, without labels."""

    small: LabelledTest
    """Those in the small size, of which there may be more."""


@dataclass(frozen=True, kw_only=True)
class JoinedBatches:
    """Batches that have what those of all parts have; the parts have different names, and equally many batches."""

    parts: tuple[Batches, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """As of `Batches`."""
        with ExitStack() as stack:
            epochs = [stack.enter_context(closing(part.epoch(epoch, seed=seed, start=start))) for part in self.parts]
            for batches in zip(*epochs, strict=True):
                yield {name: value for batch in batches for name, value in batch.items()}


@dataclass(frozen=True, kw_only=True)
class CropBatches:
    """So many batches an epoch of random crops `hr`, with their small versions `lr`, as of `LargeCrops`."""

    images: Callable[[], Pictures]
    """Loads the large images, at the beginning of an epoch."""
    batches: int
    batch_size: int
    crop_size: int
    scale: int
    flip: bool

    def __len__(self) -> int:
        return self.batches

    def epoch(self, epoch: int, *, seed: int, start: int = 0) -> Generator[Batch, None, None]:
        """As of `Batches`."""
        pictures = self.images()
        pile = LargeCrops(
            images=_RowsOfPixels(pictures),
            count=self.batches * self.batch_size,
            crop_size=self.crop_size,
            scale=self.scale,
            flip=self.flip,
        )
        threads = 1 if isinstance(pictures, Tensor) else min(MAX_THREADS, torch.get_num_threads())
        crops = ReadAheadBatches(piles=(pile,), batch_size=self.batch_size, threads=threads)
        return crops.epoch(epoch, seed=seed, start=start)


@dataclass(frozen=True)
class _RowsOfPixels:
    """Pictures as arrays (size, size, 3)."""

    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Pixels:
        return cast(Pixels, self.pictures[index].numpy().transpose(1, 2, 0))


def large_images(
    dataroot: Path | None,
    split: str,
    size: int,
    *,
    grey_range: tuple[float, float] | None = None,
    resize: Resize = "bicubic",
    most: int | None = None,
) -> Pictures:
    """The images of a split of `image_splits` or, without `dataroot`, of `orchard`: squares of this edge.

    `most`: of more images than these every n-th one is taken. InputError where an image is smaller.
    """
    if dataroot is None:
        pictures = orchard(size, cast(Literal["train", "test"], split), each=ORCHARD_EACH).images
        return pictures[:: -(-len(pictures) // most)] if most else pictures
    images = image_splits(dataroot)[split]
    if most:
        images = images.at_most(most)
    _refuse_smaller([source for source in images.sources if isinstance(source, Path)], size)
    return images.load(images.sources, size, grey_range, resize=resize)[0]


def with_large(small: LabelledTest, load: Callable[..., Pictures]) -> TwoSizesTest:
    """Small images to evaluate on, with large ones of the same split; `load` takes it, as `large_images`."""
    large = in_memory(load(small.split, most=MOST_TESTED))
    return TwoSizesTest(pixels=large, labels=None, split=small.split, small=small)


def loaded_with_large(
    load_small: Callable[[], LabelledTest] | None, load: Callable[..., Pictures]
) -> Callable[[], TwoSizesTest] | None:
    """How to load the images for validation in both sizes; None where there are none."""
    return None if load_small is None else lambda: with_large(load_small(), load)


def _refuse_smaller(files: list[Path], size: int) -> None:
    """A small image that is enlarged would teach that large ones are blurred."""
    smaller = [file for file in files if _edge(file) < size]
    if smaller:
        raise InputError(
            f"Images are smaller than {size} x {size} pixels: {len(smaller)} of {len(files)}, such as {smaller[0]}; "
            "give large images, or a smaller load_size."
        )


def _edge(file: Path) -> int:
    """The shorter edge, from the head of a file; that of one which cannot be read is left to the decoder."""
    try:
        with Image.open(file) as image:
            return min(image.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return 2**31
