"""The recipe against its paper: sizes, the values of its losses, what each loss trains, evaluation, and small runs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from modtrain.data.unpaired import UnpairedTest
from modtrain.errors import InputError
from modtrain.nets.adversarial_losses import GanMode
from modtrain.recipes import cyclegan
from modtrain.recipes.contract import sum_of, terms_of
from modtrain.recipes.cyclegan import Params, recipe
from tests.support.losses import SMALL as SIZES
from tests.support.losses import TINY_IMAGES, Losses
from tests.support.noise import numbered, save_noise
from tests.support.runs import finish, make_run, start_worker

SMALL = SIZES["cyclegan"]
HALVES = (("generator_ab", "discriminator_b"), ("generator_ba", "discriminator_a"))


losses = Losses(recipe)
params_of, built, nets_of, loss_of = losses.params_of, losses.built, losses.nets_of, losses.loss_of


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"a": torch.rand(2, 3, 24, 24) * 2 - 1, "b": torch.rand(2, 3, 24, 24) * 2 - 1}


def test_at_the_papers_widths_the_networks_have_the_published_numbers_of_weights() -> None:
    params = params_of({"generator": {"width": 64, "blocks": 9}, "discriminator": {"width": 64}})
    sizes = {name: sum(weight.numel() for weight in net.parameters()) for name, net in built(params).items()}
    assert sizes["generator_ab"] == sizes["generator_ba"] == 11_378_179
    assert sizes["discriminator_a"] == sizes["discriminator_b"] == 2_764_737


class Times(nn.Module):
    """A network that multiplies images, or means them to a logit, by one weight."""

    def __init__(self, factor: float, *, is_judge: bool = False) -> None:
        super().__init__()
        self.factor, self.is_judge = nn.Parameter(torch.tensor(factor)), is_judge

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * (images.mean((1, 2, 3)) if self.is_judge else images)


def test_the_losses_have_the_values_of_the_papers_equations() -> None:
    """Constant images, a = 0.5 and b = 0.25; G_AB is times 3, G_BA a half; D_B and D_A are the mean, times 1 and 4."""
    params = params_of({"generator": {"lambda_cycle_a": 7, "lambda_cycle_b": 11, "lambda_identity": 0.3}})
    live: dict[str, nn.Module] = {"generator_ab": Times(3.0), "generator_ba": Times(0.5)}
    live |= {"discriminator_b": Times(1.0, is_judge=True), "discriminator_a": Times(4.0, is_judge=True)}
    nets = nets_of(params, live)
    constant = {"a": torch.full((2, 3, 8, 8), 0.5), "b": torch.full((2, 3, 8, 8), 0.25)}
    ab = loss_of("generator_ab", nets, constant, params)
    assert ab["adversarial"] == pytest.approx((1.5 - 1) ** 2)  # D_B(G_AB(a)) = 1.5
    assert ab["cycle_a"] == pytest.approx(0.75 - 0.5)  # G_BA(G_AB(a)) = 0.75
    assert ab["cycle_b"] == pytest.approx(0.375 - 0.25)  # G_AB(G_BA(b)) = 0.375
    assert ab["identity"] == pytest.approx(0.75 - 0.25)  # G_AB(b) = 0.75
    assert ab["loss"] == pytest.approx(0.25 + 7 * 0.25 + 11 * 0.125 + 0.3 * 11 * 0.5)
    ba = loss_of("generator_ba", nets, constant, params)
    assert ba["adversarial"] == pytest.approx((0.5 - 1) ** 2)  # D_A(G_BA(b)) = 0.5
    assert ba["identity"] == pytest.approx(0.5 - 0.25)  # G_BA(a) = 0.25
    assert ba["loss"] == pytest.approx(0.25 + 7 * 0.25 + 11 * 0.125 + 0.3 * 7 * 0.25)
    judged = loss_of("discriminator_b", nets, constant, params)["loss"]
    assert judged == pytest.approx(((0.25 - 1) ** 2 + 1.5**2) / 2)
    judged = loss_of("discriminator_a", nets, constant, params)["loss"]
    assert judged == pytest.approx(((2.0 - 1) ** 2 + 0.5**2) / 2)


def test_the_gradient_penalty_of_a_discriminator_is_that_on_real_images() -> None:
    """D is the mean times 4, so each pixel of (3, 8, 8) has the gradient 4 / 192, and R1 is half its squared norm."""
    params = params_of({"discriminator": {"lambda_r1": 30.0}})
    live: dict[str, nn.Module] = {"generator_ab": Times(3.0), "discriminator_b": Times(4.0, is_judge=True)}
    batch = {"a": torch.full((2, 3, 8, 8), 0.5), "b": torch.full((2, 3, 8, 8), 0.25)}
    losses = loss_of("discriminator_b", nets_of(params, live), batch, params)
    assert losses["adversarial"] == pytest.approx(((1 - 1) ** 2 + 6**2) / 2)
    assert losses["penalty"] == pytest.approx(4**2 / 192 / 2)
    assert losses["loss"] == pytest.approx(18 + 30 * 4**2 / 192 / 2)


@pytest.mark.parametrize("module", list(recipe.modules))
@pytest.mark.parametrize("gan_mode", get_args(GanMode))
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
    loss = sum_of(terms_of(losses))
    assert all(value.shape == () and torch.isfinite(value) for value in {**losses, "loss": loss}.values())
    loss.backward()
    for name, net in live.items():
        assert any(parameter.grad is not None for parameter in net.parameters()) == (name == module)


def test_generators_apart_have_the_gradients_of_the_published_sum_over_both(batch: dict[str, Tensor]) -> None:
    params = params_of(SMALL)
    live = {name: net.double() for name, net in built(params).items()}
    batch = {name: images.double() for name, images in batch.items()}
    apart = {}
    for module in HALVES[0][0], HALVES[1][0]:
        nets = nets_of(params, live)
        nets.enter(module)
        loss = recipe.modules[module].loss(nets, batch, params)["loss"]
        apart[module] = torch.autograd.grad(loss, list(live[module].parameters()))
    a, b, (ab, ba, judge_b, judge_a) = batch["a"], batch["b"], live.values()
    fake_b, fake_a = ab(a), ba(b)
    distance = nn.functional.l1_loss
    adversarial = (judge_b(fake_b) - 1).square().mean() + (judge_a(fake_a) - 1).square().mean()
    cycles = 10 * distance(ba(fake_b), a) + 10 * distance(ab(fake_a), b)
    both = adversarial + cycles + 5 * distance(ab(b), b) + 5 * distance(ba(a), a)
    for module, gradients in apart.items():
        torch.testing.assert_close(
            torch.autograd.grad(both, list(live[module].parameters()), retain_graph=True), gradients
        )


def test_a_discriminator_also_judges_fakes_of_earlier_steps() -> None:
    params = params_of({"discriminator": {"pool_size": 4}})
    live: dict[str, nn.Module] = {"generator_ab": Times(1.0), "generator_ba": Times(1.0)}
    live |= {"discriminator_b": Times(1.0, is_judge=True), "discriminator_a": Times(1.0, is_judge=True)}
    nets = nets_of(params, live)
    torch.manual_seed(0)

    def judged(level: float) -> float:
        """The share of zeros among the four fakes, where all images of the step have this level."""
        nets.forget()
        images = {"a": torch.full((4, 3, 8, 8), level), "b": torch.ones(4, 3, 8, 8)}
        return 1 - 2 * loss_of("discriminator_b", nets, images, params)["loss"]

    assert judged(0.0) == 1
    shares = [judged(1.0) for _ in range(20)]
    assert 0 < sum(shares) * 4 <= 4  # each of the four zeros comes back once at most
    assert shares[-1] == 0


def test_the_rates_are_constant_for_half_of_the_run_and_then_fall_linearly_to_zero() -> None:
    params = Params()
    factors = [cyclegan.schedule(progress, params) for progress in (0, 0.5, 0.75, 0.99)]
    assert factors == pytest.approx([1, 1, 0.5, 0.02])


@pytest.mark.parametrize("size", [(24, 24), (25, 38), (1, 1)])
@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_images_of_any_size_are_translated_in_the_chosen_direction(size: tuple[int, int], direction: str) -> None:
    params = params_of(SMALL, direction=direction)
    live = built(params)
    name = "generator_ab" if direction == "AtoB" else "generator_ba"
    images = torch.rand(2, 3, *size) * 2 - 1
    translated = cyclegan.apply(nets_of(params, live), images, params)
    assert translated.shape == images.shape
    if size == (24, 24):
        torch.testing.assert_close(translated, live[name](images))


def test_with_the_truth_there_is_every_metric_and_a_grid_of_input_translation_cycle_and_truth() -> None:
    params = params_of(SMALL, direction="BtoA")
    mask = torch.zeros(3, 1, 24, 24, dtype=torch.bool)
    mask[..., 6:18, 6:18] = True
    a = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8)
    b = torch.where(mask, 255 - a, a)
    result = cyclegan.evaluate(nets_of(params, built(params)), UnpairedTest(pixels_a=a, pixels_b=b, mask=mask), params)
    named = ["translation_psnr", "untouched_psnr", "background_psnr", "background_ssim"]
    assert list(result.metrics) == [*named, "cycle_psnr", "target_kept_psnr"]
    assert result.grid is not None
    first, last = (result.grid[row * 98 :: 4, 2 - 3 * 98 :: 4].permute(2, 0, 1)[:, :24, :24] for row in (0, 3))
    assert (first == b[0]).all()
    assert (last == a[0]).all()


def test_without_the_truth_there_is_what_can_be_known_and_without_test_images_what_to_add() -> None:
    params = params_of(SMALL)
    nets = nets_of(params, built(params))
    a, b = (torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8) for count in (3, 2))
    result = cyclegan.evaluate(nets, UnpairedTest(pixels_a=a, pixels_b=b), params)
    assert list(result.metrics) == ["cycle_psnr", "target_kept_psnr"]
    assert result.grid is not None
    assert result.grid.shape[0] == 3 * 98 - 2
    with pytest.raises(InputError, match="add testA and testB"):
        cyclegan.evaluate(nets, None, params)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small images of each kind, as a user's folder has them."""
    return save_noise(tmp_path_factory.mktemp("photographs"), *numbered(4, "trainA", "trainB"))


@pytest.mark.parametrize("placement", [(tuple(recipe.modules),), HALVES], ids=["joint", "halves"])
def test_a_run_on_a_users_images_trains_every_module(
    placement: tuple[tuple[str, ...], ...], photographs: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 1, "exchange_every": 1, "dataroot": photographs}
    run = make_run(tmp_path / "run", "cyclegan", placement, params=SMALL | TINY_IMAGES, **settings)
    own, *others = placement
    workers = [start_worker(run, ",".join(modules)) for modules in others]
    finish(run, *own)
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, output
    for module in recipe.modules:
        newest = run.store(module).latest()
        assert newest is not None
        assert (newest.step, newest.final) == (2, True)
