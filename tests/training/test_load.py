"""`modtrain.load`: the trained networks of a run in one line, at any version that is still there, on images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import modtrain
from modtrain.errors import InputError
from modtrain.recipes.sampling import Sampling
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from modtrain.training.evaluation import evaluate
from modtrain.training.inference.model import TrainedModel
from tests.support import SUPPORT, runs
from tests.support.command import typed

TOGETHER = [["generator", "discriminator"]]


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with versions 0, 1 and 2 of both modules."""
    run = runs.make_run(tmp_path_factory.mktemp("load") / "painted", SUPPORT / "painting.py", [["painter", "critic"]])
    runs.finish(run)
    return run


def published(run: Run, module: str, version: int, file: str) -> dict[str, torch.Tensor]:
    store = run.store(module)
    return safetensors.torch.load(store.read(store.meta(version), file))


def holds(run: Run, module: str, model: TrainedModel, version: int, file: str) -> bool:
    weights = published(run, module, version, file)
    return all(torch.equal(value, weights[name]) for name, value in model.networks[module].state_dict().items())


def test_one_line_gives_the_networks_of_the_newest_checkpoints_averaged_where_there_is_an_average(painted: Run) -> None:
    model = modtrain.load(painted.path)
    assert model.versions == {"painter": 2, "critic": 2}
    assert holds(painted, "painter", model, 2, "ema.safetensors")
    assert not holds(painted, "painter", model, 2, "weights.safetensors")
    assert holds(painted, "critic", model, 2, "weights.safetensors")
    assert not any(net.training for net in model.networks.values())
    assert modtrain.load(str(painted.path)).versions == modtrain.load(painted).versions == model.versions


def test_a_file_a_picture_and_a_tensor_are_all_applied_alike(painted: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    model = modtrain.load(painted.path, device="cpu")
    of_path = model.apply(tmp_path / "image.png")
    of_picture = model.apply(Image.fromarray(pixels).convert("RGBA"))
    assert isinstance(of_path, Image.Image)
    assert (of_path.size, of_path.mode) == ((9, 7), "RGB")
    assert np.array_equal(np.asarray(of_path), np.asarray(of_picture))
    image = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    single, batch = model.apply(image), model.apply(torch.stack([image, image]))
    assert isinstance(single, torch.Tensor)
    assert isinstance(batch, torch.Tensor)
    assert (single.shape, batch.shape) == ((3, 7, 9), (2, 3, 7, 9))
    assert not single.requires_grad
    expected = torch.tanh(model.networks["painter"](image[None]))[0]
    assert torch.allclose(single, expected)
    assert np.allclose(np.asarray(of_path), (single.permute(1, 2, 0) + 1) * 127.5, atol=0.51)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(4, 4), r"shape \(4, 4\); give floats in \[-1, 1\] of shape \(3, H, W\) or \(N, 3, H, W\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "images is a tensor of torch.uint8"),
        (torch.full((3, 4, 4), 255.0), r"images has values up to 255; scale them to \[-1, 1\]"),
        (5, "images is a int; give a path, a PIL image or a tensor"),
        ("no such image.png", "no such image.png cannot be read as an image"),
    ],
)
def test_what_is_not_an_image_is_refused_with_what_is_allowed(painted: Run, images: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        modtrain.load(painted.path, device="cpu").apply(images)  # type: ignore[arg-type]


def test_a_version_is_chosen_for_all_modules_or_for_some(painted: Run) -> None:
    assert modtrain.load(painted.path, version=1).versions == {"painter": 1, "critic": 1}
    mixed = modtrain.load(painted.path, version={"painter": 0})
    assert mixed.versions == {"painter": 0, "critic": 2}
    assert holds(painted, "painter", mixed, 0, "ema.safetensors")


def test_a_selection_that_cannot_be_loaded_is_an_error_that_says_what_is_there(painted: Run) -> None:
    with pytest.raises(InputError, match=r"Version 7 of painter does not exist\. Available: 0, 1, 2\."):
        modtrain.load(painted.path, version=7)
    with pytest.raises(InputError, match="has no module 'paintr'; it has painter, critic"):
        modtrain.load(painted.path, version={"paintr": 1})
    with pytest.raises(InputError, match="either version or best"):
        modtrain.load(painted.path, version=1, best=True)
    with pytest.raises(InputError, match="--device cuda:99 is not available"):
        modtrain.load(painted.path, device="cuda:99")
    with pytest.raises(InputError, match="is no run"):
        modtrain.load(painted.path.parent)


def test_a_recipe_without_apply_still_gives_its_networks(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, epochs=1)
    with pytest.raises(InputError, match="no readable checkpoint of generator yet"):
        modtrain.load(run.path)
    runs.finish(run)
    model = modtrain.load(run.path, device="cpu")
    assert model.networks["generator"](torch.zeros(1, 4)).shape == (1, 4)
    for images in (torch.zeros(3, 4, 4), "missing.jpg"):
        with pytest.raises(InputError, match="has no `apply`; add one"):
            model.apply(images)
    assert "has no `apply`; add one" in typed("apply", run.path, "missing.jpg").err
    model = dataclasses.replace(
        model, recipe=dataclasses.replace(model.recipe, sample=Sampling(generate=max, noise_size=4))
    )
    with pytest.raises(InputError, match="has no `apply`: it makes images from noise; use `sample`"):
        model.check_applicable()


SETTLE = """
def settle(net, params):
    net.train()
    for _ in range(3):
        net(torch.randn(64, 3, 4, 4) + 5)

recipe = Recipe("""


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A painter that works in train mode, and a critic with standing statistics, both with batch normalisation."""
    folder = tmp_path_factory.mktemp("normalised")
    text = (SUPPORT / "painting.py").read_text().replace("\nrecipe = Recipe(", SETTLE)
    painter = "nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)), infer_mode=lambda params: 'train'"
    critic = "nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1)), settle=settle"
    text = text.replace("nn.Conv2d(3, 3, 1)", painter).replace("nn.Conv2d(3, 1, 1)", critic)
    (folder / "normalised.py").write_text(text)
    run = runs.make_run(folder / "run", folder / "normalised.py", [["painter", "critic"]], epochs=1)
    runs.finish(run)
    return run


def test_a_network_of_infer_mode_train_applies_batch_statistics_and_dropout_alike_each_time(normalised: Run) -> None:
    model = modtrain.load(normalised.path, device="cpu")
    assert [net.training for net in model.networks.values()] == [True, False]
    one, other = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    applied = model.apply(one)
    assert isinstance(applied, torch.Tensor)
    assert not torch.equal(model.apply(other), applied)
    assert torch.equal(model.apply(one), applied)
    assert 0.3 < float(applied.eq(0).float().mean()) < 0.7, "dropout is the noise"
    weights = published(normalised, "painter", 1, "ema.safetensors")
    encoded = torch.nn.functional.conv2d(one, weights["0.weight"], weights["0.bias"])
    by_hand = torch.nn.functional.batch_norm(encoded, None, None, weights["1.weight"], weights["1.bias"], training=True)
    kept = applied.ne(0)
    torch.testing.assert_close(applied[kept], torch.tanh(2 * by_hand)[kept])
    assert holds(normalised, "painter", model, 1, "ema.safetensors"), "what is applied leaves no trace"


def test_a_network_is_settled_once_when_it_is_loaded_alike_in_each_process_and_evaluated_so(normalised: Run) -> None:
    torch.manual_seed(1)
    first = modtrain.load(normalised.path, device="cpu").networks["critic"]
    drawn = torch.rand(())
    torch.manual_seed(2)
    second = modtrain.load(normalised.path, device="cpu").networks["critic"]
    torch.manual_seed(1)
    assert torch.equal(torch.rand(()), drawn), "generators are left as they were"
    standing, trained = first[1], published(normalised, "critic", 1, "weights.safetensors")
    assert torch.equal(standing.running_mean, second[1].running_mean)
    assert standing.num_batches_tracked == trained["1.num_batches_tracked"] + 3
    assert not first.training
    assert not any(weight.requires_grad for weight in first.parameters())
    assert torch.equal(first[0].weight, trained["0.weight"])
    torch.manual_seed(normalised.spec.seed)
    expected = float(first(torch.randn(1, 3, 8, 8)).mean())
    assert evaluate(normalised, device="cpu")["metrics"]["score"] == pytest.approx(expected)


def test_an_image_that_cannot_be_read_is_named_once_in_words(painted: Run, tmp_path: Path) -> None:
    model = modtrain.load(painted.path)
    with pytest.raises(InputError, match=r"^missing\.jpg cannot be read as an image: No such file or directory\.$"):
        model.apply("missing.jpg")
    with pytest.raises(InputError, match=r"cannot be read as an image: Is a directory\.$"):
        model.apply(tmp_path)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Versions 0 to 2, of which version 1 has the highest score and version 2 the lowest."""
    path = tmp_path_factory.mktemp("best") / "run"
    run = runs.make_run(path, SUPPORT / "painting.py", [["painter", "critic"]])
    runs.finish(run)
    evaluate(run)
    [line] = read_lines(run)
    scores = {0: 0.5, 1: 0.9, 2: 0.1}
    write_lines(
        run,
        [
            {
                **line,
                "versions": dict.fromkeys(run.modules, version),
                "metrics": {"score": score, "perfect": None, "error": score},
            }
            for version, score in scores.items()
        ],
    )
    return run


def test_the_best_evaluation_is_that_of_the_run_s_metric_or_of_the_first_one(evaluated: Run) -> None:
    assert modtrain.load(evaluated.path, best=True).versions == {"painter": 1, "critic": 1}
    by_error = Run(evaluated.path, evaluated.spec.model_copy(update={"lower_is_better": ["error"], "metric": "error"}))
    assert modtrain.load(by_error, best=True).versions == {"painter": 2, "critic": 2}


@pytest.mark.parametrize(("primary", "version"), [("error", 2), ("likeness", 1)])
def test_the_metric_of_the_recipe_counts_where_it_is_measured(evaluated: Run, primary: str, version: int) -> None:
    spec = evaluated.spec.model_copy(update={"lower_is_better": ["error"], "primary_metric": primary})
    by_recipe = Run(evaluated.path, spec)
    assert modtrain.load(by_recipe, best=True).versions == dict.fromkeys(evaluated.modules, version)


def test_a_metric_of_the_run_that_is_never_measured_is_an_error_that_names_the_way_out(evaluated: Run) -> None:
    chosen = Run(evaluated.path, evaluated.spec.model_copy(update={"metric": "likeness"}))
    way_out = (
        rf"perfect, error\. `modtrain launch {evaluated.path} --metric NAME` compares its versions by another one\."
    )
    with pytest.raises(InputError, match=way_out):
        modtrain.load(chosen, best=True)
    plan_run(find_target(Config(root=str(evaluated.path.parent), name=evaluated.name, metric="error")))


def test_less_is_better_where_the_run_says_so(evaluated: Run) -> None:
    lower = Run(evaluated.path, evaluated.spec.model_copy(update={"lower_is_better": ["error"]}))
    assert modtrain.load(lower, best="error").versions == {"painter": 2, "critic": 2}
    assert modtrain.load(lower, best="score").versions == {"painter": 1, "critic": 1}


@pytest.mark.parametrize("metric", ["perfect", "scor"])
def test_a_metric_without_a_value_is_an_error_that_names_the_others(evaluated: Run, metric: str) -> None:
    with pytest.raises(InputError, match=f"has a value of '{metric}'; metrics: score, perfect, error"):
        modtrain.load(evaluated.path, best=metric)


def test_a_run_is_not_compared_by_a_metric_that_its_evaluations_do_not_have(evaluated: Run) -> None:
    config = Config(root=str(evaluated.path.parent), name=evaluated.name, metric="eror")
    with pytest.raises(InputError, match=r"'eror'; metrics: score, perfect, error\."):
        plan_run(find_target(config, named_by_folder=True))


def test_a_run_without_an_evaluation_says_how_to_get_one(painted: Run) -> None:
    with pytest.raises(InputError, match="has no evaluation yet; run `modtrain evaluate "):
        modtrain.load(painted.path, best=True)


def test_the_best_version_may_have_been_pruned_which_is_an_error(evaluated: Run, tmp_path: Path) -> None:
    pruned = Run.open(shutil.copytree(evaluated.path, tmp_path / "pruned"))
    filesystem.retire_folder(pruned.store("critic").folder(1))
    message = (
        r"Version 1 of critic \(of the best evaluation, score = 0\.9\) was pruned: a run keeps only its newest "
        r"versions\. Available: 0, 2\."
    )
    with pytest.raises(InputError, match=message):
        modtrain.load(pruned.path, best=True)


def read_lines(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.path / "evaluation/metrics.jsonl").read_text().splitlines()]


def write_lines(run: Run, lines: list[dict[str, object]]) -> None:
    (run.path / "evaluation/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
