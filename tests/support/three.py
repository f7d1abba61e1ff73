"""Recipes of three modules in a file of their own: the two of the tiny recipe, and one that reads no other."""

from __future__ import annotations

from pathlib import Path

TEXT = """
import dataclasses, importlib.util, sys
spec = importlib.util.spec_from_file_location("tiny_of_three", {tiny!r})
tiny = sys.modules["tiny_of_three"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

def third_loss(nets, batch, params):
    return {{"loss": nets.third(batch["real"]).square().mean()}}

third = dataclasses.replace(tiny.recipe.modules["discriminator"], loss=third_loss, reads=())
recipe = dataclasses.replace(tiny.recipe, modules={{"third": third, **tiny.recipe.modules}})
"""


def recipe_of_three(path: Path, tiny: Path) -> Path:
    """Write a recipe of three modules to `path`, on top of the tiny recipe or a copy of it."""
    path.write_text(TEXT.format(tiny=str(tiny)))
    return path
