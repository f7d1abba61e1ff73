"""What the command line says: help, lists, suggestions for typing mistakes, one sentence for everything wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modtrain.cli
from modtrain.cli import terminal
from tests.support import SUPPORT
from tests.support.command import Terminal
from tests.support.runs import make_run

PAINTING = SUPPORT / "painting.py"


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_every_command_whole_and_the_exit_codes(type_: Terminal) -> None:
    result = type_("--help")
    assert result.code == 0
    assert "..." not in result.out.replace("[ARGS]...", "")
    for command in ["launch", "worker", "status", "stop", "evaluate", "apply", "recipes", "check", "doctor"]:
        assert f"  {command} " in result.out
        assert type_(command, "--help").out.startswith(f"Usage: modtrain {command}")
    assert type_().out == result.out
    assert "75 preempted" in result.out


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']; from modtrain.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    names = ("torch", "ray", "rich.live", "modtrain.storage.run", "modtrain.scheduling.config")
    code += f"print([name for name in {names} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip().endswith("[]")


def test_the_version_is_printed(type_: Terminal) -> None:
    assert type_("--version").out.startswith("modtrain ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("stauts x", "Did you mean 'status'?"),
        ("status x --josn", "Did you mean '--json'?"),
        ("status", "Missing argument"),
        ("launch --recipe PAINTING --ndoes 3", "Did you mean '--nodes'?"),
        ("launch --recipe PAINTING --batchsize 3", "Did you mean '--batch-size'?"),
        ("launch --recipe PAINTING --paintr-lr 3", "Did you mean '--painter-lr'?"),
        ("launch --recipe PAINTING --set paintr.lr=3", "Did you mean 'painter.lr'?"),
        ("sweep --recipe PAINTING --paintr-lr 3 --vary seed=1,2", "Did you mean '--painter-lr'?"),
        ("sweep --recipe PAINTING --vary paintr.lr=1,2", "Did you mean 'painter.lr'?"),
        ("dashboard runs --force", "No such option: --force. See `modtrain dashboard --help`."),
        ("evaluate runs/x --version 1", "No such option: --version. See `modtrain evaluate --help`."),
        (
            "launch --recipe pix2pix --load-size 32 --crop-size 32 --no-check --dry-run",
            "crop_size = 32 is no multiple of 64, which a generator of 6 levels needs",
        ),
        (
            "launch --recipe cyclegan --crop-size 64 --no-check --dry-run",
            "crop_size must be from 1 to load_size: got crop_size=64, load_size=48.",
        ),
        (
            "launch --recipe pix2pix --crop-size 128 --no-check --dry-run",
            "crop_size must be from 1 to load_size: got crop_size=128, load_size=64.",
        ),
        ("launch --recipe PAINTING --set painter.lrr=3", "Did you mean 'painter.lr'?"),
        ("launch --recipe PAINTING --set painter.lr=x", "painter.lr = 'x' is not allowed"),
        ("launch --recipe PAINTING --lr nan", "painter.lr = nan is not allowed: it must be a finite number"),
        ("launch --recipe PAINTING --epochs 0", "epochs = 0 is not allowed"),
        ("launch --recipe PAINTING --epochs three", "Invalid value for '--epochs'"),
        ("launch --recipe PAINTING --place paintr|critic", "Did you mean 'painter'?"),
        ("launch --recipe PAINTING --nodes 3", "--nodes 3 is more than the recipe's 2 modules"),
        ("launch --recipe PAINTING --backend lokal", "Did you mean 'local'?"),
        ("launch --recipe PAINTING --cpus [", "cpus = '[' is not allowed: give a valid integer."),
        ("sweep --recipe PAINTING --vary lr=1 --sampler gird", "sampler = 'gird' is not allowed; give one of grid,"),
        ("sweep --recipe PAINTING --vary lr=1 --prune=medain", "prune = 'medain' is not allowed; give one of halving,"),
        ("history runs/nothing --json", "There is no run in runs/nothing"),
        ("launch --recipe PAINTING --dataroot nowhere", "--dataroot nowhere does not exist."),
        (
            "launch --recipe PAINTING --backend local --no-check --root /proc/x",
            "The run's folder /proc/x/painting-1 cannot be created: no files can be created in this place.",
        ),
        ("doctor /proc", "/proc cannot be written to (no files can be created in this place); choose a folder"),
        ("launch --recipe PAINTING --name a/b", "A run cannot be called"),
        ("launch --recipe latent-translaton", "Did you mean 'latent-translation'?"),
        ("launch latent-translation", "give it as --recipe latent-translation"),
        ("launch PAINTING", "is a recipe: give it as --recipe"),
        ("launch nothing.yaml", "The config nothing.yaml cannot be read: No such file or directory."),
        ("launch runs/nothing", "There is no run in runs/nothing"),
        ("launch --recipe PAINTING --name new --resume", "There is no run runs/new to resume"),
        ("status runs/nothing", "There is no run in runs/nothing"),
        ("worker runs/nothing", "There is no run in runs/nothing"),
        ("recipes nothing", "There is no recipe 'nothing'"),
        ("doctor nothing", "nothing does not exist"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(
    type_: Terminal, in_empty_folder: Path, words: str, sentence: str
) -> None:
    result = type_(*words.replace("PAINTING", str(PAINTING)).split())
    assert result.code == 2
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert list(in_empty_folder.iterdir()) == []


def test_a_name_without_its_folder_or_its_ending_is_recognised(
    type_: Terminal, in_empty_folder: Path, tiny_recipe: Path
) -> None:
    make_run(in_empty_folder / "runs" / "apples", tiny_recipe, [["generator", "discriminator"]])
    (in_empty_folder / "my_gan.py").write_text("")
    assert "no such folder). Did you mean runs/apples?" in type_("status", "apples").err
    assert type_("status", "runs").err.endswith("runs has apples. `modtrain watch runs` shows all.\n")
    assert "(a file); give the folder of a run" in type_("status", "my_gan.py").err
    assert "Did you mean './my_gan.py'?" in type_("recipes", "my_gan").err


def test_the_name_of_a_module_and_its_parameter_may_be_joined_by_a_dash(type_: Terminal, tmp_path: Path) -> None:
    dry_run = ("--dry-run", "--no-check", "--root", tmp_path, "--nodes", 1)
    result = type_("launch", "--recipe", PAINTING, *dry_run, "--painter-lr", "0.25")
    assert [line.split()[:2] for line in result.out.splitlines() if "(default" in line] == [["painter.lr", "0.25"]]


def test_a_dry_run_says_what_would_happen_and_creates_nothing(type_: Terminal, in_empty_folder: Path) -> None:
    words = ["launch", "--recipe", PAINTING, "--dry-run", "--n_epochs", "7", "--exchange_every=4", "--nodes", "1"]
    result = type_(*words, "--lr", "5e-4", "--no-flip", "--bold", "--batch_size", "3", "--set", "critic.lr=0.125")
    assert result.code == 0, result.err
    for expected in ("painting-1", "painter,critic", "every 4 steps", "--modules painter,critic"):
        assert expected in result.out
    assert f"Nothing was created. The recipe was not checked: `modtrain check {PAINTING}` checks it" in result.out
    assert "not checked" not in type_("launch", "--recipe", PAINTING, "--dry-run", "--no-check", "--nodes", 1).out
    lines = {line.split()[0]: line.split()[1] for line in result.out.splitlines() if "(default" in line}
    assert lines == {
        "batch_size": "3",
        "flip": "false",
        "painter.lr": "0.0005",
        "painter.bold": "true",
        "critic.lr": "0.125",
    }
    assert list(in_empty_folder.iterdir()) == []


def test_a_launch_says_that_it_ignores_the_sweep_of_a_config(type_: Terminal, in_empty_folder: Path) -> None:
    Path("my config.yaml").write_text(f"recipe: {PAINTING}\nnodes: 1\nsweep: {{space: {{painter.lr: [0.1, 0.2]}}}}\n")
    result = type_("launch", "my config.yaml", "--dry-run")
    assert result.code == 0
    assert (
        result.err == "`sweep:` of my config.yaml is ignored by a launch; `modtrain sweep 'my config.yaml'` runs it.\n"
    )


def test_recipes_are_listed_with_types_defaults_and_meaning(type_: Terminal) -> None:
    result = type_("recipes", PAINTING)
    assert "worker 1  painter  <.. critic" in result.out
    assert "images in a batch  int" in result.out
    data = json.loads(type_("recipes", PAINTING, "--json").out)["recipes"][str(PAINTING)]
    size = {"name": "batch_size", "type": "int", "default": 2, "required": False, "meaning": "images in a batch"}
    assert data["params"][0] == size
    assert data["modules"] == {
        "painter": {"reads": {"critic": 1}, "fixed": False},
        "critic": {"reads": {}, "fixed": False},
    }
    every = json.loads(type_("recipes", "--json").out)["recipes"]
    assert "latent-translation" in every
    assert all(parameter["meaning"] for parameter in every["latent-translation"]["params"])


def test_the_placement_of_a_recipe_is_shown_before_anything_is_created(type_: Terminal, tmp_path: Path) -> None:
    halves = [["generator_ab", "discriminator_b"], ["generator_ba", "discriminator_a"]]
    shown = " | ".join(",".join(group) for group in halves)
    assert shown in type_("recipes", "cyclegan").out
    described = json.loads(type_("recipes", "cyclegan", "--json").out)["recipes"]["cyclegan"]
    assert described["placement"] == halves
    assert described["together"] == [["generator_ab", "generator_ba"]]
    assert shown in type_("launch", "--recipe", "cyclegan", "--root", tmp_path, "--nodes", 2, "--dry-run").out
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_shown_with_its_paper_and_a_diagram_of_what_reads_what(type_: Terminal, tmp_path: Path) -> None:
    shown = [line.rstrip() for line in type_("recipes", "cyclegan").out.splitlines()]
    assert shown[1:12] == [
        'CycleGAN: "Unpaired Image-to-Image Translation using Cycle-Consistent',
        'Adversarial Networks" (Zhu et al., ICCV 2017).',
        "",
        "worker 1  generator_ab     <.. generator_ba",
        "                           <-- discriminator_b  newest 4, where apart",
        "          discriminator_b  <-- generator_ab",
        "worker 2  generator_ba     <.. generator_ab",
        "                           <-- discriminator_a  newest 4, where apart",
        "          discriminator_a  <-- generator_ba",
        "<-- live, in the same worker   <.. a published copy",
        "",
    ]
    assert "formats    cyclegan, for export and import" in shown
    text = (SUPPORT / "fixed_features.py").read_text().replace('("judge",', '(Reads("judge", lambda p: 1 // 0),')
    (tmp_path / "own.py").write_text(text)
    assert "own.py, line" in type_("recipes", tmp_path / "own.py").err
    fixed = [line.rstrip() for line in type_("recipes", SUPPORT / "fixed_features.py").out.splitlines()]
    assert fixed[4:10] == [
        "worker 1       generator  <.. judge",
        "                          <-- features",
        "worker 2       judge      <-- features",
        "never trained  features",
        "<-- live, in the same worker   <.. a published copy",
        "",
    ]


def test_the_cost_of_each_worker_of_a_recipe_is_measured(type_: Terminal) -> None:
    shown = type_("recipes", PAINTING, "--costs").out
    shares = [int(share) for share in re.findall(r"(\d+)%", shown)]
    assert (len(shares), sum(shares)) == (2, 100)
    assert "worker  share  modules, milliseconds of a step" in shown


def test_the_doctor_answers_for_people_and_programs(type_: Terminal, tmp_path: Path) -> None:
    report = json.loads(type_("doctor", tmp_path, "--size-mb", "0.1", "--json").out)
    assert report["failed"] is False
    assert "publish" in {cost["name"] for cost in report["costs"]}
    result = type_("doctor", tmp_path, "--size-mb", "0.1")
    assert result.code == 0
    assert "A published folder cannot be overwritten." in result.out


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m modtrain recipes latent-translation | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "latent-translation"


def test_a_bug_of_ours_keeps_its_traceback(type_: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(name: str) -> None:
        raise KeyError("bug")

    monkeypatch.setattr("modtrain.recipes.loading.load_recipe", bug)
    result = type_("recipes", "latent-translation")
    assert result.code == 1
    assert "Traceback" in result.err
    assert "KeyError: 'bug'" in result.err


@pytest.mark.parametrize(("number", "says", "code"), [(13, "Permission denied", 1), (5, "Input/output error", 6)])
def test_storage_that_refuses_is_a_sentence(
    type_: Terminal, monkeypatch: pytest.MonkeyPatch, number: int, says: str, code: int
) -> None:
    def refuse(name: str) -> None:
        raise OSError(number, says, "/shared/x")

    monkeypatch.setattr("modtrain.recipes.loading.load_recipe", refuse)
    result = type_("recipes", "latent-translation")
    assert (result.code, result.err) == (code, f"modtrain: The operating system refused: {says} (/shared/x).\n")


def test_durations_are_written_for_people() -> None:
    assert [terminal.clock(s) for s in (None, 0.4, 59.6, 3599, 7510, 180000)] == [
        "", "0:00", "1:00", "59:59", "2:05:10", "2 d 2:00",
    ]  # fmt: skip
    assert [terminal.duration(s) for s in (0.84, 9.96, 42, 252, 7500)] == [
        "0.8 s", "10 s", "42 s", "4 min 12 s", "2 h 5 min",
    ]  # fmt: skip
    assert [terminal.rate(r) for r in (None, 0, 12.34, 0.25)] == ["", "", "12.3/s", "0.25/s"]


def test_every_command_is_documented() -> None:
    for command in modtrain.cli.app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__


def test_a_learning_rate_of_another_name_is_named(type_: Terminal, tmp_path: Path, tiny_recipe: Path) -> None:
    recipe = tmp_path / "named.py"
    recipe.write_text(tiny_recipe.read_text().replace("lr: float", "generator_lr: float"))
    result = type_("launch", "--recipe", recipe, "--lr", "1e-3", "--dry-run", "--root", tmp_path)
    assert (result.code, "Its learning rate is generator_lr." in result.err) == (2, True)
