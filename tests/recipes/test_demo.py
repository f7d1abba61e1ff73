"""The built-in demo as a user starts it: apples become oranges, backgrounds stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import start


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_workers_turn_apples_into_oranges_and_leave_the_background(tmp_path: Path, seed: int) -> None:
    launched = start("launch", "--nodes", 3, "--seed", seed, "--name", "demo", "--root", tmp_path)
    _, errors = launched.communicate()
    assert launched.returncode == 0, errors
    judged = start("evaluate", tmp_path / "demo", "--json")
    metrics = json.loads(judged.communicate()[0])["metrics"]
    assert metrics["translation_psnr"] > metrics["untouched_psnr"] + 4.8
    assert metrics["background_psnr"] > 22.1
    assert metrics["target_kept_psnr"] > 23.6


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_three_workers_give_thermal_pictures_the_colours_of_their_cultivars(tmp_path: Path) -> None:
    words = ("--recipe", "pix2pix", "--nodes", 3, "--seed", 0, "--name", "demo", "--root", tmp_path)
    launched = start("launch", *words, "--backend", "local", "--evaluate-every", 0)
    _, errors = launched.communicate()
    assert launched.returncode == 0, errors
    metrics = json.loads((tmp_path / "demo" / "evaluation" / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
    assert metrics["psnr"] > metrics["copy_psnr"] + 6
    assert metrics["psnr"] > metrics["mean_psnr"] + 2
    assert metrics["identity_accuracy_judge"] > 0.5
