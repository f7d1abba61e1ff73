"""`evaluate` and `apply`: reproducible metrics, images of every kind in, images out, nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from modtrain.storage.run import Run
from modtrain.training.inference.model import load
from modtrain.training.worker_process import work
from tests.support import SUPPORT
from tests.support.command import Result, Terminal
from tests.support.runs import make_run

PAINTING = SUPPORT / "painting.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("runs") / "painted", PAINTING, [["painter", "critic"]])
    import signal

    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]
    work(made, ["painter", "critic"])
    for number, handler in before:
        signal.signal(number, handler)
    return made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of several kinds, in a tree."""
    (tmp_path / "in/deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (7, 9, 3), dtype=np.uint8))
    rgb.save(tmp_path / "in/a.jpg")
    rgb.convert("L").save(tmp_path / "in/deep/grey.png")
    rgb.convert("RGBA").save(tmp_path / "in/deep/alpha.png")
    rgb.resize((1, 1)).save(tmp_path / "in/one pixel.bmp")
    return tmp_path / "in"


def shape(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        return np.asarray(image).shape


def test_evaluate_gives_the_same_numbers_again(run: Run, type_: Terminal) -> None:
    state = torch.get_rng_state()
    first, second = (json.loads(type_("evaluate", run.path, "--json").out) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    assert first["versions"] == {"painter": 2, "critic": 2}
    assert first["metrics"]["perfect"] is None  # JSON knows no infinity
    assert shape(Path(first["grid"])) == (8, 16, 3)
    result = type_("evaluate", run.path)
    assert "score " in result.out
    assert "painter v2" in result.out


def test_every_evaluation_appends_one_line(run: Run, type_: Terminal) -> None:
    type_("evaluate", run.path)
    lines = (run.path / "evaluation/metrics.jsonl").read_text().splitlines()
    assert all({"versions", "metrics", "at"} <= set(json.loads(line)) for line in lines)


def test_evaluate_takes_the_moving_average_of_the_newest_full_version(run: Run, type_: Terminal) -> None:
    newest = run.store("painter").latest()
    assert newest is not None
    assert "ema.safetensors" in newest.files
    model = load(run, device="cpu")
    assert model.versions["painter"] == newest.version
    average = safetensors.torch.load(run.store("painter").read(newest, "ema.safetensors"))
    assert torch.equal(model.nets.painter.weight, average["weight"])


def test_a_folder_is_translated_with_its_tree(run: Run, images: Path, tmp_path: Path, type_: Terminal) -> None:
    result = type_("apply", run.path, images, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert result.out.startswith("4 of 4 images in ")
    out = tmp_path / "out"
    assert {str(path.relative_to(out)): shape(path) for path in out.rglob("*.png")} == {
        "a.png": (7, 9, 3),
        "deep/alpha.png": (7, 9, 3),
        "deep/grey.png": (7, 9, 3),
        "one pixel.png": (1, 1, 3),
    }


def test_results_go_into_the_run_by_default(
    run: Run, images: Path, type_: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path.parent)
    result = type_("apply", run.path, images / "a.jpg")
    assert result.out.endswith(": painted/evaluation/applied\n")
    assert (run.path / "evaluation/applied/a.png").is_file()


def test_a_broken_image_is_named_and_the_rest_is_done(run: Run, images: Path, tmp_path: Path, type_: Terminal) -> None:
    (images / "broken.jpg").write_bytes(b"no image at all")
    result = type_("apply", run.path, images, "--out", tmp_path / "out")
    assert result.code == 1
    assert "Skipped: " in result.err
    assert "broken.jpg cannot be read as an image" in result.err
    assert result.out.startswith("4 of 5 images")


def test_inputs_are_never_overwritten(run: Run, images: Path, type_: Terminal) -> None:
    before = {path: path.read_bytes() for path in images.rglob("*.*")}
    result = type_("apply", run.path, images, "--out", images)
    assert result.code == 2
    assert "is an input and would be overwritten" in result.err
    twice = type_("apply", run.path, images / "deep/grey.png", images / "a.jpg", "--out", images / "deep")
    assert "is an input and would be overwritten" in twice.err
    assert {path: path.read_bytes() for path in images.rglob("*.*")} == before


def test_two_images_of_one_name_are_refused(run: Run, images: Path, tmp_path: Path, type_: Terminal) -> None:
    (images / "a.png").write_bytes((images / "a.jpg").read_bytes())
    assert "; rename one of them." in type_("apply", run.path, images, "--out", tmp_path / "out").err


@pytest.mark.parametrize("source", ["nothing.png", "empty"])
def test_a_source_without_images_is_an_error(run: Run, tmp_path: Path, type_: Terminal, source: str) -> None:
    (tmp_path / "empty").mkdir()
    result: Result = type_("apply", run.path, tmp_path / source)
    assert result.code == 2
    assert str(tmp_path / source) in result.err


def test_an_error_in_the_recipe_names_its_line(run: Run, tmp_path: Path, type_: Terminal) -> None:
    Image.new("RGB", (13, 5)).save(tmp_path / "thirteen.png")
    result = type_("apply", run.path, tmp_path / "thirteen.png", "--out", tmp_path / "out")
    assert result.code == 2
    assert "painting.py, line" in result.err
    assert "in apply: ValueError: thirteen" in result.err


def test_a_run_that_never_published_cannot_be_evaluated(tmp_path: Path, type_: Terminal) -> None:
    made = make_run(tmp_path / "new", PAINTING, [["painter", "critic"]])
    result = type_("evaluate", made.path)
    assert result.code == 2
    assert "no readable checkpoint of painter yet" in result.err
