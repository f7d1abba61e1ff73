"""The recipes of the package in tests: their smallest sizes, and their losses on networks of a test, without a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import sum_of, terms_of
from modtrain.recipes.nets_view import Nets

GROWING: dict[str, Any] = {
    "noise_size": 6,
    "base": 16,
    "most": 6,
    "load_size": 16,
    "crop_size": 16,
    "batch_size": 8,
    "lengths": [1],
}
"""The sizes of progressive-gan, which progressive-srgan has as well."""

SMALL: dict[str, dict[str, Any]] = {
    "biggan": {"generator": {"width": 1, "shared_size": 4}, "discriminator": {"width": 1}, "batch_size": 8},
    "cyclegan": {"generator": {"width": 2, "blocks": 1}, "discriminator": {"width": 2}},
    "dcgan": {
        "generator": {"width": 4},
        "discriminator": {"width": 4},
        "statistics": {"width": 4},
        "noise_size": 6,
        "load_size": 16,
        "crop_size": 16,
        "batch_size": 8,
    },
    "latent-translation": {
        "encoder_decoder": {"width": 4},
        "translator": {"blocks": 1, "opponents": 2},
        "discriminator": {"width": 4},
    },
    "pix2pix": {
        "generator": {"width": 2, "levels": 3},
        "discriminator": {"width": 2},
        "recogniser": {"width": 2, "classes": 3},
    },
    "progressive-gan": GROWING,
    "progressive-srgan": {
        **GROWING,
        "enlarged": 16,
        "upscaling": {
            "generator": {"width": 2, "blocks": 1},
            "discriminator": {"width": 2},
            "crop_size": 16,
            "batch_size": 4,
            "scale": 2,
        },
    },
    "srgan": {
        "generator": {"width": 2, "blocks": 1},
        "discriminator": {"width": 2},
        "crop_size": 16,
        "crops": 8,
        "batch_size": 4,
        "built_in": "photographs",
    },
}
"""By recipe, parameters that make its networks small."""
TINY_IMAGES = {"load_size": 24, "crop_size": 24, "batch_size": 2}


def merged(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Parameters with others in their place; those of a module replace only the ones of the same name."""
    return values | {key: values.get(key, {}) | own if isinstance(own, dict) else own for key, own in more.items()}


@dataclass(frozen=True)
class Losses:
    """The losses of a recipe on networks that a test has."""

    recipe: Recipe

    def params_of(self, values: dict[str, Any], **more: Any) -> Any:
        """Parameters of the recipe, validated; `more` as in `merged`."""
        return TypeAdapter(self.recipe.params).validate_python(merged(values, **more))

    def built(self, params: Any) -> dict[str, nn.Module]:
        """The networks of every module, with the same weights at each call."""
        torch.manual_seed(0)
        return {name: module.build(params) for name, module in self.recipe.modules.items()}

    def nets_of(self, params: Any, live: dict[str, nn.Module], **versions: list[nn.Module]) -> Nets:
        """What a loss is given: one network of each module, or these versions, the newest first."""
        memories = {name: memory(params) for name in live if (memory := self.recipe.modules[name].memory)}
        reads = {name: self.recipe.reads([name], params) for name in live}
        return Nets({name: [net] for name, net in live.items()} | versions, reads, memories)

    def gradients_of(
        self, module: str, networks: dict[str, nn.Module], nets: Nets, batch: dict[str, Tensor], params: Any
    ) -> dict[str, Tensor]:
        """The losses of a module, whose gradient is computed as in a step of `networks`, which `nets` has live."""
        for name, net in networks.items():
            net.requires_grad_(name == module)
        nets.enter(module)
        made = dict(self.recipe.modules[module].loss(nets, batch, params))
        made["loss"].backward()
        return made

    def loss_of(self, module: str, nets: Nets, batch: dict[str, Tensor], params: Any) -> dict[str, float]:
        """The values that the loss of a module reports, and the sum of its terms as `loss`."""
        nets.enter(module)
        losses = self.recipe.modules[module].loss(nets, batch, params)
        return {name: float(value.detach()) for name, value in {**losses, "loss": sum_of(terms_of(losses))}.items()}
