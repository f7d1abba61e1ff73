"""DCGAN: each loss trains its own module, jointly as in a plain loop, with every option; what is evaluated."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from modtrain.bench.plain_dcgan import PlainDcgan
from modtrain.data.fruits.orchard import orchard
from modtrain.data.images import as_float
from modtrain.data.labelled import LabelledTest
from modtrain.errors import InputError
from modtrain.monitoring.adversarial import collapse
from modtrain.nets.adversarial_losses import AnyGanMode
from modtrain.recipes.dcgan import Params, recipe
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.params import build_params
from modtrain.storage.evaluations import EvaluationRecord
from modtrain.storage.heartbeat import Heartbeat
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from tests.support.losses import SMALL as SIZES
from tests.support.losses import Losses
from tests.support.runs import make_run

SMALL, LOSSES = SIZES["dcgan"], Losses(recipe)
JOINT = (tuple(recipe.modules),)


def small(**changes: Any) -> Params:
    merged = {
        name: {**SMALL.get(name, {}), **value} if isinstance(value, dict) else value for name, value in changes.items()
    }
    params: Params = build_params(recipe.params, {**SMALL, **merged})
    return params


def nets_of(params: Params, step: int = 0) -> tuple[dict[str, nn.Module], Nets]:
    """All networks live, as on one worker."""
    networks = LOSSES.built(params)
    nets = LOSSES.nets_of(params, networks, **{name: [net] * 5 for name, net in networks.items()})
    nets.start_step(step=step, progress=0.0, stage="train", stage_progress=0.0)
    return networks, nets


def losses(params: Params, module: str, *, step: int = 0) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
    """The losses of a module, whose gradient is computed as in a step, and all networks."""
    networks, nets = nets_of(params, step)
    batch = {"image": torch.rand(8, 3, 16, 16) * 2 - 1}
    return LOSSES.gradients_of(module, networks, nets, batch, params), networks


VARIANTS: list[dict[str, Any]] = [
    {"discriminator": {"gan_mode": mode, "lambda_r1": 0.5 * (mode == "wasserstein")}} for mode in get_args(AnyGanMode)
] + [
    {"spectral_norm": "both", "discriminator": {"dropout": 0.5, "gan_mode": "wasserstein"}},
    {"spectral_norm": "discriminator", "discriminator": {"norm": "batch"}, "generator": {"norm": "none"}},
    {"generator": {"lambda_information": 1.0}, "discriminator": {"gan_mode": "hinge"}},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("module", list(recipe.modules))
def test_each_loss_trains_its_own_module_and_no_other(module: str, changes: dict[str, Any]) -> None:
    made, networks = losses(small(**changes), module)
    assert all(torch.isfinite(value) for value in made.values())
    for name, net in networks.items():
        trained = [weight.grad is not None and bool(weight.grad.any()) for weight in net.parameters()]
        assert all(trained) if name == module else not any(trained), name


def test_spectral_normalisation_replaces_batch_normalisation_in_the_discriminator_unless_both_are_asked_for() -> None:
    def norms(**changes: Any) -> tuple[int, int]:
        networks, _ = nets_of(small(**changes))
        both = (networks["generator"], networks["discriminator"])
        first, second = (sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) for net in both)
        return first, second

    assert norms() == (2, 1)
    assert norms(spectral_norm="discriminator") == norms(spectral_norm="both") == (2, 0)
    assert norms(spectral_norm="both", discriminator={"norm": "batch"}) == (2, 1)


def test_the_gradient_penalty_is_that_of_every_sixteenth_step() -> None:
    params = small(discriminator={"lambda_r1": 0.25})
    with_penalty, without = losses(params, "discriminator", step=32)[0], losses(params, "discriminator", step=33)[0]
    assert "penalty" not in without
    plain = with_penalty["loss"] - 0.25 * 16 * with_penalty["penalty"]
    torch.testing.assert_close(plain, without["loss"])


def test_the_information_moves_the_images_as_far_as_the_adversarial_loss_at_most() -> None:
    def gradient(weight: float) -> Tensor:
        _, networks = losses(small(generator={"lambda_information": weight}), "generator")
        return torch.cat([each.grad.flatten() for each in networks["generator"].parameters() if each.grad is not None])

    adversarial, large, larger = gradient(0.0), gradient(1e6), gradient(1e9)
    torch.testing.assert_close(large, larger)
    assert float((large - adversarial).norm()) > 0
    small_one = gradient(1e-9)
    torch.testing.assert_close(small_one, adversarial, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_size": 24, "load_size": 24}, "^crop_size = 24 is no power of two, such as 32, 64 or 128.$"),
        (
            {"crop_size": 64, "load_size": 32},
            "^crop_size must be from 1 to load_size: got crop_size=64, load_size=32.$",
        ),
        (
            {"discriminator": {"gan_mode": "wasserstein", "lambda_r1": 0.0}},
            "wasserstein needs a bounded discriminator: set spectral_norm",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small(**changes)


def joint_worker(path: Path) -> Worker:
    run = make_run(path, "dcgan", JOINT, params=SMALL, epochs=1, device="cpu")
    return Worker(
        run,
        run.modules,
        Heartbeat(map(run.heartbeat_path, run.modules)),
        Shutdown(run),
        WorkerEvents(run, run.modules),
        device="cpu",
    )


def test_a_joint_step_is_that_of_the_plain_loop_and_the_statistics_network_rests(tmp_path: Path) -> None:
    joint = joint_worker(tmp_path / "run")
    nets = {learner.name: learner for learner in joint.learners}
    plain_nets = {name: copy.deepcopy(learner.net).requires_grad_(True) for name, learner in nets.items()}
    plain, drawn, before = PlainDcgan(plain_nets, joint.learners[0].params), torch.get_rng_state(), joint.position
    epoch = joint.stage.batches.epoch(0, seed=0)
    batches = [next(epoch) for _ in range(3)]
    for batch in batches:
        joint.train_on(batch)
    torch.set_rng_state(drawn)
    for batch in batches:
        plain.step([batch], before.schedule_progress)
    for name in ("generator", "discriminator", "statistics"):
        for own, other in zip(
            nets[name].net.state_dict().values(), plain_nets[name].state_dict().values(), strict=True
        ):
            torch.testing.assert_close(own, other, rtol=0, atol=0)
    average = nets["generator"].average
    assert average is not None
    for own, other in zip(average.parameters(), plain.average.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_a_generator_that_makes_one_image_only_is_seen_to_have_collapsed() -> None:
    params, fruits = small(noise_size=1, batch_size=16), orchard(32, "test", each=4)
    test, varied = LabelledTest(pixels=fruits.images, labels=None, split="test"), as_float(fruits.images)

    def measured(images: Tensor) -> EvaluationRecord:
        generator = nn.Module()
        generator.forward = lambda noise: images[torch.arange(len(noise)) % len(images)]  # type: ignore[method-assign]
        nets = Nets({"generator": [generator]}, {})
        nets.enter(None)
        assert recipe.evaluate is not None
        metrics = dict(recipe.evaluate(nets, test, params).metrics)
        return EvaluationRecord(versions={}, epochs={"generator": next(epochs)}, metrics=metrics, grid=None, at=None)

    epochs = itertools.count()
    healthy, collapsed = ([measured(images) for _ in range(2)] for images in (varied, varied[:1]))
    assert collapse([*healthy, collapsed[0]]) is None, "once"
    assert collapse([*healthy, *collapsed]) == "samples are of 1 class, after 8"
    for record in collapsed:
        del record.metrics["coverage_orchard"]
    says = "the features of samples have 0% of the variance that those of real images have"
    assert collapse([*healthy, *collapsed]) == says
    alone = [replace(collapsed[0], epochs={"generator": 13})]
    assert collapse(alone) is None, "it may have just begun"
    assert collapse(alone, is_finished=True) == says
    assert collapse(collapsed[:1], is_finished=True) is None, "a short run may have learned nothing yet"
    assert collapse(healthy, is_finished=True) is None


def test_an_evaluation_compares_as_many_samples_as_test_images_and_shows_the_same_ones_each_time() -> None:
    params = small()
    networks, nets = nets_of(params)
    nets.enter(None)
    networks["generator"].eval()
    test = LabelledTest(pixels=orchard(16, "test", each=4).images, labels=None, split="test")
    assert recipe.evaluate is not None
    with torch.no_grad():
        torch.manual_seed(3)
        first = recipe.evaluate(nets, test, params)
        torch.manual_seed(3)
        assert recipe.evaluate(nets, test, params).metrics == first.metrics
    assert list(first.metrics) == ["fid_orchard", "class_score_orchard", "coverage_orchard", "feature_variance_orchard"]
    assert first.metrics["feature_variance_orchard"] < 0.1, "an untrained generator makes images that are all alike"
    assert first.grid is not None
    assert first.grid.shape == (586, 586, 3)  # 6 x 6, of which 32 are samples
