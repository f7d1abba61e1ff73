"""`score`: two folders of images in, metrics with their conditions out; wrong input is one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from modtrain.data.fruits.orchard import CLASSES, orchard
from modtrain.storage.run import Run
from tests.support import SUPPORT, runs
from tests.support.command import Terminal

FRUITS_ONLY = (
    "orchard knows only the built-in fruits; photographs are judged by efficientnet-lite0, as with "
    "--metric fid_efficientnet-lite0."
)


def write(images: Tensor, folder: Path) -> Path:
    """One PNG file for each image, in a subfolder for every second one."""
    for number, image in enumerate(images):
        path = folder / ("odd" * (number % 2)) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Fruits of three of the classes, and of all of them."""
    folder, pictures = tmp_path_factory.mktemp("scored"), orchard(32, "test", each=6)
    return write(pictures.images[:18], folder / "few classes"), write(
        orchard(32, "train", each=6).images, folder / "all"
    )


def test_scores_name_their_extractor_and_say_what_they_are_of(folders: tuple[Path, Path], type_: Terminal) -> None:
    result = type_("score", *folders, "--json")
    assert result.code == 0, result.err
    scored = json.loads(result.out)
    assert [scored[role] for role in ("images", "reference")] == [
        {"path": str(folder), "count": count, "size": 32} for folder, count in zip(folders, (18, 48), strict=True)
    ]
    assert scored["extractors"] == {"orchard": "32 x 32 pixels, bicubic with antialiasing"}
    kinds = ("fid", "kid", "precision", "recall", "class_score", "coverage")
    names = [*(f"{kind}_orchard" for kind in kinds), "swd", "swd_32", "swd_16", "ms_ssim"]
    assert list(scored["metrics"]) == list(scored["reals"]) == names
    assert scored["lower_is_better"] == ["fid_orchard", "kid_orchard", "swd", "swd_32", "swd_16", "ms_ssim"]
    assert scored["metrics"]["coverage_orchard"] == 3
    assert scored["reals"]["coverage_orchard"] == 8
    assert scored["metrics"]["fid_orchard"] > scored["reals"]["fid_orchard"]
    assert scored["metrics"]["recall_orchard"] < 0.6
    assert scored["notes"] == [
        FRUITS_ONLY,
        "fid_orchard is of 18 images, fewer than 2048: it reads too high, and compares only with one of as many "
        "images; kid_orchard has no such bias.",
    ]


def test_scores_of_one_metric_are_a_table_with_the_value_of_reals_beside(
    folders: tuple[Path, Path], type_: Terminal
) -> None:
    result = type_("score", *folders, "--metric", "coverage_orchard")
    assert result.code == 0, result.err
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines == [
        f"images: 18 of 32 px in {folders[0]}",
        f"reference: 48 of 32 px in {folders[1]}",
        "orchard: resized to 32 x 32 pixels, bicubic with antialiasing",
        "",
        "metric images reals better",
        "coverage_orchard 3 8 higher",
        "",
        "images: the images against the reference; reals: real images, one half of the reference against the other, or "
        "all of it where no two sets are compared.",
        FRUITS_ONLY,
    ]


def test_progress_says_what_is_done_how_fast_and_how_long_it_takes_yet(
    folders: tuple[Path, Path], type_: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.cli.progress.PROGRESS_S", -1.0)
    result = type_("score", *folders, "--metric", "coverage_orchard")
    assert re.search(rf"^reading {folders[0]}: 9/18  [\d.]+/s  0:\d\d left$", result.err, re.MULTILINE)
    assert re.search(r"^features by orchard: 18/18  [\d.]+/s  0:00 left$", result.err, re.MULTILINE)


def test_images_of_several_sizes_are_resized_on_request(
    folders: tuple[Path, Path], tmp_path: Path, type_: Terminal
) -> None:
    with Image.open(folders[0] / "0.png") as image:
        for number in range(8):
            (tmp_path / "wide").mkdir(exist_ok=True)
            image.resize((40, 30)).save(tmp_path / "wide" / f"{number}.png")
    words = ("score", tmp_path / "wide", folders[1], "--metric", "swd")
    result = type_(*words)
    assert result.code == 2
    assert result.err == (
        "modtrain: The images are not squares of one size of at least 16 pixels: 32 x 32, 40 x 30. Give --size, as in "
        "--size 30: of each image the square in its middle is then resized to that edge.\n"
    )
    scored = json.loads(type_(*words, "--size", "24", "--json").out)
    assert scored["images"]["size"] == 24
    assert list(scored["metrics"]) == ["swd", "swd_24"]
    assert scored["extractors"] == {}, "no network is needed"
    assert scored["notes"] == []


def test_folders_of_classes_are_compared_class_by_class(tmp_path: Path, type_: Terminal) -> None:
    for split in ("test", "train"):
        fruits = orchard(32, split, each=8)
        for name, images in zip(CLASSES, fruits.images.split(8), strict=True):
            write(images, tmp_path / split / name)
    folders = (tmp_path / "test", tmp_path / "train")
    by_class = ["intra_fid_orchard", "label_accuracy_orchard"]
    scored = json.loads(type_("score", *folders, "--json").out)
    assert [name for name in scored["metrics"] if name in by_class] == by_class
    assert scored["metrics"]["label_accuracy_orchard"] > 0.95
    (tmp_path / "test" / "pear").rename(tmp_path / "test" / "Birne")
    assert not set(by_class) & json.loads(type_("score", *folders, "--json").out)["metrics"].keys()
    assert type_("score", *folders, "--metric", by_class[0]).err == (
        "modtrain: intra_fid_orchard cannot be measured: the images of both sets must have classes, as those of a "
        "recipe with classes have, or folders with the same subfolders, one for each class.\n"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none"], "none does not exist; give a folder of images."),
        (["empty"], "empty holds no image (bmp jpeg jpg png tif tiff webp are read)."),
        (["three"], "needs at least 8 images on both sides; there are 3 and, as the reference, 48."),
        (["three", "--metric", "fid"], "There is no metric 'fid'; there are fid_orchard, "),
        (["three", "--metric", "fid_orchad"], "There is no extractor 'orchad'; there are orchard"),
        (["three", "--extractor", "vgg"], "There is no extractor 'vgg'; there are orchard"),
        (["three", "--device", "tpu"], "device = 'tpu' is not allowed"),
    ],
)
def test_wrong_input_is_one_sentence(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    type_: Terminal,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write(orchard(32, "test", each=6).images[:3], Path("three"))
    result = type_("score", words[0], folders[1], *words[1:])
    assert result.code == 2
    assert says in result.err
    assert result.err.startswith("modtrain: ")
    assert result.err.count("\n") == 1


@pytest.fixture
def finished(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A finished run of a recipe of tests/support."""
    run = runs.make_run(tmp_path / "run", SUPPORT / f"{request.param}.py", [["painter"]])
    runs.finish(run)
    return run.path


@pytest.mark.parametrize("finished", ["colours_of_fruit"], indirect=True)
def test_evaluate_compares_samples_with_the_test_images_of_the_recipe(finished: Path, type_: Terminal) -> None:
    words = ("evaluate", finished, "--metric", "fid_orchard", "--metric", "swd", "--samples", "12", "--json")
    result = type_(*words)
    assert result.code == 0, result.err
    scored = json.loads(result.out)
    assert (scored["run"], scored["versions"]) == ("run", {"painter": 2})
    assert scored["images"] == {"count": 12, "size": 32}
    assert scored["reference"] == {"split": "test", "count": 16, "size": 32}
    assert list(scored["metrics"]) == ["fid_orchard", "swd", "swd_32", "swd_16"]
    assert list(scored["seconds"]) == ["features by orchard", "scores by orchard", "swd"]
    assert [note.partition(",")[0] for note in scored["notes"]] == ["fid_orchard is of 12 images"]
    assert json.loads(type_(*words).out)["metrics"] == scored["metrics"], "the same samples"
    measured = [row for row in Run.open(finished).history() if row["module"] == "evaluation"]
    assert [{name: row[name] for name in ("step", "epoch")} for row in measured] == [{"step": 2, "epoch": 2}]
    assert measured[0]["fid_orchard:12:test"] == scored["metrics"]["fid_orchard"]
    assert "fid_orchard" not in measured[0], "what an evaluation measures has this name"
    assert "fid_orchard:12:test" in type_("history", finished).out
    assert "reference: 16 of 32 px, split test\n" in type_(*words[:4], "--samples", "8").out


@pytest.mark.parametrize("finished", ["fruit_copies"], indirect=True)
def test_a_truncation_curve_has_each_metric_at_each_threshold(finished: Path, type_: Terminal) -> None:
    names = ("precision_orchard", "recall_orchard", "intra_fid_orchard", "label_accuracy_orchard")
    chosen = [word for name in names for word in ("--metric", name)]
    words = ("evaluate", finished, *chosen, "--samples", 128, "--truncation", "0.2,none")
    result = type_(*words, "--reference", "train", "--json")
    assert result.code == 0, result.err
    scored = json.loads(result.out)
    assert scored["reference"] == {"split": "train", "count": 128, "size": 32}
    assert "metrics" not in scored
    assert [point["truncation"] for point in scored["curve"]] == [0.2, None]
    near, far = (point["metrics"] for point in scored["curve"])
    assert list(near) == list(far) == list(scored["reals"]) == list(names)
    assert scored["lower_is_better"] == ["intra_fid_orchard"]
    assert near["precision_orchard"] > 0.9 > far["precision_orchard"], "fidelity falls"
    assert near["recall_orchard"] < far["recall_orchard"], "variety rises"
    assert near["label_accuracy_orchard"] > 0.9 > far["label_accuracy_orchard"]
    table = type_(*words).out
    assert "metric at 0.2 none reals better\n" in re.sub(" +", " ", table)
    assert "reference: 128 of 32 px, split test\n" in table
    assert "at T: samples of noise truncated at T, or none, against the reference; reals: " in table


@pytest.mark.parametrize("finished", ["fruit_copies"], indirect=True)
def test_one_truncation_is_no_curve_and_a_wrong_one_is_named(finished: Path, type_: Terminal) -> None:
    words = ("evaluate", finished, "--metric", "coverage_orchard", "--samples", 16)
    scored = json.loads(type_(*words, "--truncation", "0.5", "--truncate", "scale", "--json").out)
    assert (scored["truncation"], scored["truncate"]) == (0.5, "scale")
    assert list(scored["metrics"]) == ["coverage_orchard"]
    assert "coverage_orchard:16:test:scale0.5" in Run.open(finished).history()[-1]
    for option, value, says in (
        ("--truncation", "0.3,", "--truncation 0.3,: an empty value is no number; give thresholds above 0, as in "),
        ("--truncation", "0.3,0", "truncation = 0.0 is not allowed; give a number above 0, such as 0.5."),
        ("--truncate", "scale", "--truncate scale says how noise is truncated, but not how far; add --truncation, "),
        ("--reference", "all", "reference = 'all' is not allowed; use one of test, train."),
    ):
        result = type_(*words, option, value)
        assert (result.code, says in result.err, result.err.count("\n")) == (2, True, 1), result.err


@pytest.mark.parametrize(
    ("dataroot", "metric", "judged", "trained"),
    [(None, "fid", 0, 0), (".", "fid", 1, 0), (".", "bicubic_perceptual", 0, 1)],
)
def test_the_judge_of_fruits_is_said_to_know_no_other_images_where_a_run_is_evaluated_and_where_it_ends(
    tmp_path: Path, type_: Terminal, dataroot: str | None, metric: str, judged: int, trained: int
) -> None:
    recipe = tmp_path / "judged.py"
    recipe.write_text((SUPPORT / "tiny.py").read_text().replace('metrics={"mean"', f'metrics={{"{metric}_orchard"'))
    run = runs.make_run(tmp_path / "run", recipe, [["generator", "discriminator"]], epochs=1, dataroot=dataroot)
    runs.finish(run)
    for words in (["evaluate", run.path], ["launch", run.path, "--backend", "local"]):
        out = type_(*words).out
        assert (out.count(FRUITS_ONLY), out.count("train a new run with --features efficientnet")) == (judged, trained)


@pytest.mark.parametrize("finished", ["colours"], indirect=True)
def test_samples_of_a_recipe_without_real_images_cannot_be_evaluated(finished: Path, type_: Terminal) -> None:
    result = type_("evaluate", finished, "--samples", "8")
    assert result.code == 2
    assert "has no real images to compare samples with: its `Data.test` must be that of `labelled`" in result.err
