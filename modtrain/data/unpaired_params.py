"""The parameters of unpaired data, which recipes that translate between two domains have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from modtrain.data.base import Data
from modtrain.data.crops import check_sizes
from modtrain.data.decoding import Resize
from modtrain.data.grey_range import GreyRange
from modtrain.data.unpaired import unpaired


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UnpairedParams:
    """How images are read; the defaults are those of the built-in fruits. Derive a recipe's Params from it."""

    batch_size: Annotated[int, Field(ge=1)] = Field(default=8, description="images of each domain in a batch")
    load_size: int = Field(default=48, ge=24, description="images are resized to this edge, then cropped")
    crop_size: int = Field(default=48, ge=24, multiple_of=4, description="edge of a random crop, a multiple of 4")
    flip: bool = Field(default=True, description="mirror half of the training images left to right")
    resize: Resize = Field(default="bicubic", description="filter with which images are resized")
    grey_range: GreyRange | None = Field(default=None, description="black and white of 16-bit grey, such as 0,4095")

    def __post_init__(self) -> None:
        check_sizes(self.load_size, self.crop_size, self.batch_size)


def unpaired_data(dataroot: Path | None, params: UnpairedParams) -> Data:
    """A folder with `trainA trainB testA testB`, or the built-in apples and oranges."""
    return unpaired(
        dataroot,
        load_size=params.load_size,
        crop_size=params.crop_size,
        batch_size=params.batch_size,
        flip=params.flip,
        grey_range=params.grey_range,
        resize=params.resize,
    )
