"""The configurations of `jobs/`: each is read, fits its recipe, and really trains at its full size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from modtrain.cli import app
from modtrain.config import load_recipe, new_spec, read_config
from modtrain.params import as_values, flatten, parameters
from modtrain.placement import place
from modtrain.run import Run

JOBS = Path(__file__).parents[1] / "jobs"
CONFIGS = sorted(JOBS.glob("*.yaml"))


def modtrain(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modtrain", *map(str, arguments)]
    path = os.pathsep.join(filter(None, (str(JOBS.parent), os.environ.get("PYTHONPATH"))))
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})


@pytest.fixture(scope="session")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs' worth of noise for training in each domain, and one to test on, larger than the crop."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for folder, count in {"trainA": 2, "trainB": 2, "testA": 1, "testB": 1}.items():
        (root / folder).mkdir()
        for number in range(count):
            Image.fromarray(rng.integers(256, size=(300, 320, 3), dtype=np.uint8)).save(root / folder / f"{number}.png")
    return root


def at_full_size(params: dict[str, Any]) -> bool:
    sizes = params["crop_size"], params["encoder_decoder"]["width"], params["translator"]["blocks"]
    return (*sizes, params["discriminator"]["width"]) == (256, 64, 9, 256)


def test_there_are_configurations_and_they_are_all_of_the_folder_but_its_pictures() -> None:
    assert {path.suffix for path in JOBS.iterdir()} <= {".yaml", ".png"}
    assert any(path.name == "latent-translation-256.yaml" for path in CONFIGS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_is_read_and_fits_its_recipe(path: Path) -> None:
    config = read_config(path, {}, [])
    recipe = load_recipe(config.recipe)
    spec = new_spec(config, recipe, place(list(recipe.modules), config.nodes or len(recipe.modules), {}))
    assert set(flatten(config.params)) <= {parameter.name for parameter in parameters(recipe.params)}
    assert spec.params == as_values(recipe.params(**spec.params))
    assert at_full_size(spec.params)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_command_in_its_first_lines_would_be_accepted(path: Path, dataroot: Path, tmp_path: Path) -> None:
    (command,) = [line for line in path.read_text().splitlines() if line.startswith("#     modtrain ")]
    verb, named, *options = command.replace("~/data/apple2orange", str(dataroot)).split()[2:]
    assert JOBS.parent / named == path
    said = CliRunner().invoke(app, [verb, str(path), *options, "--root", str(tmp_path), "--dry-run"])
    assert said.exit_code == 0, said.output + repr(said.exception)
    assert not any(tmp_path.iterdir())


@pytest.mark.timeout(900)  # about 30 s of CPU time, and the cores may be busy
def test_the_full_size_trains_every_module(dataroot: Path, tmp_path: Path) -> None:
    """Two real steps, jointly: the first is the encoder-decoder's head start, in the second all three train."""
    config = JOBS / "latent-translation-256.yaml"
    options = ("--nodes", "1", "--backend", "local", "--device", "cpu", "--epochs", "1", "--name", "full")
    done = modtrain("launch", config, *options, "--dataroot", dataroot, "--root", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run.open(tmp_path / "full")
    assert at_full_size(run.spec.params)
    for module in run.modules:
        store = run.store(module)
        first, *_, last = (store.meta(version) for version in store.versions())
        assert (first.step, last.step, last.final) == (0, 2, True)
        assert first.files["weights.safetensors"]["sha256"] != last.files["weights.safetensors"]["sha256"]
    state = json.loads(modtrain("status", run.path, "--json").stdout)
    assert state["state"] == "finished"
    assert all(module["metrics"]["loss"] > 0 for module in state["modules"].values())
