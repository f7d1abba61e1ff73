"""The recipe against its papers: sizes, the values of its losses, what each loss trains, evaluation, and small runs."""

from __future__ import annotations

import contextlib
import itertools
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modtrain.data.decoding import read_rgb
from modtrain.data.paired import PairedTest
from modtrain.errors import InputError, Preempted
from modtrain.nets.adversarial_losses import GanMode
from modtrain.nets.recogniser import Recogniser
from modtrain.recipes import pix2pix
from modtrain.recipes.pix2pix import recipe
from modtrain.storage.run import Run
from modtrain.training.inference.image_files import apply_to_files, result_paths
from modtrain.training.inference.model import load
from modtrain.training.worker_process import work
from tests.support.losses import SMALL as SIZES
from tests.support.losses import TINY_IMAGES, Losses
from tests.support.noise import save_noise
from tests.support.runs import finish, make_run, weights_of

SMALL = SIZES["pix2pix"]
losses = Losses(recipe)
params_of, built, nets_of, loss_of = losses.params_of, losses.built, losses.nets_of, losses.loss_of


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    images = torch.rand(2, 2, 3, 24, 24) * 2 - 1
    return {"a": images[0], "b": images[1], "label": torch.tensor([2, 0])}


class Times(nn.Module):
    """A network that multiplies images by one weight."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images


class Judge(nn.Module):
    """The logit of a pair is half of the first image and the whole of the second one."""

    def forward(self, pair: Tensor) -> Tensor:
        return pair[:, :3].mean((1, 2, 3)) / 2 + pair[:, 3:].mean((1, 2, 3))


class Known(nn.Module):
    """Three persons; the logit of the first is the brightness."""

    def verdict(self, images: Tensor) -> Tensor:
        brightness = images.mean((1, 2, 3))
        return torch.stack([brightness, 0 * brightness, 0 * brightness], 1)


@pytest.mark.parametrize(("pixel_loss", "distance"), [("l1", 1.25), ("l2", 1.25**2)])
def test_the_losses_have_the_values_of_the_papers_equations(pixel_loss: str, distance: float) -> None:
    """Constant images, x = 0.5 and y = 0.25; the generator is times 3, so what it makes is 1.5."""
    p = {"pixel_loss": pixel_loss, "lambda_pixel": 7, "lambda_recognition": 0.3}
    params = params_of({"generator": p})
    nets = nets_of(params, {"generator": Times(3.0), "discriminator": Judge(), "recogniser": Known()})
    constant = {"a": torch.full((2, 3, 8, 8), 0.5), "b": torch.full((2, 3, 8, 8), 0.25), "label": torch.tensor([0, 2])}
    losses = loss_of("generator", nets, constant, params)
    assert losses["adversarial"] == pytest.approx(math.log(1 + math.exp(-1.75)))
    assert losses["pixel"] == pytest.approx(distance)
    total = math.log(math.exp(1.5) + 2)
    assert losses["recognition"] == pytest.approx((total - 1.5 + total) / 2)
    weighted = losses["adversarial"] + 7 * losses["pixel"] + 0.3 * losses["recognition"]
    assert losses["loss"] == pytest.approx(weighted)
    judged = loss_of("discriminator", nets, constant, params)["loss"]
    real, fake = 0.5, 1.75
    assert judged == pytest.approx((math.log(1 + math.exp(-real)) + math.log(1 + math.exp(fake))) / 2)


@pytest.mark.parametrize("module", ["generator", "discriminator"])
def test_a_loss_is_the_mean_over_the_images_so_that_replicas_can_average_their_parts(
    module: str, batch: dict[str, Tensor]
) -> None:
    params = params_of({})
    nets = nets_of(params, {"generator": Times(0.7), "discriminator": Judge(), "recogniser": Known()})
    parts = []
    for images in (batch, *({name: value[[number]] for name, value in batch.items()} for number in range(2))):
        nets.forget()
        parts.append(loss_of(module, nets, images, params))
    whole, one, other = parts
    assert whole == pytest.approx({name: (one[name] + other[name]) / 2 for name in whole}, rel=1e-6)


@pytest.mark.parametrize(
    ("module", "gan_mode"),
    [("recogniser", "vanilla"), *itertools.product(("generator", "discriminator"), get_args(GanMode))],
)
def test_a_loss_has_gradients_for_its_own_module_and_for_no_other(
    module: str, gan_mode: GanMode, batch: dict[str, Tensor]
) -> None:
    params = params_of(SMALL, discriminator={"gan_mode": gan_mode})
    live = built(params)
    nets = nets_of(params, live)
    nets.enter(module)
    for name, net in live.items():
        net.requires_grad_(name == module)
    losses = recipe.modules[module].loss(nets, batch, params)
    assert all(value.shape == () and torch.isfinite(value) for value in losses.values())
    losses["loss"].backward()
    for name, net in live.items():
        assert any(parameter.grad is not None for parameter in net.parameters()) == (name == module)


def test_what_is_made_moves_no_statistics_of_the_recogniser_and_is_judged_by_those_of_true_images(
    batch: dict[str, Tensor],
) -> None:
    net = Recogniser(2, 3)
    net(batch["b"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    verdict = net.verdict(batch["a"])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(verdict, net.eval()(batch["a"]))


def test_without_a_recognition_loss_there_are_no_labels_and_the_recogniser_rests(batch: dict[str, Tensor]) -> None:
    params = params_of(SMALL, generator={"lambda_recognition": 0})
    unlabelled = {"a": batch["a"], "b": batch["b"]}
    nets = nets_of(params, {name: net for name, net in built(params).items() if name != "recogniser"})
    assert "recognition" not in loss_of("generator", nets, unlabelled, params)
    assert [module.schedule(0.2, params) for module in recipe.modules.values() if module.schedule] == [0, 1, 1]
    assert [(stage.name, stage.trains) for stage in pix2pix.stages(params)] == [("translate", None)]


@pytest.mark.parametrize("size", [(24, 24), (25, 38), (1, 1)])
def test_images_of_any_size_are_translated(size: tuple[int, int]) -> None:
    params = params_of(SMALL)
    live = built(params)
    images = torch.rand(2, 3, *size) * 2 - 1
    translated = pix2pix.apply(nets_of(params, live), images, params)
    assert translated.shape == images.shape
    if size == (24, 24):
        torch.testing.assert_close(translated, live["generator"](images))


def some_pairs(**more: Tensor) -> PairedTest:
    torch.manual_seed(2)
    a, b = torch.randint(0, 256, (2, 3, 3, 24, 24), dtype=torch.uint8)
    return PairedTest(pixels_a=a, pixels_b=b, pixels_mean=b[:1], **more)


def test_with_the_truth_there_is_every_metric_and_a_grid_of_input_translation_and_truth() -> None:
    params = params_of(SMALL)
    pairs = some_pairs(labels=torch.tensor([0, 1, -1]), mask=torch.rand(3, 1, 24, 24) < 0.5)
    others = torch.randint(0, 256, (3, 3, 3, 24, 24), dtype=torch.uint8)
    others[:2, 0] = pairs.pixels_a[:2]  # what is copied looks like the first person
    pairs = some_pairs(labels=pairs.labels, mask=pairs.mask, candidates=others)  # type: ignore[arg-type]
    result = pix2pix.evaluate(nets_of(params, built(params)), pairs, params)
    named = ["psnr", "copy_psnr", "mean_psnr", "ssim", "fruit_psnr", "fruit_copy_psnr", "fruit_mean_psnr"]
    identity = ["identity_accuracy", "identity_accuracy_real"]
    judged = ["identity_accuracy_judge", "identity_accuracy_judge_copy"]
    assert list(result.metrics) == [*named, *identity, *judged]
    assert result.metrics["identity_accuracy_judge_copy"] == 0.5  # the third has no label
    assert result.grid is not None
    first, last = (result.grid[row * 98 :: 4, 2 - 3 * 98 :: 4].permute(2, 0, 1)[:, :24, :24] for row in (0, 2))
    assert (first == pairs.pixels_a[0]).all()
    assert (last == pairs.pixels_b[0]).all()


def test_without_labels_there_is_what_can_be_known_and_without_test_images_what_to_add() -> None:
    params = params_of(SMALL)
    nets = nets_of(params, built(params))
    assert list(pix2pix.evaluate(nets, some_pairs(), params).metrics) == ["psnr", "copy_psnr", "mean_psnr", "ssim"]
    with pytest.raises(InputError, match="add test or val"):
        pix2pix.evaluate(nets, None, params)


def test_an_edge_that_the_generator_cannot_halve_is_refused() -> None:
    with pytest.raises(InputError, match=r"crop_size = 60 is no multiple of 8.*3 levels"):
        params_of(SMALL, crop_size=60)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of each of two persons, and two to evaluate on, as a user's folder has them."""
    names = [f"train/{who}/{number}.png" for who in ("eve", "adam") for number in (1, 2)]
    return save_noise(tmp_path_factory.mktemp("faces"), *names, "test/eve/3.png", "test/adam/3.png", size=(48, 24))


def test_more_persons_than_the_recogniser_has_and_persons_that_are_missing_are_refused(
    faces: Path, tmp_path: Path
) -> None:
    few = params_of(SMALL | TINY_IMAGES, recogniser={"classes": 1})
    with pytest.raises(InputError, match=r"have 2 labels: set recogniser\.classes=2\."):
        pix2pix.data(faces, few)
    (unread := tmp_path / "unread/train/eve").mkdir(parents=True)
    (unread / "1.png").write_bytes(b"no image")
    (tmp_path / "unread/train/adam").mkdir()
    (tmp_path / "unread/train/adam/1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="have 2 labels"):  # before an image is decoded
        pix2pix.data(tmp_path / "unread", few)
    for place in ("train/1", "test/2"):
        (tmp_path / place).parent.mkdir()
        Image.new("RGB", (48, 24)).save(tmp_path / f"{place}.png")
    with pytest.raises(InputError, match=r"have 0 labels: set generator\.lambda_recognition=0, or"):
        pix2pix.data(tmp_path, params_of(SMALL | TINY_IMAGES))
    alone = params_of(SMALL | TINY_IMAGES, generator={"lambda_recognition": 0})
    assert pix2pix.data(tmp_path, alone).test.labels is None


def run_on(faces: Path, path: Path) -> Run:
    """Two batches each of the recogniser, and of the two others, on one worker."""
    params = SMALL | TINY_IMAGES | {"load_size": 26}
    return make_run(path, "pix2pix", [list(recipe.modules)], params=params, epochs=2, dataroot=faces)


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_on(faces, tmp_path_factory.mktemp("trained") / "run")
    finish(run, *recipe.modules)
    return run


def test_a_users_pairs_train_the_recogniser_first_and_then_the_others_against_it(trained: Run) -> None:
    steps = {name: [each.step for each in trained.store(name).history()] for name in recipe.modules}
    assert steps == {"recogniser": [0, 2], "generator": [0, 4], "discriminator": [0, 4]}
    assert all(trained.store(name).latest().final for name in recipe.modules)  # type: ignore[union-attr]


def test_a_run_whose_worker_ends_after_each_batch_is_bit_identical(trained: Run, faces: Path, tmp_path: Path) -> None:
    run, steps = run_on(faces, tmp_path / "run"), []
    while not run.is_finished(run.modules):
        with contextlib.suppress(Preempted):
            work(run, run.modules, threads=1, leave_after_s=0.01)
        steps.append(run.read_report("generator").step)
    assert steps == [1, 2, 3, 4]  # the first two inside the recogniser's stage
    assert weights_of(run) == weights_of(trained)


def test_a_folder_of_images_of_any_size_is_translated(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    for number, size in enumerate(((24, 24), (37, 21))):
        Image.new("RGB", size, (90, 90, 90)).save(tmp_path / "given" / f"{number}.png")
    files = result_paths([tmp_path / "given"], tmp_path / "made")
    made = dict(apply_to_files(load(trained), files, broken=lambda file, message: pytest.fail(message)))
    assert [read_rgb(file).size for file in made.values()] == [(24, 24), (37, 21)]
