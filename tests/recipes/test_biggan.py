"""BigGAN: each loss trains its own module, with every option; what is refused, evaluated and sampled."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modtrain.bench.plain_biggan import PlainBiggan
from modtrain.data.fruits.orchard import CLASSES, orchard
from modtrain.data.labelled import LabelledTest
from modtrain.errors import InputError, Preempted
from modtrain.nets import adversarial_losses
from modtrain.recipes.biggan import Params, fake, recipe
from modtrain.recipes.nets_view import Nets
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.recipe_check.check import check_recipe
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from modtrain.training.worker_process import work
from tests.support.losses import SMALL as SIZES
from tests.support.losses import Losses
from tests.support.noise import save_noise
from tests.support.runs import finish, make_run, train_apart, weights_of

SMALL, LOSSES = SIZES["biggan"], Losses(recipe)
JOINT, APART = [["generator", "discriminator"]], [["generator"], ["discriminator"]]


def nets_of(params: Params, step: int = 0) -> tuple[dict[str, nn.Module], Nets]:
    """All networks live, as on one worker, with attention that has an effect."""
    networks = LOSSES.built(params)
    for net in networks.values():
        for name, weight in net.named_parameters():
            if name.endswith("gamma"):
                nn.init.ones_(weight)
    nets = LOSSES.nets_of(params, networks, discriminator=[networks["discriminator"]] * 3)
    nets.start_step(step=step, progress=0.0, stage="train", stage_progress=0.0)
    return networks, nets


def losses(params: Params, module: str, *, step: int = 0) -> tuple[dict[str, Tensor], dict[str, nn.Module]]:
    """The losses of a module, whose gradient is computed as in a step, and all networks."""
    networks, nets = nets_of(params, step)
    batch = {"image": torch.rand(8, 3, 32, 32) * 2 - 1, "label": torch.arange(8)}
    return LOSSES.gradients_of(module, networks, nets, batch, params), networks


VARIANTS: list[dict[str, Any]] = [
    {},
    {"attention": 0, "discriminator": {"gan_mode": "vanilla", "lambda_r1": 0.5}},
    {"generator": {"lambda_orthogonal": 1e-4}, "attention": 8},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("module", list(recipe.modules))
def test_each_loss_trains_its_own_module_and_no_other(module: str, changes: dict[str, Any]) -> None:
    made, networks = losses(LOSSES.params_of(SMALL, **changes), module)
    assert all(torch.isfinite(value) for value in made.values())
    for name, net in networks.items():
        reached = {each: weight.grad is not None and bool(weight.grad.any()) for each, weight in net.named_parameters()}
        reached.pop("logit.bias", None)  # hinge loss: reals and fakes cancel where none is beyond the margin
        assert all(reached.values()) if name == module else not any(reached.values()), name


def test_the_gradient_penalty_is_that_of_every_sixteenth_step() -> None:
    params = LOSSES.params_of(SMALL, discriminator={"lambda_r1": 0.25})
    with_penalty, without = losses(params, "discriminator", step=32)[0], losses(params, "discriminator", step=33)[0]
    assert "penalty" not in without
    torch.testing.assert_close(with_penalty["loss"] - 0.25 * 16 * with_penalty["penalty"], without["loss"])


def test_fakes_are_of_all_classes_alike_and_a_discriminator_is_told_which() -> None:
    params = LOSSES.params_of(SMALL, batch_size=4000)
    networks, nets = nets_of(params)
    nets.enter("discriminator")
    networks["generator"].forward = lambda noise, labels: labels[:, None, None, None].float()  # type: ignore[method-assign]
    made, labels = fake(nets, {"image": torch.zeros(4000, 3, 32, 32)}, params)
    torch.testing.assert_close(made.flatten(), labels.float())
    assert labels.bincount(minlength=8).float().sub(500).abs().max() < 80  # of 500, 21 is one standard deviation
    judge, images = networks["discriminator"], torch.randn(2, 3, 32, 32)
    verdicts = judge(images, torch.tensor([0, 1])), judge(images, torch.tensor([1, 0]))
    assert not torch.isclose(*verdicts).any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_size": 16, "load_size": 16}, "crop_size = 16 is no power of two from 32 on, such as 32, 64 or 128"),
        ({"crop_size": 48, "load_size": 48}, "crop_size = 48 is no power of two from 32 on, such as 32, 64 or 128"),
        (
            {"noise_size": 20, "crop_size": 128, "load_size": 128},
            "noise_size = 20 is no multiple of 6: a chunk for each of the 5 blocks that make 128 pixels, and one more",
        ),
        ({"attention": 32}, "attention = 32 is not allowed; it is 0 or one of 8, 16"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((InputError, ValueError), match=sentence):
        LOSSES.params_of(SMALL, **changes)


def test_an_evaluation_has_the_share_of_samples_that_show_their_class_and_a_row_for_each() -> None:
    params = LOSSES.params_of(SMALL)
    networks, nets = nets_of(params)
    nets.enter(None)
    pictures = orchard(32, "test", each=4)
    test = LabelledTest(pixels=pictures.images, labels=pictures.labels, split="test", classes=CLASSES)
    first_of = [int(torch.nonzero(pictures.labels == label)[0]) for label in range(8)]
    true = test.images[torch.tensor(first_of)]
    networks["generator"].forward = lambda noise, labels: true[labels]  # type: ignore[method-assign]
    assert recipe.evaluate is not None
    with torch.no_grad():
        found = recipe.evaluate(nets, test, params)
        networks["generator"].forward = lambda noise, labels: true[7 - labels]  # type: ignore[method-assign]
        wrong = recipe.evaluate(nets, test, params)
        elsewhere = LabelledTest(pixels=test.pixels, labels=test.labels, split="test", classes=tuple("abcdefgh"))
        other = recipe.evaluate(nets, elsewhere, params)
    scores = ("fid_orchard", "class_score_orchard", "coverage_orchard", "feature_variance_orchard")
    assert tuple(found.metrics) == (*scores, "label_accuracy_orchard")
    assert (found.metrics["label_accuracy_orchard"], found.metrics["coverage_orchard"]) == (1.0, 8)
    assert wrong.metrics["label_accuracy_orchard"] == 0.0
    assert tuple(other.metrics) == scores
    assert found.grid is not None
    assert found.grid.shape[0] == 8 * (96 + 2) - 2, "a row for each class, enlarged three times"
    rows = [found.grid[98 * row : 98 * row + 96, -8 * 98 + 2 :] for row in range(8)]
    assert all(torch.equal(row[:, :96], row[:, -96:]) for row in rows), "and all columns are of that class"
    assert not torch.equal(rows[0], rows[1])


def test_the_generator_s_loss_has_the_regularisation_times_its_weight() -> None:
    params = LOSSES.params_of(SMALL, generator={"lambda_orthogonal": 0.5})
    made, _ = losses(params, "generator")
    torch.testing.assert_close(made["loss"], made["adversarial"] + 0.5 * made["orthogonal"])


def test_a_lazy_penalty_has_its_weight_on_average() -> None:
    assert sum(adversarial_losses.lazy(0.3, 4, step) for step in range(100)) / 100 == pytest.approx(0.3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of noise for training, of two classes: four batches of four, or two steps, an epoch."""
    splits = (("train", 8), ("test", 2))
    names = [f"{name}/{kind}/{i}.png" for name, count in splits for kind in ("pear", "plum") for i in range(count)]
    return save_noise(tmp_path_factory.mktemp("noise"), *names, size=(32, 32))


def test_the_number_of_classes_is_that_of_the_data(pictures: Path) -> None:
    with pytest.raises(InputError, match=r"^classes = 8, but the data has 2: set classes=2\.$"):
        recipe.data(pictures, LOSSES.params_of(SMALL))


def test_a_wrong_number_of_classes_is_found_before_an_image_is_decoded_or_a_network_built(tmp_path: Path) -> None:
    for name in ("train/pear/0.png", "train/plum/0.png", "test/pear/1.png", "test/plum/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    spec, parts = new_spec(Config(recipe="biggan", dataroot=str(tmp_path)), recipe, JOINT), list[str]()
    found = check_recipe(spec, lambda findings: parts.append(findings.part))
    assert found.violations == ["classes = 8, but the data has 2: set classes=2."]
    assert parts == ["`data`", ""]


def run_on(pictures: Path, path: Path, placement: list[list[str]], **params: Any) -> Run:
    params = SMALL | {"classes": 2, "batch_size": 4} | params
    return make_run(path, "biggan", placement, params=params, epochs=2, dataroot=pictures, device="cpu")


def test_a_joint_step_is_that_of_the_plain_loop_with_two_batches(pictures: Path, tmp_path: Path) -> None:
    run = run_on(pictures, tmp_path / "run", JOINT)
    heartbeat = Heartbeat(map(run.heartbeat_path, run.modules))
    joint = Worker(run, run.modules, heartbeat, Shutdown(run), WorkerEvents(run, run.modules), device="cpu")
    nets = {learner.name: learner for learner in joint.learners}
    plain_nets = {name: copy.deepcopy(learner.net).requires_grad_(True) for name, learner in nets.items()}
    plain, drawn = PlainBiggan(plain_nets, joint.learners[0].params), torch.get_rng_state()
    with contextlib.closing(joint._draws(0)) as steps:
        of_steps = list(steps)
    assert [len(batches) for batches in of_steps] == [2, 2]
    for batches in of_steps:
        joint.train_on(*batches)
    torch.set_rng_state(drawn)
    for batches in of_steps:
        plain.step(batches, 0.0)
    average = nets["generator"].average
    assert average is not None
    pairs = [(learner.net, plain_nets[name]) for name, learner in nets.items()]
    for net, other in [*pairs, (average, plain.average)]:
        for own, same in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(own, same, rtol=0, atol=0)


def test_a_run_that_is_left_after_steps_ends_bit_identical(pictures: Path, tmp_path: Path) -> None:
    options = {"discriminator": SMALL["discriminator"] | {"lambda_r1": 0.1, "r1_every": 2}}
    whole, left = (run_on(pictures, tmp_path / name, JOINT, **options) for name in ("whole", "left"))
    finish(whole)
    for _ in range(2):
        with contextlib.suppress(Preempted):
            work(left, left.modules, threads=1, leave_after_s=0.001)
    finish(left)
    assert weights_of(left) == weights_of(whole)


def test_two_workers_train_both_networks_each_against_the_other_of_the_epoch_before(
    pictures: Path, tmp_path: Path
) -> None:
    run = run_on(pictures, tmp_path / "run", APART)
    train_apart(run)
    for module, peer in (("generator", "discriminator"), ("discriminator", "generator")):
        versions = [checkpoint for checkpoint in run.store(module).history() if checkpoint.step]
        assert [checkpoint.peers[peer]["epoch"] for checkpoint in versions] == [0, 1]
        assert len({checkpoint.files["weights.safetensors"]["sha256"] for checkpoint in versions}) == 2
