"""The parameters of images with classes, which recipes that make images have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from modtrain.data.crops import check_sizes
from modtrain.data.decoding import Resize
from modtrain.data.folder_labels import label_numbers
from modtrain.data.fruits.orchard import CLASSES
from modtrain.data.grey_range import GreyRange
from modtrain.data.labelled import LabelledData, LabelledTest, labelled
from modtrain.data.labelled_folders import labelled_splits
from modtrain.errors import InputError, counted

LEAST_TESTED = 4
"""Test images: two halves of them are compared with each other, by distances of sets of at least two."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LabelledParams:
    """How images are read; the defaults are those of the built-in orchard. Derive a recipe's Params from it."""

    batch_size: Annotated[int, Field(ge=1)] = Field(default=64, description="images in a batch")
    load_size: int = Field(default=32, ge=16, description="images are resized to this edge, then cropped")
    crop_size: int = Field(default=32, ge=16, description="edge of a random crop, and of the images that are made")
    flip: bool = Field(default=True, description="mirror half of the training images left to right")
    resize: Resize = Field(default="bicubic", description="filter with which images are resized")
    grey_range: GreyRange | None = Field(default=None, description="black and white of 16-bit grey, such as 0,4095")

    def __post_init__(self) -> None:
        check_sizes(self.load_size, self.crop_size, self.batch_size)


def labelled_data(
    dataroot: Path | None, params: LabelledParams, *, check_classes: Callable[[int], object] = bool
) -> LabelledData:
    """A folder with `train/<class>/*` and `test/<class>/*`, IDX files, or the built-in orchard; labels are needed.

    `check_classes` as of `labelled`.
    """
    return _data(dataroot, params, needs_labels=True, check_classes=check_classes)


def image_data(dataroot: Path | None, params: LabelledParams) -> LabelledData:
    """As `labelled_data`, or a folder of images without labels; where there are labels, batches have them."""
    return _data(dataroot, params, needs_labels=False)


def class_names(dataroot: Path | None, params: LabelledParams) -> tuple[str, ...]:
    """The classes of `labelled_data` in the order of their labels, without decoding an image."""
    return CLASSES if dataroot is None else tuple(label_numbers(labelled_splits(dataroot)["train"].labels or ()))


def _data(dataroot: Path | None, p: LabelledParams, **options: Any) -> LabelledData:
    data = labelled(
        dataroot,
        load_size=p.load_size,
        crop_size=p.crop_size,
        batch_size=p.batch_size,
        flip=p.flip,
        grey_range=p.grey_range,
        resize=p.resize,
        **options,
    )
    if isinstance(data.test, LabelledTest) and len(data.test.pixels) < LEAST_TESTED:
        raise InputError(
            f"{data.test.split} has {counted(len(data.test.pixels), 'image')}; samples are compared with at least "
            f"{LEAST_TESTED}. Add images{'' if data.test.split == 'train' else ', or leave the folder out'}."
        )
    return data
