"""Fashion-MNIST as a user trains on it: images of clothes that the built-in judge does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import start

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SMALL = ("--generator-width", 16, "--discriminator-width", 16, "--crop-size", 16, "--load-size", 16)


def printed(*words: object) -> str:
    command = start(*words)
    output, errors = command.communicate()
    assert command.returncode == 0, errors
    return output


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="the package dataset-fashion-mnist is not installed: make slow-packages"
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dcgan_makes_clothes_as_varied_as_the_real_ones_after_one_epoch(tmp_path: Path, seed: int) -> None:
    words = ("--recipe", "dcgan", "--dataroot", DEBIAN, *SMALL, "--generator-lr", 1e-3, "--epochs", 1, "--seed", seed)
    printed("launch", *words, "--name", "clothes", "--root", tmp_path, "--nodes", 1, "--backend", "local", "--cpus", 1)
    compared = ("evaluate", tmp_path / "clothes", "--metric", "swd", "--metric", "ms_ssim", "--samples", 2000, "--json")
    scored: dict[str, Any] = json.loads(printed(*compared))
    assert scored["reference"] == {"split": "test", "count": 10_000, "size": 16}
    assert scored["metrics"]["swd"] < 12 * scored["reals"]["swd"]
    assert abs(scored["metrics"]["ms_ssim"] - scored["reals"]["ms_ssim"]) < 0.05
