"""`modtrain bench` measures what its help says; the times themselves are not asserted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from modtrain.bench.convolutions import convolutions
from modtrain.bench.joint_step import cyclegan
from modtrain.bench.resize import resize
from modtrain.bench.scores import scores
from modtrain.data.fruits.orchard import orchard
from modtrain.metrics.distribution import frechet_distance
from modtrain.metrics.orchard import SIZE, OrchardJudge, trained_judge
from tests.support.command import Terminal


def bench(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modtrain", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=folder)


def test_the_queue_is_measured_against_one_trial() -> None:
    result = bench("queue", "--trials", "1", "--seconds", "0.5")
    assert result.returncode == 0, result.stderr
    one, same = result.stdout.splitlines()
    assert one.endswith(" s  one trial on one slot")
    assert re.search(r" s  1 trials on 1 slots: \d+\.\d{3} times one$", same)
    assert all(float(line.split()[0]) > 0.5 for line in (one, same))
    assert "1 of 2: one trial on one slot" in result.stderr


def test_the_catalog_says_which_scans_found_something_new() -> None:
    result = bench("catalog", "--runs", "20")
    assert result.returncode == 0, result.stderr
    written, *lines = result.stdout.splitlines()
    assert re.fullmatch(r"20 runs written in \d+\.\d s, \d+ runs/s", written)
    scans = {line[:42].strip(): line.endswith(", changed") for line in lines if "scan" in line}
    assert scans == {
        "first scan": True,
        "next scan, only heartbeats are new": False,
        "next scan, 10 runs have published": True,
        "next scan, 10 runs have a stop request": True,
        "next scan, 4 s later, nothing is new": False,
    }


def test_open_pages_poll_the_dashboard_and_show_what_is_published() -> None:
    options = {"runs": 2, "trials": 2, "pages": 4, "seconds": 4, "poll-seconds": 0.5}
    result = bench("dashboard", *(word for name, value in options.items() for word in (f"--{name}", str(value))))
    assert result.returncode == 0, result.stderr
    pages = re.search(r"^4 open pages: (\d+) polls, (\d+) with new data; [\d.]+ polls/s, ", result.stdout, re.MULTILINE)
    assert pages is not None, result.stdout
    assert int(pages[1]) > int(pages[2]) > 0, "a poll without news is answered by 304"
    update = re.search(r"^an update +median (\d+) bytes", result.stdout, re.MULTILINE)
    assert update is not None
    assert int(update[1]) < 3000, "only what changed is sent"
    assert len(re.findall(r"^memory of the server +\d+ MB$", result.stdout, re.MULTILINE)) == 2


def test_a_joint_step_is_compared_with_a_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    cyclegan(rounds=1, steps=1)
    torch.set_num_threads(threads)
    plain, own, ratio = (float(line.split()[0]) for line in capsys.readouterr().out.splitlines())
    assert ratio == pytest.approx(own / plain, rel=0.01)


def test_both_kinds_of_convolution_are_measured_by_size_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    convolutions(size=8, base=64, most=16, batch=4, steps=1, out=tmp_path / "figure.png")
    torch.set_num_threads(threads)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["4", "8"]
    assert all(float(row[4]) > float(row[5]) > 0 for row in rows), "fewer multiply-accumulates"
    with Image.open(tmp_path / "figure.png") as figure:
        assert len(figure.getcolors(100_000)) > 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["progressive-gan", "--size", "5"], "size = 5 is no power of two"),
        (["convolutions", "--penalty", "gp"], "discriminator.penalty = 'gp' is not allowed"),
        (["convolutions", "--out", "file/figure.png"], "The folder of --out, file cannot be created"),
        (["resize", "--seconds", "5"], "See `modtrain bench resize --help`."),
        (["resizes"], "No such command 'resizes'"),
        (["judge", "--out", "file/judge.safetensors"], "The folder of --out, file cannot be created"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_: Terminal, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    threads = torch.get_num_threads()
    result = type_("bench", *words)
    torch.set_num_threads(threads)
    assert (result.code, says in result.err, result.err.count("\n")) == (2, True, 1), result


def test_the_measurements_are_listed_and_each_has_a_help_of_its_own(type_: Terminal) -> None:
    listed = type_("bench").out
    assert type_("bench", "--help").out == listed
    assert "Usage: modtrain bench [OPTIONS] COMMAND" in listed
    assert {"resize", "convolutions", "queue"} <= {line.split()[0] for line in listed.splitlines() if line[:2] == "  "}
    assert "--rounds" in type_("bench", "resize", "-h").out


def test_each_filter_is_measured_and_a_smooth_one_loses_least(capsys: pytest.CaptureFixture[str]) -> None:
    resize(size=16, source=64, rounds=1)
    rows = {row[0]: float(row[2]) for row in map(str.split, capsys.readouterr().out.splitlines()[2:])}
    assert set(rows) == {"bicubic", "bilinear", "lanczos", "hamming", "nearest", "box"}
    assert min(rows, key=rows.__getitem__) == "lanczos"
    assert max(rows, key=rows.__getitem__) == "nearest"


def test_the_measurements_need_no_package_of_the_tests(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('httpx', 'hypothesis', 'playwright', 'pytest', 'tests', 'torch'): sys.modules[name] = None\n"
        "import modtrain.bench.commands"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path)


def test_the_parts_of_a_comparison_of_samples_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    scores(samples=16, size=32, extractor="orchard")
    lines = capsys.readouterr().out.splitlines()
    parts = [
        "features by orchard",
        "scores by orchard",
        "swd",
        "ms_ssim",
        "together, 16 images of 32 pixels on both sides",
    ]
    assert [re.sub(r"^ +\d+\.\d s  ", "", line) for line in lines] == parts


@pytest.mark.slow
def test_the_judge_is_trained_again_and_is_as_right_as_the_one_that_comes_with_modtrain(tmp_path: Path) -> None:
    result = bench("judge", "--out", str(tmp_path / "judge.safetensors"))
    assert result.returncode == 0, result.stderr
    accuracy = re.search(r"^ *(\d+\.\d\d)%      of 1000 test pictures are right$", result.stdout, re.MULTILINE)
    assert accuracy is not None, result.stdout
    assert float(accuracy[1]) >= 99
    again, judge = OrchardJudge(), trained_judge()[0].eval()
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "judge.safetensors"))
    test, train = orchard(SIZE, "test").images, orchard(SIZE, "train", each=125).images
    noisy = (test + 40 * torch.rand(test.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
    for network in (again.eval(), judge):
        with torch.inference_mode():
            features = [network(images)[0] for images in (test, train, noisy)]
        assert 3 * frechet_distance(features[0], features[1]) < frechet_distance(features[2], features[1])
