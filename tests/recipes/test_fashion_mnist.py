"""Fashion-MNIST as a user trains on it: images of clothes that the built-in judge does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modtrain import load
from modtrain.data.idx import idx_images, idx_labels, load_grey
from modtrain.data.images import as_float
from tests.support.command import start

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
DCGAN = ("--generator-width", 16, "--discriminator-width", 16, "--crop-size", 16, "--load-size", 16)
BIGGAN = ("--generator-width", 4, "--discriminator-width", 4, "--classes", 10)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed: make slow-packages"
    ),
    pytest.mark.parametrize("seed", [0, 1, 2]),
]


def printed(*words: object) -> str:
    command = start(*words)
    output, errors = command.communicate()
    assert command.returncode == 0, errors
    return output


def trained(run: Path, *words: object) -> dict[str, Any]:
    """Train for one epoch, and compare 2,000 samples with test images."""
    place = ("--name", run.name, "--root", run.parent, "--nodes", 1, "--backend", "local", "--cpus", 1)
    printed("launch", *words, "--dataroot", DEBIAN, "--epochs", 1, *place)
    compared = ("evaluate", run, "--metric", "swd", "--metric", "ms_ssim", "--samples", 2000, "--json")
    scored: dict[str, Any] = json.loads(printed(*compared))
    return scored


def nearest_classes(run: Path) -> list[int]:
    """Of each class the one to whose mean test image, as often mirrored, the mean of its samples is nearest."""
    images, labels = idx_images(DEBIAN, "test"), idx_labels(DEBIAN, "test")
    assert images is not None
    assert labels is not None
    real, of = as_float(load_grey(images, 32)), torch.tensor([*map(int, labels)])
    means = torch.stack([(real + real.flip(-1))[of == label].mean(0).flatten() / 2 for label in range(10)])
    samples = load(run, device="cpu").sample(1000).reshape(100, 10, -1)  # each class in turn
    return torch.cdist(samples.mean(0), means).argmin(1).tolist()


def test_dcgan_makes_clothes_as_varied_as_the_real_ones_after_one_epoch(tmp_path: Path, seed: int) -> None:
    scored = trained(tmp_path / "clothes", "--recipe", "dcgan", *DCGAN, "--generator-lr", 1e-3, "--seed", seed)
    assert scored["reference"] == {"split": "test", "count": 10_000, "size": 16}
    assert scored["metrics"]["swd"] < 12 * scored["reals"]["swd"]
    assert abs(scored["metrics"]["ms_ssim"] - scored["reals"]["ms_ssim"]) < 0.05


def test_biggan_makes_clothes_of_the_class_that_is_asked_for_after_one_epoch(tmp_path: Path, seed: int) -> None:
    run = tmp_path / "clothes"
    scored = trained(run, "--recipe", "biggan", *BIGGAN, "--seed", seed)
    assert scored["reference"] == {"split": "test", "count": 10_000, "size": 32}
    assert scored["metrics"]["swd"] < 12 * scored["reals"]["swd"]
    nearest = nearest_classes(run)
    assert sum(found == label for label, found in enumerate(nearest)) >= 4, nearest  # by chance it is 1
