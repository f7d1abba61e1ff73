"""Every file in `jobs/` works unchanged: configs are read, planned and trained, scripts are run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import as_values, flatten, parameters
from modtrain.scheduling.config import read_config
from modtrain.scheduling.run_plan import draft
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep
from tests.support.command import typed
from tests.support.executable import executable
from tests.support.fake_pbs import FakePbs
from tests.support.losses import SMALL
from tests.support.noise import numbered, save_noise
from tests.support.runs import finish
from tests.support.slurm import Slurm
from tests.support.three import recipe_of_three

ROOT = Path(__file__).parents[2]
JOBS, CLUSTER = ROOT / "jobs", ROOT / "cluster"
SWEEP = JOBS / "devcloud-sweep.yaml"
STUDIES = {
    JOBS / "pix2pix-batch-sweep.yaml": [{"batch_size": 2**power} for power in range(9)],
    JOBS / "pix2pix-rate-sweep.yaml": [{"lr": 2e-4 * factor} for factor in (1, 2, 4)],
}
DCGAN_STUDY, OLD_OPPONENTS = JOBS / "dcgan-study.yaml", JOBS / "old-opponents.yaml"
CONFIGS = sorted(set(JOBS.glob("*.yaml")) - {SWEEP, DCGAN_STUDY, OLD_OPPONENTS} - set(STUDIES))
SCRIPTS = sorted([*JOBS.glob("*.sbatch"), *JOBS.glob("*.pbs")])
PROFILES = sorted(CLUSTER.glob("*.yaml"))
by_name = pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
PBSDSH = """#!/bin/sh
# pbsdsh -n NODE -- PROGRAM ARGUMENT...: starts it in the home folder with an almost empty environment
[ "$1" = -n ] && [ "$3" = -- ] || exit 2
node=$2; shift 3
cd "$HOME" && exec env -i PATH=/usr/bin:/bin HOME="$HOME" PBS_NODENUM="$node" "$@"
"""


def python_path() -> str:
    """The variable PYTHONPATH of this process, with the repository."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def modtrain(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modtrain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": python_path()})


def output_of(*arguments: str | Path) -> str:
    """Run a command that succeeds, in a process of its own; its output."""
    done = modtrain(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def in_process(*words: str | Path) -> None:
    """Run a command that succeeds, in this process."""
    result = typed(*words)
    assert result.code == 0, result.out + result.err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_run_that_exchanges_large_networks_inside_epochs_does_not_keep_those_of_a_minute(path: Path) -> None:
    config = read_config(path, {})
    assert (config.keep is None) == (config.exchange_every is None)


@pytest.fixture(scope="session")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of noise for training in each domain and one for testing, larger than the crop."""
    names = (*numbered(2, "trainA", "trainB"), *numbered(1, "testA", "testB"))
    return save_noise(tmp_path_factory.mktemp("noise"), *names, size=(320, 300))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of noise for training and one for testing, of two persons."""
    names = [f"train/{who}/{number}.png" for who in ("eve", "adam") for number in (1, 2)]
    return save_noise(tmp_path_factory.mktemp("faces"), *names, "val/eve/3.png", "test/adam/3.png", size=(48, 24))


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The program `modtrain`, as in an installation."""
    command = f'exec {shlex.quote(sys.executable)} -m modtrain "$@"'
    return executable(tmp_path / "modtrain", f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(python_path())}\n{command}\n")


@pytest.fixture
def swept(tiny_recipe: Path) -> Callable[..., Sweep]:
    """Makes the sweep that the scripts run, with two workers per trial, without submitting it."""

    def make(root: Path, rates: str, *where: str | Path) -> Sweep:
        what = ("--recipe", tiny_recipe, "--vary", f"lr={rates}", "--epochs", "1", "--name", "devcloud")
        in_process("sweep", *what, "--root", root, *where, "--dry-run")
        return Sweep.open(root / "devcloud")

    return make


def finished_trials(sweep: Sweep) -> int:
    return int(json.loads(output_of("sweep-status", sweep.path, "--json"))["counts"].get("finished", 0))


def is_finished(path: Path) -> bool:
    run = Run.open(path)
    return run.is_finished(run.modules)


def is_training(path: Path, *modules: str) -> bool:
    return (path / "run.json").exists() and all(Run.open(path).read_report(module).step for module in modules)


def at_full_size(recipe: str, params: dict[str, Any]) -> bool:
    if recipe == "biggan":
        sizes = params["crop_size"], params["generator"]["width"], params["discriminator"]["width"]
        return (*sizes, params["noise_size"], params["attention"]) in ((128, 64, 64, 120, 64), (32, 96, 48, 80, 16))
    if recipe == "dcgan":
        widths = params["generator"]["width"], params["discriminator"]["width"]
        return (params["crop_size"], *widths) in ((64, 64, 64), (128, 64, 128))
    if recipe == "progressive-gan":
        return (params["base"], params["most"], params["noise_size"]) == (8192, 512, 512)
    if recipe == "progressive-srgan":
        own = at_full_size("progressive-gan", params) and at_full_size("srgan", params["upscaling"])
        return own and (params["crop_size"], params["upscaling"]["scale"]) == (64, 4)
    if recipe == "pix2pix":
        sizes = params["crop_size"], params["generator"]["width"], params["generator"]["levels"]
        return (*sizes, params["discriminator"]["width"]) == (256, 64, 8, 64)
    if recipe == "srgan":
        sizes = params["crop_size"], params["generator"]["width"], params["generator"]["blocks"]
        return (*sizes, params["discriminator"]["width"]) == (96, 64, 16, 64)
    if recipe == "cyclegan":
        sizes = params["crop_size"], params["generator"]["width"], params["generator"]["blocks"]
        return (*sizes, params["discriminator"]["width"]) == (256, 64, 9, 64)
    sizes = params["crop_size"], params["encoder_decoder"]["width"], params["translator"]["blocks"]
    return (*sizes, params["discriminator"]["width"]) == (256, 64, 9, 256)


def test_the_readme_of_the_folder_names_exactly_its_files() -> None:
    named = re.findall(r"^\| `([^`]+)` \|", (JOBS / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in JOBS.iterdir() if path.name != "README.md")
    assert {path.name for path in CONFIGS} >= {"latent-translation-256.yaml"}
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_fits_its_recipe(path: Path) -> None:
    config = read_config(path, {}, [])
    recipe = load_recipe(config.recipe)
    spec, _ = draft(config, recipe)
    assert set(flatten(config.params)) <= {parameter.name for parameter in parameters(recipe.params)}
    assert spec.params == as_values(recipe.params(**spec.params))
    assert at_full_size(config.recipe, spec.params)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_command_in_the_first_lines_of_a_config_is_accepted(
    path: Path, dataroot: Path, faces: Path, tmp_path: Path
) -> None:
    (command,) = [line for line in path.read_text().splitlines() if line.startswith("#     modtrain ")]
    command = command.replace("~/data/apple2orange", str(dataroot)).replace("~/data/faces", str(faces))
    command = command.replace("~/data/flowers", str(faces)).replace("~/data/cifar10", str(faces))
    command = command.replace("~/data/div2k", str(faces))
    verb, named, *options = command.split()[2:]
    assert ROOT / named == path
    in_process(verb, path, *options, "--root", tmp_path, "--dry-run")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)  # about 30 s of CPU time, and the cores may be busy
def test_the_full_size_trains_every_module(dataroot: Path, tmp_path: Path) -> None:
    """Two joint steps: the encoder-decoder alone in the first, all three modules in the second."""
    config = JOBS / "latent-translation-256.yaml"
    options = ("--nodes", "1", "--backend", "local", "--device", "cpu", "--epochs", "1", "--name", "full", "--no-check")
    output_of("launch", config, *options, "--dataroot", dataroot, "--root", tmp_path)
    run = Run.open(tmp_path / "full")
    assert at_full_size(run.spec.recipe, run.spec.params)
    for module in run.modules:
        store = run.store(module)
        first, *_, last = (store.meta(version) for version in store.versions())
        assert (first.step, last.step, last.final) == (0, 2, True)
        assert first.files["weights.safetensors"]["sha256"] != last.files["weights.safetensors"]["sha256"]
    state = json.loads(output_of("status", run.path, "--json"))
    assert state["state"] == "finished"
    assert all(module["metrics"]["loss"] > 0 for module in state["modules"].values())


def test_the_config_of_cyclegan_places_halves_and_trains_them_at_a_reduced_size(dataroot: Path, tmp_path: Path) -> None:
    tiny = {"load_size": 24, "crop_size": 24, "generator.blocks": 1, "generator.width": 2, "discriminator.width": 2}
    settings = [f"{name}={value}" for name, value in (tiny | {"discriminator.lambda_r1": 0.1}).items()]
    config, recipe = read_config(JOBS / "cyclegan-256.yaml", {"dataroot": dataroot, "epochs": 1}, settings), "cyclegan"
    spec, _ = draft(config, load_recipe(recipe))
    assert spec.placement == [["generator_ab", "discriminator_b"], ["generator_ba", "discriminator_a"]]
    spec, _ = draft(config.model_copy(update={"nodes": 1}), load_recipe(recipe))
    run = Run.create(tmp_path / "run", spec)
    finish(run)
    assert run.is_finished(run.modules)


@pytest.mark.parametrize("path", [CLUSTER / "slurm.yaml", CLUSTER / "pbspro.yaml"], ids=lambda path: path.stem)
def test_the_pipeline_is_a_job_for_each_of_its_modules(path: Path, faces: Path, tmp_path: Path) -> None:
    where = ("--dataroot", faces, "--profile", path, "--root", tmp_path, "--name", "pipeline", "--dry-run")
    in_process("launch", JOBS / "progressive-srgan-256.yaml", "--no-check", *where)
    scripts = [script.read_text() for script in (tmp_path / "pipeline" / "jobs").glob("*.sh")]
    modules = ["discriminator", "generator", "upscaler", "upscaler_discriminator"]
    assert sorted(re.findall(r"--modules\s+(\w+)", "".join(scripts))) == modules


@pytest.fixture
def chain(installed: Path, tmp_path: Path) -> dict[str, Path]:
    """The variables of the scripts of the chain, for small runs."""
    recipes = {"GROWN": "progressive-gan", "SHARP": "srgan"}
    for variable, recipe in recipes.items():
        params = SMALL[recipe] | {"batch_size": 4, "crop_size": 16}
        params.pop("built_in", None)
        config = {"recipe": recipe, "params": params, "device": "cpu", "check": False, "evaluate_every": 0}
        (tmp_path / f"{variable}.yaml").write_text(json.dumps(config | {"epochs": 5}))
    save_noise(tmp_path / "data", *numbered(4, "train", "test"), size=(64, 64))
    (tmp_path / "my runs").mkdir()
    paths = {"RUNS": tmp_path / "my runs", "MODTRAIN": installed, "DATAROOT": tmp_path / "data"}
    return paths | {variable: tmp_path / f"{variable}.yaml" for variable in recipes}


def is_sampled(path: Path) -> bool:
    return len(list((path / "both/evaluation/samples").glob("*.png"))) == 64 and any(
        path.glob("both/evaluation/*.json*")
    )


@pytest.mark.slow
def test_the_chain_of_the_pipeline_ends_with_samples_on_slurm(
    slurm: Slurm, chain: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in chain.items():
        monkeypatch.setenv(name, str(value))

    def submitted(part: str, *options: str) -> str:
        monkeypatch.setenv("PART", part)
        return slurm.run("sbatch", "--parsable", *options, JOBS / "progressive-srgan-chain.sbatch")

    parts = submitted("grown"), submitted("sharp")
    last = submitted("both", f"--dependency=afterok:{':'.join(parts)}")
    for job in (*parts, last):
        assert slurm.until_over(job, timeout_s=120).exit_code == 0
    assert is_sampled(chain["RUNS"])


@pytest.mark.slow
def test_the_chain_of_the_pipeline_ends_with_samples_on_pbs_pro(pbs_pro: FakePbs, chain: dict[str, Path]) -> None:
    variables = ",".join(f"{name}={value}" for name, value in chain.items())

    def submitted(part: str, *options: str) -> str:
        script = str(JOBS / "progressive-srgan-chain.pbs")
        job = pbs_pro.run("qsub", "-v", f"PART={part},{variables}", *options, script)
        assert job.returncode == 0, job.stderr
        return job.stdout.strip()

    parts = submitted("grown"), submitted("sharp")
    last = submitted("both", "-W", f"depend=afterok:{':'.join(parts)}")
    pbs_pro.wait(last, "F", timeout_s=300)
    assert [pbs_pro.shown(job)["Exit_status"] for job in (*parts, last)] == ["0", "0", "0"]
    assert is_sampled(chain["RUNS"])


def test_the_study_of_dcgan_has_the_table_of_its_paper(tmp_path: Path) -> None:
    (command,) = [line for line in DCGAN_STUDY.read_text().splitlines() if line.startswith("#     modtrain ")]
    verb, named, *_ = shlex.split(command)[2:]
    assert ROOT / named == DCGAN_STUDY
    in_process(
        verb, DCGAN_STUDY, "--profile", CLUSTER / "slurm.yaml", "--root", tmp_path, "--name", "study", "--dry-run"
    )
    sweep = Sweep.open(tmp_path / "study")
    trials = [tuple(sweep.values(trial).values()) for trial in range(sweep.spec.trials)]
    assert sorted(trials) == sorted(itertools.product(("none", "both"), (32, 64), (0.0, 0.5)))


@pytest.mark.parametrize("recipe", ["dcgan", "biggan"])
def test_the_study_of_old_opponents_is_one_of_both_recipes_that_have_no_anchor(recipe: str, tmp_path: Path) -> None:
    where = ("--profile", CLUSTER / "slurm.yaml", "--root", tmp_path, "--name", "study", "--dry-run")
    in_process("sweep", OLD_OPPONENTS, "--recipe", recipe, *where)
    sweep = Sweep.open(tmp_path / "study")
    values = [sweep.values(trial) for trial in range(sweep.spec.trials)]
    assert values == [{"exchange_every": n, "seed": seed} for n in (1, 5, 10, 25, 62) for seed in (0, 1, 2)]
    assert (sweep.spec.config["recipe"], sweep.spec.config["max_staleness"]) == (recipe, "exchange")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_pix2pix_has_the_papers_trials_and_trains_its_first_one(
    path: Path, faces: Path, tmp_path: Path
) -> None:
    (command,) = [line for line in path.read_text().splitlines() if line.startswith("#     modtrain ")]
    verb, named, *options = shlex.split(command.replace("~/data/faces", str(faces)))[2:]
    assert ROOT / named == path
    tiny = {"load_size": 24, "crop_size": 24, "generator.levels": 3, "generator.width": 2, "discriminator.width": 2}
    small = [word for name, value in tiny.items() for word in ("--set", f"{name}={value}")]
    short = ("--epochs", "4", "--early-stop", "psnr,window=1,patience=1")
    where = ("--profile", CLUSTER / "slurm.yaml", "--root", tmp_path, "--dry-run")
    in_process(verb, path, *options, *small, *short, *where)
    sweep = Sweep.open(tmp_path / options[-1])
    assert [sweep.values(trial) for trial in range(sweep.spec.trials)] == STUDIES[path]
    in_process("trial", sweep.path, "--task", "0")
    assert is_finished(sweep.path / "trial-0000")


@by_name
def test_the_article_s_experiment_is_an_array_of_nine_on_every_scheduler(path: Path, tmp_path: Path) -> None:
    (command,) = [line for line in SWEEP.read_text().splitlines() if line.startswith("#     modtrain ")]
    words = shlex.split(command.removeprefix("#     modtrain"))
    assert (words[1], words[3]) == ("jobs/devcloud-sweep.yaml", "cluster/torque.yaml")
    words[1], words[3], words[5] = str(SWEEP), str(path), str(tmp_path)
    in_process(*words, "--dry-run")
    (script,) = (tmp_path / "devcloud" / "jobs").glob("*.sh")
    array = {"slurm": "#SBATCH --array=0-8%9", "pbspro": "#PBS -J 0-8%9", "torque": "#PBS -t 0-8%9"}[path.stem]
    shape = {
        "slurm": {"#SBATCH --time=04:00:00", "#SBATCH --cpus-per-task=2"},
        "pbspro": {"#PBS -l walltime=04:00:00", "#PBS -l select=1:ncpus=2:mem=4096mb"},
        "torque": {"#PBS -l walltime=06:00:00", "#PBS -l nodes=1:ppn=2"},
    }
    assert {array, *shape[path.stem]} <= set(script.read_text().splitlines())
    assert subprocess.run(["shellcheck", script]).returncode == 0


@pytest.mark.parametrize("script", [path for path in SCRIPTS if "sweep" in path.name], ids=lambda path: path.name)
def test_a_script_names_the_learning_rate_and_module_of_each_task(script: Path, tmp_path: Path) -> None:
    in_process(
        "sweep", SWEEP, "--profile", CLUSTER / "slurm.yaml", "--root", tmp_path, "--name", "devcloud", "--dry-run"
    )
    sweep = Sweep.open(tmp_path / "devcloud")
    text = script.read_text()
    rates = re.findall(r"0\.\d+", text)
    table = re.findall(r"^#     (\w+)" + 3 * r" +(?:task |TASK=)(\d)" + "$", text, re.MULTILINE)
    documented = {
        int(task): (module, rate) for module, *tasks in table for task, rate in zip(tasks, rates, strict=True)
    }
    actual = {}
    for task in range(9):
        trial, worker = divmod(task, sweep.workers)
        actual[task] = (*sweep.spec.placement[worker], str(sweep.values(trial)["lr"]))
    assert documented == actual


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_passes_bash_and_shellcheck_and_changes_to_an_absolute_folder(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert subprocess.run(["shellcheck", script]).returncode == 0
    assert '\ncd "$RUNS" || exit' in script.read_text()


def test_the_array_script_trains_a_sweep_on_slurm(
    slurm: Slurm, swept: Callable[..., Sweep], installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / 'it\'s "all" $HOME'
    sweep = swept(runs, "0.005", "--backend", "slurm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNS", str(runs))
    monkeypatch.setenv("MODTRAIN", str(installed))
    job = slurm.run("sbatch", "--parsable", "--array=0-1", JOBS / "devcloud-sweep.sbatch")
    ended = [slurm.until_over(f"{job}_{task}", timeout_s=120) for task in range(2)]
    assert {(task.state, task.exit_code) for task in ended} == {("COMPLETED", 0)}
    assert finished_trials(sweep) == 1


def test_a_job_of_two_nodes_trains_on_slurm_and_resumes_after_the_warning_signal(
    slurm: Slurm, tiny_recipe: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(tiny_recipe.read_text().replace("pause_s: float = 0.0", "pause_s: float = 0.3"))
    variables = {"RUNS": tmp_path / "my runs", "MODTRAIN": installed, "RECIPE": slow}
    for name, value in {**variables, "FIRST": "generator", "SECOND": "discriminator"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    job = slurm.run("sbatch", "--parsable", JOBS / "two-nodes.sbatch")
    assert slurm.until_running(job).node == "n[1-2]"
    path = tmp_path / "my runs" / "two-nodes"
    assert filesystem.wait_until(lambda: is_training(path, "generator", "discriminator") or None, timeout_s=120)
    slurm.run("scancel", "--signal=USR2", job)  # as --signal=USR2@300 does
    slurm.until(job, lambda job: job.restarts == 1)
    ended = slurm.until_over(job, timeout_s=120)
    assert (ended.state, ended.exit_code) == ("COMPLETED", 0)
    assert is_finished(path)


@pytest.mark.slow
@pytest.mark.timeout(900)  # three Ray nodes start on two cores
def test_a_slurm_job_of_three_nodes_trains_on_a_ray_cluster(
    slurm: Slurm, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "my config.yaml"
    recipe_of_three(tmp_path / "three.py", tiny_recipe)
    config.write_text("recipe: three.py\nepochs: 2\n")
    variables = {"RUNS": tmp_path / "my runs", "CHECKOUT": ROOT, "CONFIG": config, "MODTRAIN_PYTHON": sys.executable}
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    job = slurm.run("sbatch", "--parsable", JOBS / "ray.sbatch")
    ended = slurm.until_over(job, timeout_s=600)
    assert (ended.state, ended.exit_code) == ("COMPLETED", 0), (tmp_path / f"ray-{job}.log").read_text()
    assert is_finished(tmp_path / "my runs" / "on-ray")


def test_the_array_script_and_a_job_of_two_nodes_train_on_pbs_pro(
    pbs_pro: FakePbs, swept: Callable[..., Sweep], tiny_recipe: Path, installed: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "my runs"
    sweep = swept(runs, "0.005", "--profile", CLUSTER / "pbspro.yaml")
    variables = f"RUNS={runs},MODTRAIN={installed}"
    program = executable(tmp_path / "pbsdsh", PBSDSH)
    modules = f"{variables},PBSDSH={program},RECIPE={tiny_recipe},FIRST=generator,SECOND=discriminator"
    jobs = [
        pbs_pro.run("qsub", "-v", variables, "-J", "0-1", str(JOBS / "devcloud-sweep.pbs")),
        pbs_pro.run("qsub", "-v", modules, str(JOBS / "two-nodes.pbs")),
    ]
    for job in jobs:
        assert job.returncode == 0, job.stderr
        pbs_pro.wait(job.stdout.strip(), "F", timeout_s=180)
        assert pbs_pro.shown(job.stdout.strip())["Exit_status"] == "0"
    assert finished_trials(sweep) == 1
    assert is_finished(runs / "two-nodes")


def test_plain_jobs_train_a_sweep_by_torque_s_commands(
    slurm: Slurm, swept: Callable[..., Sweep], installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = swept(tmp_path / "runs", "0.005", "--profile", CLUSTER / "torque.yaml")
    monkeypatch.chdir(tmp_path)
    shutil.copy(JOBS / "devcloud-sweep-torque.pbs", tmp_path)
    variables = f"RUNS={tmp_path / 'runs'},MODTRAIN={installed}"
    jobs = [slurm.run("qsub", "-v", f"TASK={task},{variables}", "devcloud-sweep-torque.pbs") for task in range(2)]
    assert {(slurm.until_over(job, timeout_s=120).exit_code) for job in jobs} == {0}
    assert finished_trials(sweep) == 1
