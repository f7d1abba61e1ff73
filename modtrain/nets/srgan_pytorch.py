"""The generator of SRGAN-PyTorch (github.com/Lornatang/SRGAN-PyTorch, 2022 to 2023) in its files.

It is ours with batch normalisation and without a skip; its images are in [0, 1], and it clips its result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modtrain.errors import InputError

COMPILED = "_orig_mod."
"""With which the names begin in files of a compiled network."""
_PARTS = (
    (r"head\.", "conv1."),
    (r"blocks\.(\d+)\.branch\.", r"trunk.\1.rcb."),
    (r"tail\.", "conv2."),
    (r"upsampling\.(\d+)\.", r"upsampling.\1.upsample_block."),
    (r"out\.", "conv3."),
)


def names(net: nn.Module) -> dict[str, str]:
    """Names in the files by the names of our `SrResNet`."""
    return {name: _theirs(name) for name in net.state_dict()}


def params(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The parameters that follow from the generator in a file, nothing where it is another network."""
    tensors = without_prefix(tensors)
    if "conv1.0.weight" not in tensors:
        return {}
    width = tensors["conv1.0.weight"].shape[0]
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("trunk.")})
    shuffles = [
        value for name, value in tensors.items() if re.fullmatch(r"upsampling\.\d+\.upsample_block\.0\.weight", name)
    ]
    generator = {"width": width, "blocks": blocks, "norm": "batch", "skip": "none"}
    return {"generator": generator, "scale": math.prod(math.isqrt(value.shape[0] // width) for value in shuffles)}


def check(net: nn.Module) -> None:
    """InputError where the network is not theirs: its skip is in no tensor."""
    norm = "batch" if any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) else "none"
    skip = str(net.skip)
    if norm == "none" or skip != "none":
        raise InputError(
            f"The generator of SRGAN-PyTorch has norm = batch and skip = none, but this one has norm = {norm} and "
            f"skip = {skip}; take a run with generator.norm and generator.skip as there."
        )


def without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names of a network that was not compiled."""
    return {name.removeprefix(COMPILED): value for name, value in tensors.items()}


def _theirs(name: str) -> str:
    for ours, theirs in _PARTS:
        if re.match(ours, name):
            return re.sub(f"^{ours}", theirs, name)
    raise KeyError(name)
