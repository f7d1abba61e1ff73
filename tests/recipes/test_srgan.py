"""SRGAN: what each loss is and trains, the stages, evaluation beside bicubic interpolation, and small runs."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from modtrain.bench.joint_step import build_worker
from modtrain.bench.plain_srgan import PlainSrgan
from modtrain.data.super_resolution import SuperResolutionTest
from modtrain.errors import InputError, Preempted
from modtrain.recipes import srgan
from modtrain.recipes.srgan import recipe
from modtrain.scheduling.config import Config
from modtrain.scheduling.weights_reference import find_initial_weights
from modtrain.storage.run import Run
from modtrain.training.evaluation import evaluate
from modtrain.training.inference.model import load
from modtrain.training.initialisation import initialise
from modtrain.training.worker_process import work
from tests.support.command import typed
from tests.support.losses import SMALL as SIZES
from tests.support.losses import Losses
from tests.support.published_nets import PublishedSrResNet
from tests.support.runs import finish, make_run, train_apart, weights_of

SMALL = SIZES["srgan"]
losses = Losses(recipe)
params_of, built, nets_of, loss_of = losses.params_of, losses.built, losses.nets_of, losses.loss_of


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"lr": torch.rand(2, 3, 4, 4) * 2 - 1, "hr": torch.rand(2, 3, 16, 16) * 2 - 1}


class Constant(nn.Module):
    """Makes large images of one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images: Tensor) -> Tensor:
        return self.value.expand(len(images), 3, 16, 16)


class Brightness(nn.Module):
    """As a discriminator, and times 2 as features."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images.mean((1, 2, 3))


def test_the_losses_have_the_values_of_the_papers_equations() -> None:
    """The generator makes 0.5, the truth is -0.25."""
    params = params_of(SMALL, generator={"lambda_pixel": 3, "lambda_content": 0.7, "lambda_adversarial": 0.1})
    nets = nets_of(params, {"generator": Constant(0.5), "discriminator": Brightness(), "features": Brightness(2.0)})
    constant = {"lr": torch.zeros(2, 3, 4, 4), "hr": torch.full((2, 3, 16, 16), -0.25)}
    made = loss_of("generator", nets, constant, params)
    assert made["pixel"] == pytest.approx(0.75**2)
    assert made["content"] == pytest.approx(1.5**2)
    assert made["adversarial"] == pytest.approx(math.log(1 + math.exp(-0.5)))
    weighted = 3 * made["pixel"] + 0.7 * made["content"] + 0.1 * made["adversarial"]
    assert made["loss"] == pytest.approx(weighted)
    judged = loss_of("discriminator", nets, constant, params)
    assert judged["loss"] == pytest.approx((math.log(1 + math.exp(0.25)) + math.log(1 + math.exp(0.5))) / 2)
    assert (judged["real_score"], judged["fake_score"], judged["accuracy"]) == (-0.25, 0.5, 0.0)


STAGES = {"mse": srgan.pixels_alone, "gan": srgan.with_rate_of_gan}


@pytest.mark.parametrize(("module", "stage"), [("generator", "mse"), ("generator", "gan"), ("discriminator", "gan")])
def test_a_loss_has_gradients_for_its_own_module_and_for_no_other(
    module: str, stage: str, batch: dict[str, Tensor]
) -> None:
    params = STAGES[stage](params_of(SMALL, generator={"norm": "batch", "skip": "none"}))
    live = built(params)
    nets = nets_of(params, live)
    nets.enter(module)
    for name, net in live.items():
        net.requires_grad_(name == module)
    loss = recipe.modules[module].loss
    assert loss is not None
    loss(nets, batch, params)["loss"].backward()
    for name, net in live.items():
        trained = [weight.grad is not None and bool(weight.grad.any()) for weight in net.parameters()]
        assert all(trained) if name == module else not any(trained)


def test_the_distance_of_the_features_alone_moves_the_generator(batch: dict[str, Tensor]) -> None:
    """A widely used implementation trains without its gradient."""
    params = params_of(SMALL, generator={"lambda_pixel": 0, "lambda_adversarial": 0, "skip": "none"})
    live = built(params)
    live["features"].requires_grad_(False)
    nets = nets_of(params, live)
    nets.enter("generator")
    made = srgan.generator_loss(nets, batch, params)
    assert list(made) == ["loss", "content"]
    made["loss"].backward()
    assert all(bool(weight.grad.any()) for weight in live["generator"].parameters() if weight.grad is not None)
    assert float(sum(weight.grad.norm() for weight in live["generator"].parameters())) > 1e-3  # type: ignore[misc]


def test_the_pixels_alone_count_in_the_first_stage_and_the_discriminator_rests() -> None:
    def planned(**more: Any) -> list[tuple[str, Any, list[str]]]:
        params = params_of(SMALL, **more)
        weights = ("lambda_pixel", "lambda_content", "lambda_adversarial", "lr")
        return [
            (each.name, each.trains, [getattr(each.params(params).generator, name) for name in weights])
            for each in srgan.stages(params)
        ]

    rates = {"generator": {"lr": 0.5, "gan_lr": 0.25}}
    mse, gan = [1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 3e-4, 0.25]
    assert planned(**rates) == [("mse", ("generator",), mse), ("gan", None, gan)]
    assert planned(pretraining=0, **rates) == [("gan", None, gan)]
    assert planned(pretraining=1, **rates) == [("mse", None, mse)]
    alone, without = params_of(SMALL, pretraining=1), params_of(SMALL, generator={"lambda_adversarial": 0})
    assert [srgan.discriminator_schedule(0.9, each) for each in (alone, without)] == [0, 0]


def test_the_rates_fall_in_the_last_part_of_each_stage() -> None:
    params = params_of(SMALL, pretraining=0.6, decay_from=0.5)
    mse, gan = (stage(params) for stage in STAGES.values())
    assert [round(srgan.generator_schedule(at, mse), 3) for at in (0, 0.3, 0.45, 0.6, 0.61)] == [1, 1, 0.5, 0.02, 0.02]
    at_gan = [round(srgan.generator_schedule(at, gan), 3) for at in (0.6, 0.8, 0.9, 0.999)]
    assert at_gan == [1, 1, 0.5, 0.02]
    assert srgan.discriminator_schedule(0.9, gan) == pytest.approx(0.5)
    constant = params_of(SMALL, decay_from=1.0)
    assert srgan.generator_schedule(0.65, srgan.pixels_alone(constant)) == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scale": 5}, "scale = 5 is not allowed; it is 3, or a power of two from 2 on"),
        ({"scale": 3, "crop_size": 64}, "crop_size = 64 is no multiple of 48, such as 48 or 96"),
        ({"crop_size": 40}, "crop_size = 40 is no multiple of 16, such as 16 or 32"),
        (
            {"features": "vgg19"},
            "There is no feature network 'vgg19'; there are orchard, efficientnet-lite0, vgg19:PATH.",
        ),
        ({"features": "orchrad"}, "Did you mean 'orchard'?"),
    ],
)
def test_what_cannot_be_trained_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises((InputError, ValueError), match="(?s).*" + sentence.replace(".", r"\.").replace("?", r"\?")):
        params_of(SMALL, **values)


def test_a_second_stage_in_which_the_pixels_alone_would_count_is_refused() -> None:
    pixels = {"lambda_content": 0, "lambda_adversarial": 0}
    with pytest.raises(InputError, match=r"the pixels alone would count in the stage gan as well.*pretraining to 1\."):
        srgan.stages(params_of(SMALL, generator=pixels))
    assert [stage.name for stage in srgan.stages(params_of(SMALL, generator=pixels, pretraining=1))] == ["mse"]


def some_images() -> SuperResolutionTest:
    torch.manual_seed(2)
    sizes = [(24, 32), (40, 20)]
    pixels = tuple(torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8) for size in sizes)
    return SuperResolutionTest(pixels=pixels, small=tuple(image[..., ::4, ::4] for image in pixels))


def test_every_metric_is_beside_that_of_bicubic_interpolation_and_equals_it_before_training() -> None:
    params = params_of(SMALL)
    nets = nets_of(params, built(params))
    nets.enter(None)
    result = srgan.evaluate(nets, some_images(), params)
    own = ["psnr", "ssim", "psnr_y", "ssim_y", "perceptual_orchard", "swd"]
    assert list(result.metrics) == [name for each in own for name in (each, f"bicubic_{each}")]
    assert all(result.metrics[name] == result.metrics[f"bicubic_{name}"] for name in own)
    assert result.grid is not None
    assert result.grid.shape[0] == 4 * (5 * 20 + 2) - 2, (
        "four rows of the middle of each image, which is 20 pixels high"
    )
    with pytest.raises(InputError, match="add test or val"):
        srgan.evaluate(nets, None, params)


def test_a_joint_step_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    config = Config(recipe="srgan", params=SMALL | {"pretraining": 0.0}, device="cpu")
    worker = build_worker(tmp_path / "run", config)
    nets = {learner.name: learner.net for learner in worker.learners}
    plain_nets = {name: copy.deepcopy(net).requires_grad_(True) for name, net in nets.items()}
    plain = PlainSrgan(plain_nets, worker.learners[0].params)
    for batch in itertools.islice(worker.stage.batches.epoch(0, seed=0), 2):
        worker.train_on(batch)
        plain.step([batch], worker.position.schedule_progress)
    for name, net in nets.items():
        for own, other in zip(net.state_dict().values(), plain_nets[name].state_dict().values(), strict=True):
            assert torch.equal(own, other)
    average = worker.learners[0].average
    assert average is not None
    assert all(map(torch.equal, average.parameters(), plain.average.parameters()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_in(tmp_path_factory.mktemp("trained") / "run")
    finish(run, *recipe.trained)
    return run


def run_in(path: Path) -> Run:
    """Two batches in each stage, on one worker."""
    return make_run(path, "srgan", [recipe.trained], params=SMALL | {"pretraining": 0.5, "tile": 16}, epochs=2)


def test_the_discriminator_begins_when_the_first_stage_is_over(trained: Run) -> None:
    steps = {name: [each.step for each in trained.store(name).history()] for name in recipe.trained}
    assert steps == {"generator": [0, 2, 4], "discriminator": [0, 4]}


def test_two_workers_exchange_at_the_ends_of_epochs_and_the_second_one_begins_with_the_second_stage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apart = [[name] for name in recipe.trained]
    run = make_run(tmp_path / "run", "srgan", apart, params=SMALL | {"pretraining": 0.5}, epochs=4)
    assert run.spec.exchange_every is None
    train_apart(run)
    published = {name: [(each.step, each.epoch) for each in run.store(name).history()] for name in recipe.trained}
    assert published == {
        "generator": [(0, 0), (2, 1), (4, 2), (6, 3), (8, 4)],
        "discriminator": [(0, 0), (6, 3), (8, 4)],
    }
    trained = (each for each in run.store("discriminator").history() if each.step)
    assert [each.peers["generator"]["epoch"] for each in trained] == [2, 3]
    evaluate(run)
    assert "lower_is_better" not in caplog.text, "the distances by other networks are no misspelt names of this one's"


def test_a_run_whose_worker_ends_after_each_batch_is_bit_identical(trained: Run, tmp_path: Path) -> None:
    run, steps = run_in(tmp_path / "run"), []
    while not run.is_finished(run.modules):
        with contextlib.suppress(Preempted):
            work(run, run.modules, threads=1, leave_after_s=0.01)
        steps.append(run.read_report("generator").step)
    assert steps == [1, 2, 3, 4]
    assert weights_of(run) == weights_of(trained)


def test_an_image_of_any_size_is_enlarged_in_tiles_of_which_nothing_is_seen(trained: Run, tmp_path: Path) -> None:
    model = load(trained)
    images = torch.rand(1, 3, 50, 33) * 2 - 1
    made = model.apply(images)
    assert isinstance(made, Tensor)
    with torch.no_grad():
        torch.testing.assert_close(made, model.networks["generator"](images).clamp(-1, 1), rtol=0, atol=1e-5)
    Image.new("RGB", (7, 5), (90, 90, 90)).save(tmp_path / "small.png")
    enlarged = model.apply(tmp_path / "small.png")
    assert isinstance(enlarged, Image.Image)
    assert enlarged.size == (28, 20)


def published_file(folder: Path) -> PublishedSrResNet:
    """A network as the other project saves it when it was compiled, with what stands beside its weights."""
    torch.manual_seed(4)
    net = PublishedSrResNet(6, 3, 2)
    net(torch.rand(4, 3, 8, 8))  # moves the statistics
    state = {f"_orig_mod.{name}": value for name, value in net.state_dict().items()}
    torch.save(
        {"epoch": 3, "best_psnr": 21.5, "state_dict": state, "optimizer": {"state": {}}}, folder / "g_last.pth.tar"
    )
    return net.eval()


def test_a_generator_goes_to_and_from_the_files_of_another_project_with_equal_outputs(tmp_path: Path) -> None:
    theirs, images = published_file(tmp_path), torch.rand(1, 3, 9, 7)
    words = ("--recipe", "srgan", "--epoch", "last", "--name", "run", "--root", tmp_path, "--built-in", "photographs")
    imported = typed("import", tmp_path, *words, "--crop-size", 16, "--crops", 4, "--batch-size", 4, "--no-check")
    assert imported.code == 0, imported.out + imported.err
    model = load(tmp_path / "run")
    assert (model.params.scale, model.params.generator.blocks, model.params.generator.norm) == (4, 3, "batch")
    with torch.no_grad():
        made, expected = model.apply(images * 2 - 1), theirs(images) * 2 - 1
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    assert typed("export", tmp_path / "run", "--out", tmp_path / "out").code == 0
    state = torch.load(tmp_path / "out/g_latest.pth.tar", weights_only=True)["state_dict"]
    again = PublishedSrResNet(6, 3, 2)
    again.load_state_dict(state)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in again.state_dict().items())
    params = params_of(SMALL, scale=4, generator={"width": 6, "blocks": 3, "norm": "batch", "skip": "none"})
    begun = find_initial_weights({"generator": str(tmp_path / "g_last.pth.tar")}, recipe)["generator"]
    net = srgan.build_generator(params)
    initialise([net], "generator", begun, recipe.formats.values())
    assert torch.equal(net.state_dict()["out.weight"], theirs.conv3.weight)


def test_a_generator_that_computes_something_else_is_not_exchanged_with_the_other_project(
    trained: Run, tmp_path: Path
) -> None:
    exported = typed("export", trained.path, "--out", tmp_path / "out")
    assert exported.code == 2
    assert "of SRGAN-PyTorch has norm = batch and skip = none, but this one has norm = none and skip = " in exported.err
    assert not (tmp_path / "out").exists()
    published_file(tmp_path)
    begun = find_initial_weights({"generator": str(tmp_path / "g_last.pth.tar")}, recipe)["generator"]
    net = srgan.build_generator(params_of(SMALL, generator={"width": 6, "blocks": 3, "norm": "batch"}))
    with pytest.raises(InputError, match="this one has norm = batch and skip = bicubic; take a run with"):
        initialise([net], "generator", begun, recipe.formats.values())
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    other = find_initial_weights({"generator": str(tmp_path / "other.safetensors")}, recipe)["generator"]
    with pytest.raises(InputError, match=r"does not fit generator: head\.0\.weight is missing"):
        initialise([net], "generator", other, recipe.formats.values())


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_the_scale_of_a_file_is_that_of_its_shuffles(scale: int) -> None:
    params = params_of(SMALL, scale=scale, crop_size=48, generator={"width": 2, "norm": "batch", "skip": "none"})
    file = srgan.srgan_pytorch_files.files["generator"]
    assert file.params(file.exported(srgan.build_generator(params)))["scale"] == scale
