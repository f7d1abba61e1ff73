"""The data sets of the CycleGAN and pix2pix project are trained on as they are downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modtrain.recipes.loading import data_of, load_recipe, params_of
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.run import Run
from modtrain.training.recipe_check.check import check_recipe
from modtrain.training.step_costs import step_costs
from tests.support.command import typed

NETS = {"generator": {"width": 2}, "discriminator": {"width": 2}}
UNPAIRED = {"load_size": 24, "crop_size": 24, "batch_size": 2, **NETS, "generator": {"width": 2, "blocks": 1}}
PAIRED = {"load_size": 28, "crop_size": 24, "batch_size": 2, **NETS}
PAIRED["generator"] = {"width": 2, "levels": 3, "lambda_recognition": 0}


def downloaded(root: Path, counts: Mapping[str, int], size: tuple[int, int]) -> Path:
    """A data set with so many images in each folder, all of one size."""
    rng = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (4, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size).save(root / folder / f"{number + 1}.jpg")
    return root


@pytest.mark.parametrize(
    ("recipe", "counts", "size", "params", "description"),
    [
        (
            "cyclegan",
            {"trainA": 4, "trainB": 7, "testA": 3, "testB": 2},
            (64, 64),
            UNPAIRED,
            "horse2zebra 24x24: 4 A and 7 B for training, 3 A and 2 B for testing",
        ),
        (
            "pix2pix",
            {"train": 5, "val": 2, "test": 3},
            (128, 64),
            PAIRED,
            "facades 24x24: 5 pairs for training, 3 for testing",
        ),
        ("pix2pix", {"train": 5, "val": 2}, (150, 75), PAIRED, "maps 24x24: 5 pairs for training, 2 for testing"),
    ],
)
def test_the_folders_of_the_projects_data_sets_are_read_in_both_directions(
    recipe: str,
    counts: Mapping[str, int],
    size: tuple[int, int],
    params: dict[str, Any],
    description: str,
    tmp_path: Path,
) -> None:
    loaded, root = load_recipe(recipe), downloaded(tmp_path / description.partition(" ")[0], counts, size)
    for direction in ("AtoB", "BtoA"):
        config = Config(recipe=recipe, dataroot=root, params=params | {"direction": direction})
        spec = new_spec(config, loaded, [loaded.trained])
        assert data_of(spec, loaded, params_of(spec, loaded)).description.endswith(description)


def test_pairs_without_labels_are_trained_on_and_evaluated_without_the_recogniser(tmp_path: Path) -> None:
    loaded, root = load_recipe("pix2pix"), downloaded(tmp_path / "facades", {"train": 2, "test": 1}, (128, 64))
    config = Config(recipe="pix2pix", dataroot=root, params=PAIRED | {"direction": "BtoA"})
    spec = new_spec(config, loaded, [loaded.trained])
    findings = check_recipe(spec, lambda findings: None)
    assert (findings.violations, findings.metrics) == ([], ["psnr", "copy_psnr", "mean_psnr", "ssim"])
    costs = step_costs(Run(tmp_path, spec), loaded)
    assert costs["recogniser"] == 0 < costs["generator"]


def test_the_data_of_the_other_kind_is_refused_with_the_recipe_that_takes_it(tmp_path: Path) -> None:
    pairs = downloaded(tmp_path / "maps", {"train": 1, "val": 1}, (16, 8))
    apart = downloaded(tmp_path / "horses", {"trainA": 1, "trainB": 1}, (8, 8))
    refused = typed("check", "cyclegan", "--dataroot", pairs, "--direction", "BtoA")
    assert "no folder trainA (a folder train is that of a paired data set, for the recipe pix2pix)" in refused.out
    refused = typed("check", "pix2pix", "--dataroot", apart, "--direction", "BtoA")
    assert "trainA and trainB hold unpaired images, for the recipe cyclegan" in refused.out


def test_the_check_takes_parameters_as_options(tmp_path: Path) -> None:
    refused = typed("check", "cyclegan", "--direktion", "BtoA")
    assert "There is no option --direktion, and the recipe has no parameter of that name. Did you mean" in refused.out
