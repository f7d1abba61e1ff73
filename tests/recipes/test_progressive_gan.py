"""Progressive GAN: its stages, what each loss trains, a plain loop beside it, and resuming inside a fade."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modtrain.bench.plain_progressive_gan import PlainProgressiveGan
from modtrain.data.fruits.orchard import orchard
from modtrain.data.labelled import LabelledTest
from modtrain.errors import InputError
from modtrain.nets.progressive import Growth, shrunk
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.params import build_params
from modtrain.recipes.progressive_gan import Params, data, recipe, stages
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from tests.support.losses import SMALL as SIZES
from tests.support.losses import Losses
from tests.support.runs import finish, make_run, weights_of

SMALL, LOSSES = SIZES["progressive-gan"], Losses(recipe)
JOINT = (("generator", "discriminator"),)


def small(**changes: Any) -> Params:
    params: Params = build_params(recipe.params, {**SMALL, **changes})
    return params


def nets_of(params: Params, step: int = 0) -> tuple[dict[str, nn.Module], Nets]:
    """Both networks live, as on one worker, at a quarter of the stage."""
    networks = LOSSES.built(params)
    nets = LOSSES.nets_of(params, networks)
    nets.start_step(step=step, progress=0.0, stage="8-fade", stage_progress=0.25)
    return networks, nets


def losses(params: Params, module: str, *, step: int = 0) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
    """The losses of a module, whose gradient is computed as in a step, and both networks."""
    networks, nets = nets_of(params, step)
    batch = {"image": torch.rand(8, 3, params.size, params.size) * 2 - 1}
    return LOSSES.gradients_of(module, networks, nets, batch, params), networks


def test_each_size_but_the_first_one_is_faded_in_before_it_stands_alone() -> None:
    sizes = {"batch_sizes": [64, 32, 16], "rates": "1,1.5", "lengths": [1, 2]}
    params = small(crop_size=32, load_size=32, generator={"lr": 1e-3}, **sizes)
    found = {stage.name: (stage.epochs, stage.params(params)) for stage in stages(params)}
    assert list(found) == ["4", "8-fade", "8", "16-fade", "16", "32-fade", "32"]
    assert [epochs for epochs, _ in found.values()] == [1, 2, 2, 2, 2, 2, 2]
    assert all(stage.fresh_optimizers and stage.trains is None for stage in stages(params))
    assert [p.batch_size for _, p in found.values()] == [64, 32, 32, 16, 16, 16, 16]
    assert [p.fading for _, p in found.values()] == [False, True, False, True, False, True, False]
    assert [p.generator.lr for _, p in found.values()] == [1e-3] + [1.5e-3] * 6
    assert [stage.name for stage in stages(small(size=8))] == ["8", "16-fade", "16"]


def test_the_images_of_all_stages_are_means_of_the_same_ones_which_are_read_once(monkeypatch: Any) -> None:
    params = small(crop_size=16, load_size=16, flip=False, batch_size=8)
    of_stages = {stage.name: stage.params(params) for stage in stages(params)}
    read = data(None, of_stages["4"])
    monkeypatch.setattr("modtrain.data.labelled.orchard", None)  # nothing is read or painted again
    assert read.at is not None
    first = {name: next(read.at(of_stages[name]).train.epoch(0, seed=0)) for name in ("8", "16")}
    assert torch.equal(first["8"]["label"], first["16"]["label"])
    torch.testing.assert_close(first["8"]["image"], shrunk(first["16"]["image"]))
    smallest = next(read.train.epoch(0, seed=0))["image"]
    torch.testing.assert_close(smallest, shrunk(first["8"]["image"]))


def test_the_images_of_a_stage_are_read_anew_where_its_parameters_say_so() -> None:
    params = small(crop_size=16, load_size=16, flip=False, batch_size=8)
    read = data(None, params)
    assert read.at is not None
    larger = replace(params, load_size=20)
    assert torch.equal(
        next(read.at(larger).train.epoch(0, seed=0))["image"], next(data(None, larger).train.epoch(0, seed=0))["image"]
    )


WGAN_GP: dict[str, Any] = {"discriminator": {"penalty": "wgan-gp"}}
VARIANTS: list[dict[str, Any]] = [
    {"size": 4},
    {"size": 8, "fading": True, **WGAN_GP},
    {"size": 16, "convolution": "separable"},
    {"size": 16, "fading": True},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("module", list(recipe.modules))
def test_each_loss_trains_the_levels_of_its_own_module_and_no_other(module: str, changes: dict[str, Any]) -> None:
    params = small(**changes)
    made, networks = losses(params, module)
    assert all(torch.isfinite(value) for value in made.values())
    trained = {name: [weight.grad is not None for weight in net.parameters()] for name, net in networks.items()}
    assert any(trained.pop(module))
    assert not any(trained.popitem()[1])
    grown = Growth({4: 0, 8: 1, 16: 2}[params.size], 0.25 if params.fading else 1.0)
    generator: Any = networks["generator"]
    assert generator.growth == (grown if module == "generator" else Growth(2)), "its own loss notes it"


def test_r1_is_that_of_every_sixteenth_step_and_wgan_gp_of_every_one() -> None:
    lazy = small(size=8, discriminator={"lambda_r1": 0.25})
    with_penalty, without = losses(lazy, "discriminator", step=32)[0], losses(lazy, "discriminator", step=33)[0]
    assert "penalty" not in without
    plain = with_penalty["loss"] - 0.25 * 16 * with_penalty["penalty"]
    torch.testing.assert_close(plain, without["loss"])
    made = losses(small(size=8, **WGAN_GP), "discriminator", step=33)[0]
    drift = losses(small(size=8, discriminator={"penalty": "wgan-gp", "drift": 0.0}), "discriminator", step=33)[0]
    torch.testing.assert_close(made["loss"] - drift["loss"], 1e-3 * (made["real_score"] ** 2), rtol=1, atol=1e-4)
    torch.testing.assert_close(
        drift["loss"], drift["fake_score"] - drift["real_score"] + 10 * drift["penalty"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("penalty", ["wgan-gp", "r1"])
def test_a_penalty_is_computed_in_full_precision_where_the_run_is_not(penalty: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        made, _ = losses(small(size=8, fading=True, discriminator={"penalty": penalty}), "discriminator")
    assert made["penalty"].dtype == made["real_score"].dtype == torch.float32
    assert torch.isfinite(made["loss"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_size": 24, "load_size": 24}, "^crop_size = 24 is no power of two from 4 on, such as 32, 64 or 128.$"),
        ({"size": 5}, "^size = 5 is no power of two"),
        ({"size": 32}, "^size = 32 is larger than crop_size = 16, which it grows to.$"),
        ({"batch_sizes": [8, 0]}, r"batch_sizes = \[8, 0\] is not allowed: give numbers above 0, such as 32,32,16.$"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small(**changes)


def joint_run(path: Path, **values: Any) -> Run:
    return make_run(path, "progressive-gan", JOINT, device="cpu", **values)


@pytest.mark.parametrize("changes", [{"size": 8}, {"size": 8, "convolution": "separable"}], ids=str)
def test_a_joint_step_is_that_of_the_plain_loop(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = joint_run(tmp_path / "run", params=SMALL | WGAN_GP | changes, epochs=3)
    heartbeat = Heartbeat(map(run.heartbeat_path, run.modules))
    joint = Worker(run, run.modules, heartbeat, Shutdown(run), WorkerEvents(run, run.modules), device="cpu")
    nets = {learner.name: learner for learner in joint.learners}
    plain_nets = {name: copy.deepcopy(learner.net).requires_grad_(True) for name, learner in nets.items()}
    plain, drawn = PlainProgressiveGan(plain_nets, joint.stage.params), torch.get_rng_state()
    epoch = joint.stage.batches.epoch(0, seed=0)
    batches = [next(epoch) for _ in range(3)]
    for batch in batches:
        joint.train_on(batch)
    torch.set_rng_state(drawn)
    for batch in batches:
        plain.step([batch], 0.0)
    for name, net in plain_nets.items():
        for own, other in zip(nets[name].net.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=0)
    average = nets["generator"].average
    assert average is not None
    for own, other in zip(average.parameters(), plain.average.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_a_run_that_is_killed_inside_a_fade_goes_on_bit_identical(tmp_path: Path) -> None:
    """As after a kill: nothing was published beyond the first half of the fade to 8 pixels."""
    for number in range(8):
        Image.effect_noise((16, 16), 20 + number).save(tmp_path / f"{number}.png")
    complete = joint_run(
        tmp_path / "complete",
        params=SMALL | WGAN_GP | {"batch_size": 4},
        epochs=10,
        dataroot=tmp_path,
        evaluate_every=0,
    )
    assert [(stage.name, stage.epochs) for stage in complete.spec.stages][:2] == [("4", 2), ("8-fade", 2)]
    finish(complete)
    run = Run.open(shutil.copytree(complete.path, tmp_path / "killed"))
    for module in run.modules:
        for checkpoint in run.store(module).newest(where=lambda each: each.epoch > 3):
            filesystem.retire_folder(run.store(module).folder(checkpoint.version))
    finish(run)
    assert "Resumed at step 6 of 20" in run.log_path("generator").read_text()
    assert weights_of(run) == weights_of(complete)


def test_an_evaluation_compares_enlarged_samples_with_test_images_beside_those_with_each_other() -> None:
    params = small(size=8)
    networks, nets = nets_of(params)
    generator: Any = networks["generator"]
    generator.grow(Growth(1))
    nets.enter(None)
    test = LabelledTest(pixels=orchard(16, "test", each=4).images, labels=None, split="test")
    assert recipe.evaluate is not None
    with torch.no_grad():
        torch.manual_seed(3)
        first = recipe.evaluate(nets, test, params)
        torch.manual_seed(3)
        assert recipe.evaluate(nets, test, params).metrics == first.metrics
    names = ["fid_orchard", "class_score_orchard", "coverage_orchard", "stage_fid_orchard", "feature_variance_orchard"]
    names += ["swd", "swd_16", "ms_ssim", "swd_reals", "swd_16_reals", "ms_ssim_reals"]
    assert sorted(first.metrics) == sorted(names)
    assert first.metrics["swd"] > first.metrics["swd_reals"] > 0
    assert first.grid is not None
    assert recipe.sample is not None
    assert recipe.sample.generate(nets, torch.randn(2, 6), None, params).shape == (2, 3, 8, 8)
