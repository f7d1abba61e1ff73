"""The pipeline of progressive GAN and SRGAN: two pairs in one run that never wait for each other, and both sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from modtrain.data.images import as_float
from modtrain.data.two_sizes import large_images
from modtrain.errors import InputError
from modtrain.metrics.sample_grid import to_uint8
from modtrain.recipes import progressive_gan, srgan
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.params import build_params
from modtrain.recipes.progressive_srgan import Params, data, recipe, stages
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.evaluation import evaluate
from modtrain.training.inference.model import load
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from tests.support.command import typed
from tests.support.losses import SMALL as SIZES
from tests.support.losses import merged
from tests.support.runs import finish, make_run, train_apart, weights_of

SMALL = merged(SIZES["progressive-srgan"], batch_size=4, upscaling={"scale": 4})
PAIRS = (("generator", "discriminator"), ("upscaler", "upscaler_discriminator"))
JOINT = ((*PAIRS[0], *PAIRS[1]),)


def small(**changes: Any) -> Params:
    params: Params = build_params(recipe.params, merged(SMALL, **changes))
    return params


def worker_of(run: Run) -> Worker:
    heartbeat = Heartbeat(map(run.heartbeat_path, run.modules))
    return Worker(run, run.modules, heartbeat, Shutdown(run), WorkerEvents(run, run.modules), device="cpu")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight large images."""
    folder = tmp_path_factory.mktemp("noise")
    for number in range(8):
        path = folder / "train" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((64, 64), 20 + number).save(path)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, noise: Path) -> Run:
    """A joint run with its five stages in as many epochs, each of two steps."""
    path = tmp_path_factory.mktemp("runs") / "joint"
    run = make_run(path, "progressive-srgan", JOINT, device="cpu", params=SMALL, epochs=5, dataroot=noise)
    finish(run)
    return run


def test_no_pair_reads_the_other_one() -> None:
    for pair in PAIRS:
        assert recipe.reads(pair, small()).keys() <= {"features"}
        assert recipe.connected(pair[:1]) == set(pair), "whom a worker waits for at a new stage"
    assert recipe.trained == [*PAIRS[0], *PAIRS[1]]
    assert recipe.placement == ()


def test_a_pair_trains_to_the_end_of_the_run_while_the_other_one_is_not_there(tmp_path: Path, noise: Path) -> None:
    params = SMALL | {"size": 8}
    apart = [[module] for pair in PAIRS for module in pair]
    run = make_run(tmp_path / "run", "progressive-srgan", apart, device="cpu", params=params, epochs=3, dataroot=noise)
    for pair in reversed(PAIRS):
        assert not any(run.store(module).versions() for module in PAIRS[0]), "the other one has not begun"
        train_apart(run, *([module] for module in pair))
        assert run.is_finished(pair)


@pytest.mark.parametrize(
    ("share", "fewest"), [(2 / 3, "16-fade"), (0.1, "8-fade"), (0.99, "16"), (0.0, "4"), (1.0, None)]
)
def test_the_second_stage_of_the_upscaler_begins_with_a_size(share: float, fewest: str | None) -> None:
    params = small(upscaling={"pretraining": share}, batch_sizes=[16, 16, 8])
    found = {stage.name: (stage, stage.params(params)) for stage in stages(params)}
    assert list(found) == ["4", "8-fade", "8", "16-fade", "16"]
    gan = [name for name, (stage, _) in found.items() if "upscaler_discriminator" in (stage.trains or ())]
    weighs = [name for name, (_, p) in found.items() if p.upscaling.generator.lambda_content]
    assert gan[:1] == ([fewest] if fewest else ["4"])  # with 1 its schedule rests it
    assert weighs[:1] == ([fewest] if fewest else [])
    steps = {"4": 1, "8-fade": 1, "8": 1, "16-fade": 2, "16": 2}
    before = sum(steps[name] for name in found if fewest and list(found).index(name) < list(found).index(fewest))
    assert all(p.upscaling.pretraining == pytest.approx(before / 7 if fewest else 1.0) for _, p in found.values()), (
        "schedules go by steps"
    )
    for name, (stage, _) in found.items():
        assert not isinstance(stage.fresh_optimizers, bool)
        own = set(stage.fresh_optimizers) - set(PAIRS[0])
        assert own == (set(PAIRS[1]) if name == fewest else set()), "an upscaler's moments outlive a size"


def test_a_worker_draws_what_its_modules_use_and_loads_large_images_for_these_alone(
    noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, loaded, drawn = small(batch_sizes=[2, 4]), list[str](), dict[tuple[str, ...], Any]()

    def load(dataroot: Path, split: str, size: int, **options: Any) -> Any:
        loaded.append(split if options.get("most") is None else "tested")
        return large_images(dataroot, split, size, **options)

    monkeypatch.setattr("modtrain.recipes.progressive_srgan.large_images", load)
    read = data(noise, params)
    assert read.train_of is not None
    for modules in (PAIRS[0], ("upscaler",), ("generator", "upscaler")):
        drawn[modules] = next(read.train_of(modules).epoch(0, seed=3))
        assert loaded == ["tested"] + ["train"] * (modules != PAIRS[0]), "once"
    growing, crops, both = drawn.values()
    assert (set(growing), set(crops), set(both)) == ({"image"}, {"lr", "hr"}, {"image", "lr", "hr"})
    for part in (growing, crops):
        assert all(torch.equal(value, both[name]) for name, value in part.items())
    of_growing = next(progressive_gan.data(noise, params).train.epoch(0, seed=3))
    assert torch.equal(of_growing["image"], growing["image"])
    assert (crops["hr"].shape, crops["lr"].shape) == ((4, 3, 16, 16), (4, 3, 4, 4))
    assert read.at is not None
    of_stage = read.at(stages(params)[0].params(params)).train_of
    assert of_stage is not None
    assert [len(of_stage([module])) for module in recipe.trained] == [4] * 4


def test_a_step_of_each_pair_is_that_of_its_own_recipe(tmp_path: Path, noise: Path) -> None:
    params = merged(SMALL, upscaling=SMALL["upscaling"] | {"pretraining": 0.0}, size=8)
    where: dict[str, Any] = {"device": "cpu", "epochs": 3, "dataroot": noise}
    whole = worker_of(make_run(tmp_path / "whole", "progressive-srgan", JOINT, params=params, **where))
    alone = {name: value for name, value in params.items() if name not in ("upscaling", "enlarged")}
    parts = {
        "progressive-gan": (alone, {name: name for name in PAIRS[0]}),
        "srgan": (params["upscaling"] | {"crops": 8}, dict(zip(PAIRS[0], PAIRS[1], strict=True))),
    }
    learners = {learner.name: learner for learner in whole.learners}
    workers, pairs = [whole], []
    for name, (values, names) in parts.items():
        workers.append(worker_of(make_run(tmp_path / name, name, [tuple(names)], params=values, **where)))
        pairs += [(learner, learners[names[learner.name]]) for learner in workers[-1].learners]
    for own, of_whole in pairs:
        for net, other in ((own.net, of_whole.net), (own.average, of_whole.average)):
            assert (net is None) == (other is None)
            if net is not None and other is not None:
                net.load_state_dict(other.state_dict())
    for batch in whole.stage.batches.epoch(0, seed=0):
        for worker in workers:
            torch.manual_seed(5)
            worker.train_on(batch)
    for own, of_whole in pairs:
        states = own.net.state_dict(), of_whole.net.state_dict()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        if own.average is not None and of_whole.average is not None:
            states = own.average.state_dict(), of_whole.average.state_dict()
            assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_run_that_is_killed_goes_on_bit_identical(tmp_path: Path, finished: Run) -> None:
    """As after a kill: nothing was published beyond the epoch of the upscaler's change of stage."""
    run = Run.open(shutil.copytree(finished.path, tmp_path / "killed"))
    for module in run.modules:
        for checkpoint in run.store(module).newest(where=lambda each: each.epoch > 3):
            filesystem.retire_folder(run.store(module).folder(checkpoint.version))
    finish(run)
    assert "Resumed at step 6 of 10" in run.log_path("generator").read_text()
    assert weights_of(run) == weights_of(finished)


def test_samples_are_large_and_are_what_apply_makes_of_small_ones(finished: Run) -> None:
    model = load(finished)
    large = model.sample(3, seed=1)
    assert large.shape == (3, 3, 64, 64)
    noise = model.noise(3, seed=1)
    with torch.no_grad():
        files = to_uint8(model.networks["generator"](noise))
    assert files.shape == (3, 3, 16, 16)
    assert torch.equal(model.apply(as_float(files)), large)
    assert model.apply(torch.zeros(3, 5, 9)).shape == (3, 20, 36)


def test_an_evaluation_has_table_2_with_bicubic_and_reals_beside(
    finished: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = evaluate(Run.open(shutil.copytree(finished.path, tmp_path / "run")))
    metrics = result["metrics"]
    table = [f"{kind}{name}" for kind in ("", "upscaled_") for name in ("swd", "ms_ssim", "class_score_orchard")]
    assert set(table) | {f"{name}_reals" for name in table} <= set(metrics)
    assert {"bicubic_swd", "bicubic_ms_ssim", "bicubic_class_score_orchard", "psnr", "bicubic_psnr"} <= set(metrics)
    assert {"swd_16", "upscaled_swd_64", "upscaled_swd_16", "bicubic_swd_64", "stage_fid_orchard"} <= set(metrics)
    assert not any(name.startswith("bicubic") and name.endswith("reals") for name in metrics)
    assert "lower_is_better" not in caplog.text, "each of its names is measured"
    lower = set(recipe.lower_is_better)
    assert {"swd", "upscaled_swd", "bicubic_swd", "perceptual_orchard", "upscaled_fid_orchard"} <= lower
    assert recipe.primary_metric == "upscaled_swd"
    with Image.open(result["grid"]) as grid:
        assert grid.height > 4 * 64
    scored = typed("evaluate", tmp_path / "run", "--metric", "swd", "--samples", 8, "--json")
    assert json.loads(scored.out)["images"] == {"count": 8, "size": 64}, "large samples with large images"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"upscaling": {"crop_size": 80}}, "upscaling.crop_size = 80 is larger than the large images, which have 64"),
        ({"upscaling": {"scale": 5}}, "scale = 5 is not allowed"),
        ({"enlarged": 1}, "enlarged = 1 is not allowed"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small(**changes)


def test_a_single_size_has_no_place_for_a_change_of_stage() -> None:
    with pytest.raises(InputError, match=r"upscaling.pretraining = 0.5 is not allowed where size = 16 is the only one"):
        stages(small(size=16, upscaling={"pretraining": 0.5}))
    assert len(stages(small(size=16, upscaling={"pretraining": 0.0}))) == 1


def test_images_that_are_no_large_ones_are_refused(noise: Path) -> None:
    sentence = r"^Images are smaller than 96 x 96 pixels: 8 of 8, such as .*0.png; give large images, or a smaller"
    with pytest.raises(InputError, match=sentence):
        data(noise, small(load_size=24))


def test_the_modules_of_a_part_keep_the_keys_of_once_apart() -> None:
    names = {"generator": "upscaler", "discriminator": "upscaler_discriminator"}
    built = {name: module.build(small()) for name, module in recipe.modules.items()}
    nets = Nets({name: [net] for name, net in built.items()}, {})
    view = nets.renamed(names)
    assert view.generator is built["upscaler"]
    assert view.features is nets.features
    one = nets.once("fake", lambda: torch.zeros(1))
    other = view.once("fake", lambda: torch.ones(1))
    assert (float(one), float(other)) == (0.0, 1.0)
    assert srgan.recipe.modules["generator"].reads != recipe.modules["upscaler"].reads


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, noise: Path) -> dict[str, Run]:
    """A finished run of each of the two recipes, with sizes that are not the defaults."""
    folder = tmp_path_factory.mktemp("parts")
    alone = {name: value for name, value in SMALL.items() if name not in ("upscaling", "enlarged")}
    values = {"progressive-gan": (alone, 5), "srgan": (SMALL["upscaling"] | {"crops": 8}, 2)}
    runs = {}
    for name, (params, epochs) in values.items():
        where: dict[str, Any] = {"device": "cpu", "dataroot": noise, "params": params, "epochs": epochs}
        runs[name] = make_run(folder / name, name, [PAIRS[0]], **where)
        finish(runs[name])
    return runs


def test_two_finished_runs_are_put_together_by_hand(tmp_path: Path, parts: dict[str, Run]) -> None:
    """With the parameters of both; samples are what the second run makes of the first one's."""
    words = ("--recipe", "progressive-srgan", "--root", tmp_path, "--name", "both", "--enlarged", 8, "--no-check")
    made = typed("import", *(run.path for run in parts.values()), *words)
    assert made.code == 0, made.err
    assert f"{parts['srgan'].path}#discriminator" in "".join(made.out.split())
    assert f"modtrain sample {tmp_path / 'both'}" in made.out
    both = load(tmp_path / "both")
    assert (both.params.base, both.params.noise_size, both.params.enlarged) == (16, 6, 8)
    assert (both.params.upscaling.scale, both.params.upscaling.generator.width) == (4, 2)
    by_hand = load(parts["srgan"]).apply(as_float(to_uint8(load(parts["progressive-gan"]).sample(3, seed=4))))
    assert torch.equal(both.sample(3, seed=4), by_hand)
    assert evaluate(tmp_path / "both")["metrics"]["upscaled_swd"] > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("GROWN GROWN", "generator is in GROWN#generator and in GROWN#generator; give one run of progressive-gan."),
        (
            "BOTH",
            "is a run of progressive-srgan, and progressive-srgan is put together from progressive-gan and srgan.",
        ),
        (
            "GROWN",
            "No run has upscaler, upscaler_discriminator; give a run of each of progressive-gan and srgan, or with",
        ),
        ("GROWN nowhere", "There is no run in nowhere"),
        ("nowhere GROWN", "There is no run in nowhere; give the runs of the recipe's parts, or one folder of files."),
        ("GROWN@7000 SHARP", "7000"),
        ("GROWN SHARP --noise-size 7", "does not fit generator"),
    ],
)
def test_runs_that_cannot_be_put_together_are_refused(
    tmp_path: Path, parts: dict[str, Run], finished: Run, words: str, sentence: str
) -> None:
    runs = {"GROWN": parts["progressive-gan"].path, "SHARP": parts["srgan"].path, "BOTH": finished.path}
    for name, path in runs.items():
        words, sentence = words.replace(name, str(path)), sentence.replace(name, str(path))
    made = typed("import", *words.split(), "--recipe", "progressive-srgan", "--root", tmp_path, "--no-check")
    assert made.code == 2
    assert sentence in " ".join(made.err.split())
    assert not list(tmp_path.iterdir())


def test_a_new_run_begins_with_the_generators_of_both_runs(tmp_path: Path, parts: dict[str, Run]) -> None:
    references = {"generator": f"{parts['progressive-gan'].path}", "upscaler": f"{parts['srgan'].path}#generator"}
    init = [word for module, reference in references.items() for word in ("--init", f"{module}={reference}")]
    where = ("--recipe", "progressive-srgan", "--root", tmp_path, "--no-check", "--dry-run")
    refused = typed("launch", *init, *where)
    assert refused.code == 2
    assert "does not fit generator: " in refused.err
    sizes = ("--noise-size", 6, "--base", 16, "--most", 6, "--load-size", 16, "--crop-size", 16)
    upscaling = ("--upscaling-crop-size", 16, "--upscaling-generator-width", 2, "--upscaling-generator-blocks", 1)
    begun = typed("launch", *init, *where, *sizes, *upscaling)
    assert begun.code == 0, begun.err


def test_an_upscaler_comes_from_a_file_of_another_project(tmp_path: Path, noise: Path) -> None:
    params = srgan.UpscalingParams(generator=srgan.GeneratorParams(width=6, blocks=3, norm="batch", skip="none"))
    net, file = srgan.build_generator(params), srgan.srgan_pytorch_files.files["generator"]
    torch.save({"state_dict": dict(file.exported(net))}, tmp_path / "g_best.pth.tar")
    words = ("--recipe", "progressive-srgan", "--root", tmp_path, "--name", "run", "--dataroot", noise, "--no-check")
    small_sizes = ("--load-size", 16, "--crop-size", 16, "--base", 16, "--most", 6)
    made = typed("import", tmp_path, "--epoch", "best", *words, *small_sizes)
    assert made.code == 0, made.err
    model = load(tmp_path / "run")
    assert model.params.upscaling.generator.blocks == 3
    assert torch.equal(model.networks["upscaler"].state_dict()["out.weight"], net.state_dict()["out.weight"])


def test_runs_of_different_data_need_a_data_set(tmp_path: Path, parts: dict[str, Run], finished: Run) -> None:
    sharp = make_run(tmp_path / "sharp", "srgan", [PAIRS[0]], params=SMALL["upscaling"], device="cpu", epochs=2)
    words = ("--recipe", "progressive-srgan", "--root", tmp_path, "--no-check")
    made = typed("import", parts["progressive-gan"].path, sharp.path, *words)
    assert made.code == 2
    assert "The runs were trained on different data" in made.err
    assert "on built-in data; give --dataroot." in " ".join(made.err.split())


def test_an_option_of_the_command_line_is_the_growing_parts_where_both_have_one(tmp_path: Path) -> None:
    words = ("--batch-size", 9, "--upscaling-batch-size", 7, "--lr", 0.5, "--generator-lr", 0.25, "--width", 3)
    where = ("--dry-run", "--no-check", "--root", tmp_path)
    result = typed("launch", "--recipe", "progressive-srgan", *words, *where)
    assert result.code == 0, result.err
    shown = {line.split()[0]: line.split()[1] for line in result.out.splitlines() if "(default" in line}
    assert shown == {
        "batch_size": "9",
        "upscaling.batch_size": "7",
        "generator.lr": "0.25",
        "discriminator.lr": "0.5",
        "upscaling.generator.lr": "0.5",
        "upscaling.discriminator.lr": "0.5",
        "upscaling.generator.width": "3",
        "upscaling.discriminator.width": "3",
    }
    assert all(module in result.out for module in recipe.trained)
