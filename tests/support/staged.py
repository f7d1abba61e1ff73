"""A recipe of two stages in a file of its own: a recogniser is trained first, then the modules of the tiny recipe."""

from __future__ import annotations

from pathlib import Path

TEXT = """
import dataclasses, importlib.util, sys
import torch
from modtrain import Stage
spec = importlib.util.spec_from_file_location("tiny_of_stages", {tiny!r})
tiny = sys.modules["tiny_of_stages"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

def recogniser_loss(nets, batch, params):
    loss = nets.recogniser(batch["real"]).square().mean()
    return {{"loss": loss, "stage_progress": torch.tensor(nets.stage_progress)}}

def generator_loss(nets, batch, params):
    loss = tiny.generator_loss(nets, batch, params)["loss"] + nets.recogniser(tiny.fakes(nets)).square().mean()
    return {{"loss": loss, "stage_progress": torch.tensor(nets.stage_progress), nets.stage: torch.tensor(1.0)}}

two = tiny.recipe.modules
modules = {{
    "recogniser": dataclasses.replace(two["discriminator"], loss=recogniser_loss, reads=()),
    "generator": dataclasses.replace(two["generator"], loss=generator_loss, reads=("discriminator", "recogniser")),
    "discriminator": two["discriminator"],
}}

def stages(params):
    first = lambda params: dataclasses.replace(params, batches=params.batches + 1, lr=0.1)
    return [
        Stage("recognise", 1, params=first, trains=("recogniser",)),
        Stage("translate", 2, trains=("generator", "discriminator")),
    ]

recipe = dataclasses.replace(tiny.recipe, modules=modules, stages=stages)
"""


def staged_recipe(path: Path, tiny: Path) -> Path:
    """Write the recipe to `path`, on top of the tiny recipe or a copy of it."""
    path.write_text(TEXT.format(tiny=str(tiny)))
    return path
