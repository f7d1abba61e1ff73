"""The networks of BigGAN in the files of two other projects: names of the weights, and the sizes that follow from them.

`authors`: github.com/ajbrock/BigGAN-PyTorch, whose spectral normalisation keeps one vector `u0` of each layer, and its
singular value `sv0`. `studio`: github.com/POSTECH-CVLab/PyTorch-StudioGAN, which has that of PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modtrain.nets.biggan import SMALLEST, discriminator_levels, generator_levels

STUDIO_EPS = 1e-4
"""Epsilon of batch normalisation in StudioGAN."""
_AUTHORS = (
    (r"parametrizations\.weight\.original$", "weight"),
    (r"parametrizations\.weight\.0\._([uv])$", r"\g<1>0"),
    (r"^blocks\.(\d+)", r"blocks.\1.0"),
    (r"^attention\.(\d+)", r"blocks.\1.1"),
    (r"\.norm(\d)\.norm\b", r".norm\1"),
    (r"\.norm(\d)\b", r".bn\1"),
    (r"^norm\.weight", "norm.gain"),
    (r"\brunning_", "stored_"),
    (r"\.skip\b", ".conv_sc"),
    (r"^(first|logit)\b", "linear"),
    (r"^embedding\b", "embed"),
    (r"^norm\b", "output_layer.0"),
    (r"^last\b", "output_layer.2"),
)
_STUDIO = (
    (r"parametrizations\.weight\.original$", "weight_orig"),
    (r"parametrizations\.weight\.0\._([uv])$", r"weight_\1"),
    (r"\.norm(\d)\.norm\b", r".bn\1.bn"),
    (r"\.norm(\d)\b", r".bn\1"),
    (r"\.conv(\d)\b", r".conv2d\1"),
    (r"\.skip\b", ".conv2d0"),
    (r"\.(theta|phi|g)\b", r".conv1x1_\1"),
    (r"\.o\b", ".conv1x1_attn"),
    (r"\.gamma$", ".sigma"),
    (r"^first\b", "linear0"),
    (r"^logit\b", "linear1"),
    (r"^norm\b", "bn4"),
    (r"^last\b", "conv2d5"),
)
"""By pattern in our names, applied one after the other; the numbers of StudioGAN's blocks count attention as well."""


def authors_names(net: nn.Module) -> dict[str, str]:
    """Names in the authors' files by our own; `v0` is our second vector, which they compute anew."""
    return {name: _translated(name, _AUTHORS) for name in net.state_dict()}


def studio_names(net: nn.Module) -> dict[str, str]:
    """Names in StudioGAN's files by our own."""
    attention = min((int(number) for number in net.get_submodule("attention")._modules), default=len(net.state_dict()))

    def numbered(name: str) -> str:
        kind, number, *rest = name.split(".")
        if kind not in ("blocks", "attention"):
            return name
        place = int(number) + (kind == "attention" or int(number) > attention)
        return ".".join(["blocks", str(place), "0", *rest])

    return {name: _translated(numbered(name), _STUDIO) for name in net.state_dict()}


def _translated(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def from_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file with both vectors of each layer, one power iteration after `u0`, as the authors use them.

    Statistics of their other kinds of batch normalisation get the names of the usual one.
    """
    renamed = {re.sub(r"\.bn\.(?:running|stored)_(mean|var)$", r".stored_\1", name): tensors[name] for name in tensors}
    dropped = (".sv0", ".accumulation_counter", ".num_batches_tracked")
    found = {name: value for name, value in renamed.items() if not name.endswith(dropped)}
    for name, value in list(found.items()):
        layer, _, last = name.rpartition(".")
        if last == "u0" and f"{layer}.weight" in found:
            weight = found[f"{layer}.weight"].flatten(1)
            v = F.normalize(value.flatten() @ weight, dim=0)
            found |= {f"{layer}.u0": F.normalize(weight @ v, dim=0), f"{layer}.v0": v}
        elif last == "stored_mean":
            found[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return found


def to_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round: the tensors as the authors keep them."""
    found = {name: value for name, value in tensors.items() if not name.endswith((".v0", ".num_batches_tracked"))}
    for name in [name for name in found if name.endswith(".u0")]:
        layer = name.removesuffix(".u0")
        u, v, weight = (tensors[f"{layer}.{each}"] for each in ("u0", "v0", "weight"))
        found |= {name: u[None], f"{layer}.sv0": (u @ weight.flatten(1) @ v)[None]}
    return found


def from_studio(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file with the gain of the attention as a scalar."""
    return {name: value.squeeze() if name.endswith(".sigma") else value for name, value in tensors.items()}


def to_studio(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round."""
    return {name: value.reshape(1) if name.endswith(".sigma") else value for name, value in tensors.items()}


def authors_params(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Parameters of the recipe that follow from a file of the authors, nothing where it is another network."""
    blocks, attention = (_numbers(tensors, rf"blocks\.(\d+)\.{each}\.weight") for each in ("0.conv1", "1.theta"))
    return _params(
        tensors, [f"blocks.{number}.0.conv1.weight" for number in blocks], attention, "linear.weight", "embed.weight"
    )


def studio_params(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The same of a file of StudioGAN."""
    blocks = _numbers(tensors, r"blocks\.(\d+)\.0\.conv2d1\.weight_orig")
    attention = [number - 1 for number in _numbers(tensors, r"blocks\.(\d+)\.0\.conv1x1_theta\.weight_orig")]
    layers = [f"blocks.{number}.0.conv2d1.weight_orig" for number in blocks]
    found = _params(tensors, layers, attention, "linear0.weight_orig", "embedding.weight_orig")
    return found | ({"generator": found["generator"] | {"norm_eps": STUDIO_EPS}} if "generator" in found else {})


def _numbers(tensors: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted(int(match[1]) for name in tensors if (match := re.fullmatch(pattern, name)))


def _params(
    tensors: Mapping[str, Tensor], layers: list[str], attention: list[int], first: str, embedding: str
) -> dict[str, Any]:
    """`layers` are the first convolutions of all blocks, `attention` the numbers of the blocks with attention."""
    is_generator = "shared.weight" in tensors
    known = {"shared.weight", first} if is_generator else {embedding}
    if len(layers) < (3 if is_generator else 4) or not known <= tensors.keys():
        return {}
    size = SMALLEST << len(layers) if is_generator else 2 << len(layers)
    levels = (generator_levels if is_generator else discriminator_levels)(1, size)
    shape = {"load_size": size, "crop_size": size, "attention": levels[attention[0]].edge if attention else 0}
    channels = [tensors[layer].shape[0] for layer in layers]
    if not is_generator:
        return shape | {
            "classes": len(tensors[embedding]),
            "discriminator": {"width": channels[0] // levels[0].outputs},
        }
    classes, shared_size = tensors["shared.weight"].shape
    noise_size = tensors[first].shape[1] * (len(layers) + 1)
    generator = {"width": channels[-1] // levels[-1].outputs, "shared_size": shared_size}
    return shape | {"classes": classes, "noise_size": noise_size, "generator": generator}
