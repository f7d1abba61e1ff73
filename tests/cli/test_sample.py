"""`sample`: images from noise as files, as one picture and as a walk, of any class, version and truncation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import modtrain
from modtrain.errors import InputError
from modtrain.storage.run import Run
from modtrain.training.inference.image_files import sample_paths
from tests.support import SUPPORT, runs
from tests.support.command import Terminal

COLOURS = SUPPORT / "colours.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with versions 0, 1 and 2."""
    made = runs.make_run(tmp_path_factory.mktemp("sample") / "colours", COLOURS, [["painter"]])
    runs.finish(made)
    return made


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a recipe that needs an input image."""
    made = runs.make_run(
        tmp_path_factory.mktemp("sample") / "painted", SUPPORT / "painting.py", [["painter", "critic"]]
    )
    runs.finish(made)
    return made


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def test_each_class_in_turn_gets_a_folder_that_a_data_set_could_be(run: Run, tmp_path: Path, type_: Terminal) -> None:
    result = type_("sample", run.path, "-n", 5, "--out", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("5 images in ")
    expected = ["apple/00000.png", "apple/00003.png", "pear/00001.png", "pear/00004.png", "plum/00002.png"]
    assert files(tmp_path / "out") == expected
    assert pixels(tmp_path / "out/pear/00004.png").shape == (8, 8, 3)
    assert {int(pixels(tmp_path / "out" / file)[0, 0, 0]) // 32 for file in expected} == {4, 5, 6}


def test_one_class_is_named_and_a_sample_depends_on_the_seed_and_its_number_alone(
    run: Run, tmp_path: Path, type_: Terminal
) -> None:
    given = ("sample", run.path, "--class", "pear")
    type_(*given, "-n", 3, "--out", tmp_path / "few")
    type_(*given, "-n", 70, "--out", tmp_path / "many")
    type_(*given, "-n", 3, "--seed", 1, "--out", tmp_path / "other")
    assert files(tmp_path / "few") == [f"pear/0000{number}.png" for number in range(3)]
    for file in files(tmp_path / "few"):
        assert np.abs(pixels(tmp_path / "few" / file).astype(int) - pixels(tmp_path / "many" / file)).max() <= 2
        assert (pixels(tmp_path / "few" / file) != pixels(tmp_path / "other" / file)).any()


@pytest.mark.parametrize(
    ("options", "name", "size", "frames"),
    [
        (["-n", 10, "--grid"], "grid.png", (390, 292), 1),
        (["-n", 3, "--walk", "--steps", 4], "walk.gif", (96, 96), 12),
        (["-n", 3, "--walk", "--grid", "--steps", 4], "walk.png", (390, 194), 1),
    ],
)
def test_a_grid_and_a_walk_are_one_file(
    run: Run, tmp_path: Path, type_: Terminal, options: list[object], name: str, size: tuple[int, int], frames: int
) -> None:
    result = type_("sample", run.path, *options, "--out", tmp_path)
    assert (result.code, files(tmp_path)) == (0, [name])
    assert result.out.endswith(f"{name}\n")
    with Image.open(tmp_path / name) as image:
        assert (image.size, getattr(image, "n_frames", 1)) == (size, frames)


def test_json_names_the_versions_and_the_files(run: Run, type_: Terminal) -> None:
    given = ("sample", run.path, "-n", 1, "--truncation", 0.5, "--truncate", "scale", "--seed", 3, "--json")
    newest, first = (json.loads(type_(*given, *more).out) for more in ([], ["--version", 0]))
    assert newest == {
        "run": "colours",
        "versions": {"painter": 2},
        "class": None,
        "truncation": 0.5,
        "truncate": "scale",
        "seed": 3,
        "count": 1,
        "files": [str(run.path / "evaluation/samples/apple/00000.png")],
    }
    assert first["versions"] == {"painter": 0}
    assert Path(newest["files"][0]).is_file()


def test_truncation_none_is_the_default(run: Run, type_: Terminal) -> None:
    words = ("sample", run.path, "-n", 1, "--json")
    result = type_(*words, "--truncation", "none")
    assert (result.code, result.out) == (0, type_(*words).out)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--class", "paer"], "There is no class 'paer'; there are apple, pear, plum. Did you mean 'pear'?"),
        (["--truncation", "0"], "truncation = 0.0 is not allowed; give a number above 0, such as 0.5."),
        (["--truncation", "0.5", "--truncate", "cut"], "truncate = 'cut' is not allowed; use resample or scale."),
        (
            ["--truncation", "0.3,1"],
            "--truncation 0.3,1: the noise of samples is truncated at one threshold; give one.",
        ),
        (["--truncation", "none", "--truncate", "scale"], "--truncate scale says how noise is truncated, but not how"),
        (
            ["--truncation", "few"],
            "--truncation few: few is no number; give thresholds above 0, as in 0.3,0.5,1, or none",
        ),
        (["--truncate", "scale"], "--truncate scale says how noise is truncated, but not how far; add --truncation,"),
        (["--steps", "24"], "--steps 24 is for a walk; add --walk."),
        (["--walk", "-n", "1"], "-n 1 has no way to walk; give at least 2 samples to walk between."),
        (["--version", "9"], "Version 9 of painter does not exist. Available: 0, 1, 2."),
        (["--out", str(COLOURS)], "is a file, but must be a folder."),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, type_: Terminal, options: list[str], sentence: str) -> None:
    result = type_("sample", run.path, *options)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1


def test_a_recipe_without_sample_is_refused(painted: Run, type_: Terminal) -> None:
    result = type_("sample", painted.path)
    assert result.code == 2
    assert "has no `sample`: it makes no images from noise alone; use `apply` on images." in result.err


def test_python_samples_as_the_command_does_and_leaves_the_random_generators(run: Run) -> None:
    model, before = modtrain.load(run, device="cpu"), torch.get_rng_state()
    samples = model.sample(4, class_name="plum", truncation=0.5, seed=1)
    assert (samples.shape, samples.dtype) == ((4, 3, 8, 8), torch.float32)
    assert torch.equal(samples, model.sample(4, class_name="plum", truncation=0.5, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(samples, modtrain.load(run, version=0, device="cpu").sample(4, class_name="plum", seed=1))
    with pytest.raises(InputError, match=r"count = 0 is not allowed; give a number of samples, at least 1\."):
        model.sample(0)


def test_the_folders_of_the_classes_are_listed_once(run: Run, tmp_path: Path) -> None:
    listed, model = [], modtrain.load(run, device="cpu")
    recipe = replace(model.recipe, sample=replace(model.sampling, classes=lambda *_: listed.append(1) or ("a", "b")))
    model = replace(model, recipe=recipe)
    assert sample_paths(model, tmp_path, model.labels(2), 2) == [tmp_path / "a/00000.png", tmp_path / "b/00001.png"]
    assert listed == [1]
