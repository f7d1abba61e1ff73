"""The networks of the CycleGAN and pix2pix project (github.com/junyanz/pytorch-CycleGAN-and-pix2pix) in its files.

Names of the weights in its state dicts, which all begin with `model.`, and the sizes that follow from their shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from modtrain.nets.resnet_generator import ResidualBlock, ResnetGenerator

_STATISTICS = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)")
_BLOCK = re.compile(r"model\.\d+\.conv_block\.1\.weight")


def resnet_generator_names(net: nn.Module) -> dict[str, str]:
    """Names in the files by the names of our `ResnetGenerator`; padding is a layer of its own there."""
    assert isinstance(net, ResnetGenerator)
    blocks = sum(isinstance(layer, ResidualBlock) for layer in net)
    layers = {"0": "1", "3": "4", "6": "7"}
    for number in range(blocks):
        block = f"{10 + number}.conv_block"
        layers |= {f"{9 + number}.branch.0": f"{block}.1", f"{9 + number}.branch.3": f"{block}.5"}
    ours, theirs = 9 + blocks, 10 + blocks
    layers |= {f"{ours}.0": f"{theirs}", f"{ours + 1}.0": f"{theirs + 3}", f"{ours + 2}": f"{theirs + 7}"}
    kinds = ("weight", "bias")
    return {f"{own}.{kind}": f"model.{layer}.{kind}" for own, layer in layers.items() for kind in kinds}


def patchgan_names(net: nn.Module) -> dict[str, str]:
    """Names in the files by the names of our `patchgan`, whose layers are the same."""
    return {name: f"model.{name}" for name in net.state_dict()}


def resnet_generator_size(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Width and number of blocks of the generator in a file, nothing where it is another network."""
    blocks = sum(_BLOCK.fullmatch(name) is not None for name in tensors)
    return {**_width(tensors, "model.1.weight"), "blocks": blocks} if blocks else {}


def patchgan_size(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Width of the discriminator in a file, nothing where it is another network."""
    return _width(tensors, "model.0.weight")


def _width(tensors: Mapping[str, Tensor], name: str) -> dict[str, int]:
    return {"width": tensors[name].shape[0]} if name in tensors and tensors[name].dim() == 4 else {}


def is_statistic(name: str) -> bool:
    """Whether a tensor is a running statistic, which older versions saved for instance normalisation as well."""
    return _STATISTICS.fullmatch(name) is not None
