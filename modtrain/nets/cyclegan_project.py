"""The networks of the CycleGAN and pix2pix project (github.com/junyanz/pytorch-CycleGAN-and-pix2pix) in its files.

Names of the weights in its state dicts, which all begin with `model.`, and the sizes that follow from their shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modtrain.nets.resnet_generator import ResidualBlock, ResnetGenerator

_STATISTICS = re.compile(r".*\.(running_mean|running_var|num_batches_tracked)")
_LEVEL = re.compile(r"model\.model\.1\.model(\.3\.model)*\.1\.weight")
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


def unet_names(net: nn.Module) -> dict[str, str]:
    """Names in the files by the names of our `UnetGenerator`, which are the same."""
    return {name: name for name in net.state_dict()}


def unet_size(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Width and number of levels of the U-Net in a file, nothing where it is another network."""
    inside = sum(_LEVEL.fullmatch(name) is not None for name in tensors)
    return {**_width(tensors, "model.model.0.weight"), "levels": 1 + inside} if inside else {}


def without_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without running statistics, which older versions saved for instance normalisation as well."""
    return {name: value for name, value in tensors.items() if not _STATISTICS.fullmatch(name)}


def with_counts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the counts of batch normalisation, which PyTorch did not save before 0.4.1."""
    means = (name for name in tensors if name.endswith(".running_mean"))
    return {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means} | dict(tensors)
