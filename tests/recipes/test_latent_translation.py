"""The recipe against its article: layer structure, sizes, what each loss trains, inference and evaluation."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from modtrain.data.unpaired import UnpairedTest
from modtrain.errors import InputError, Preempted
from modtrain.nets.adversarial_losses import GanMode
from modtrain.recipes import latent_translation
from modtrain.recipes.latent_translation import Params, deviation_loss, recipe
from modtrain.recipes.nets_view import Nets
from modtrain.training.worker_process import work
from tests.support.losses import SMALL as SIZES
from tests.support.losses import TINY_IMAGES, Losses
from tests.support.noise import numbered, save_noise
from tests.support.runs import finish, make_run, weights_of

ARTICLE: dict[str, Any] = {
    "encoder_decoder": {"width": 64},
    "translator": {"blocks": 9, "conv": "dense"},
    "discriminator": {"width": 256},
}
SMALL = SIZES["latent-translation"]
losses = Losses(recipe)
params_of, built, nets_of = losses.params_of, losses.built, losses.nets_of


def train_only(module: str, nets: Nets, live: dict[str, nn.Module]) -> None:
    nets.enter(module)
    for name, net in live.items():
        net.requires_grad_(name == module)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"a": torch.rand(2, 3, 24, 24) * 2 - 1, "b": torch.rand(2, 3, 24, 24) * 2 - 1}


def megabytes(net: nn.Module) -> float:
    return sum(parameter.numel() for parameter in net.parameters()) * 4 / 1e6


def test_at_the_articles_widths_the_modules_have_the_articles_sizes() -> None:
    sizes = {name: megabytes(net) for name, net in built(params_of(ARTICLE)).items()}
    assert sizes["encoder_decoder"] == pytest.approx(3.0, abs=0.05)
    assert sizes["translator"] == pytest.approx(42.5, abs=0.1)
    assert sizes["discriminator"] == pytest.approx(12.6, abs=0.05)


def test_the_encoder_decoder_is_the_one_of_the_article() -> None:
    net = built(params_of(ARTICLE))["encoder_decoder"]
    convolutions = [x for x in net.modules() if isinstance(x, nn.Conv2d | nn.ConvTranspose2d)]
    described = [(x.in_channels, x.out_channels, x.kernel_size[0], x.stride[0]) for x in convolutions]
    encoder = [(3, 64, 7, 1), (64, 128, 3, 2), (128, 256, 3, 2)]
    assert described == [*encoder, (256, 128, 3, 2), (128, 64, 3, 2), (64, 3, 7, 1)]
    assert all(x.padding_mode == "reflect" for x in convolutions if isinstance(x, nn.Conv2d))
    assert sum(isinstance(x, nn.InstanceNorm2d) for x in net.modules()) == 5
    assert isinstance(net.decoder[-1], nn.Tanh)


@pytest.mark.parametrize("conv", ["dense", "separable"])
@pytest.mark.parametrize("spectral_norm", [True, False])
def test_encoding_translation_verdict_and_image_have_the_described_shapes(conv: str, spectral_norm: bool) -> None:
    params = params_of(SMALL, translator={"conv": conv, "blocks": 2}, discriminator={"spectral_norm": spectral_norm})
    nets = nets_of(params, built(params))
    encoding = nets.encoder_decoder.encode(torch.zeros(2, 3, 48, 48))
    assert encoding.shape == nets.translator(encoding).shape == (2, 16, 12, 12)
    assert nets.discriminator(encoding).shape == (2, 1, 4, 4)
    assert nets.encoder_decoder.decode(encoding).shape == (2, 3, 48, 48)


@pytest.mark.parametrize("deviation", get_args(latent_translation.Deviation))
def test_deviation_is_zero_for_the_identity_and_the_norm_of_the_difference_otherwise(deviation: Any) -> None:
    encoding = torch.randn(2, 4, 6, 6)
    assert float(deviation_loss(encoding, encoding, deviation)) == 0
    assert float(deviation_loss(encoding, encoding + 2, deviation)) == pytest.approx(2 if deviation == "l1" else 4)


def test_the_translator_starts_as_the_identity_so_that_its_first_deviations_are_zero(batch: dict[str, Tensor]) -> None:
    params = params_of(SMALL)
    losses = latent_translation.translator_loss(nets_of(params, built(params)), batch, params)
    assert float(losses["deviation_a"].detach()) == float(losses["deviation_b"].detach()) == 0


@pytest.mark.parametrize("module", list(recipe.modules))
@pytest.mark.parametrize("gan_mode", get_args(GanMode))
def test_a_loss_has_gradients_for_its_own_module_and_for_no_other(
    module: str, gan_mode: GanMode, batch: dict[str, Tensor]
) -> None:
    params = params_of(SMALL, discriminator={"gan_mode": gan_mode})
    live = built(params)
    nets = nets_of(params, live)
    train_only(module, nets, live)
    losses = recipe.modules[module].loss(nets, batch, params)
    assert all(value.shape == () and torch.isfinite(value) for value in losses.values())
    losses["loss"].backward()
    for name, net in live.items():
        assert any(parameter.grad is not None for parameter in net.parameters()) == (name == module)


@pytest.mark.parametrize("gan_mode", get_args(GanMode))
def test_the_adversarial_loss_is_the_mean_over_the_opponents(gan_mode: GanMode, batch: dict[str, Tensor]) -> None:
    params = params_of(SMALL, discriminator={"gan_mode": gan_mode})
    live, opponents = built(params), [built(params)["discriminator"], recipe.modules["discriminator"].build(params)]

    def adversarial(of: list[nn.Module]) -> float:
        nets = nets_of(params, live, discriminator=of)
        nets.enter("translator")
        return float(latent_translation.translator_loss(nets, batch, params)["adversarial"].detach())

    alone = [adversarial([opponent]) for opponent in opponents]
    assert alone[0] != alone[1]
    assert adversarial(opponents) == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_patches_of_the_statistics_that_are_larger_than_the_encodings_are_refused() -> None:
    assert params_of(SMALL, crop_size=24, load_size=24, translator={"swd_patch_size": 6})
    says = r"translator\.swd_patch_size = 7 is too large; use at most crop_size / 4 = 6\."
    with pytest.raises(InputError, match=says):
        params_of(SMALL, crop_size=24, load_size=24, translator={"swd_patch_size": 7})


def test_one_worker_encodes_and_translates_a_batch_once(batch: dict[str, Tensor]) -> None:
    params = params_of(SMALL)
    live = built(params)
    nets, calls = nets_of(params, live), {"encode": 0, "translate": 0}
    live["encoder_decoder"].encoder.register_forward_hook(lambda *_: calls.update(encode=calls["encode"] + 1))
    live["translator"].register_forward_hook(lambda *_: calls.update(translate=calls["translate"] + 1))
    for module in recipe.modules:
        train_only(module, nets, live)
        recipe.modules[module].loss(nets, batch, params)["loss"].backward()
    assert calls == {"encode": 1, "translate": 2}  # A and B


def test_the_term_of_the_statistics_counts_with_its_weight_and_without_one_costs_nothing(
    batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = built(params_of(SMALL))

    def losses(weight: float) -> dict[str, float]:
        torch.manual_seed(0)
        params = params_of(SMALL, translator={"lambda_swd": weight, "swd_projections": 5, "swd_patch_size": 1})
        terms = latent_translation.translator_loss(nets_of(params, live), batch, params)
        return {name: float(term.detach()) for name, term in terms.items()}

    with_term, with_twice = losses(1.5), losses(3.0)
    assert with_term["swd"] == with_twice["swd"] > 0.01
    assert with_twice["loss"] - with_term["loss"] == pytest.approx(1.5 * with_term["swd"], rel=1e-4)
    monkeypatch.setattr(latent_translation, "sliced_wasserstein", None)
    without = losses(0)
    assert "swd" not in without
    assert with_term["loss"] - without["loss"] == pytest.approx(1.5 * with_term["swd"], rel=1e-4)


def test_a_joint_run_that_leaves_after_each_batch_draws_the_same_filters_and_ends_bit_identical(
    tmp_path: Path, photographs: Path
) -> None:
    settings = {
        "params": SMALL | TINY_IMAGES,
        "dataroot": photographs,
        "epochs": 3,
    }
    whole, left = (
        make_run(tmp_path / name, "latent-translation", [list(recipe.modules)], **settings)
        for name in ("whole", "left")
    )
    finish(whole)
    while not left.is_finished(left.modules):
        with contextlib.suppress(Preempted):
            work(left, left.modules, threads=1, leave_after_s=0.001)
    assert weights_of(left) == weights_of(whole)


def penalty_of(penalty: str, batch: dict[str, Tensor], scale: float = 1.0) -> float:
    """With the linear discriminator w, on encodings that are `scale` times the image."""
    params = params_of(SMALL, discriminator={"penalty": penalty})
    encoder = nn.Module()
    encoder.encode = lambda images: scale * images  # type: ignore[assignment]
    judge = nn.Conv2d(3, 1, 24, bias=False)
    nn.init.constant_(judge.weight, 0.5 / scale)
    nets = nets_of(params, {"encoder_decoder": encoder, "translator": nn.Identity(), "discriminator": judge})
    nets.enter("discriminator")
    return float(latent_translation.discriminator_loss_on_encodings(nets, batch, params)["penalty"].detach())


def test_r1_and_r2_are_half_the_squared_gradient_in_units_of_the_encodings_variance(batch: dict[str, Tensor]) -> None:
    by_hand = 0.5 * (3 * 24 * 24) * 0.5**2 * float(batch["b"].var())
    assert penalty_of("none", batch) == 0
    assert penalty_of("r1", batch) == pytest.approx(by_hand, rel=1e-4)
    assert penalty_of("r1+r2", batch) == pytest.approx(2 * by_hand, rel=1e-4)
    assert penalty_of("r1", batch, scale=100.0) == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("size", [(24, 24), (25, 38), (1, 1), (3, 50), (7, 5)])
def test_images_of_any_size_are_translated_to_their_own_size(size: tuple[int, int]) -> None:
    params = params_of(SMALL)
    images = torch.rand(2, 3, *size) * 2 - 1
    translated = latent_translation.apply(nets_of(params, built(params)), images, params)
    assert translated.shape == images.shape
    assert torch.isfinite(translated).all()


def test_modules_start_and_finish_when_the_parameters_say() -> None:
    params = params_of(
        {},
        encoder_decoder={"decay_from": 0.2, "finished_at": 0.6},
        translator={"starts_at": 0.1, "decay_from": 1.0, "finished_at": 1.0},
    )

    def factors(module: str, *progress: float) -> list[float]:
        schedule = recipe.modules[module].schedule
        assert schedule is not None
        return [schedule(at, params) for at in progress]

    assert factors("encoder_decoder", 0, 0.2, 0.4, 0.6, 0.99) == pytest.approx([1, 1, 0.5, 0, 0])
    assert factors("translator", 0, 0.0999, 0.1, 0.99) == [0, 0, 1, 1]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small images of each kind, one batch."""
    return save_noise(tmp_path_factory.mktemp("photographs"), *numbered(2, "trainA", "trainB"))


class TestEvaluation:
    params = params_of(SMALL)

    def test_with_the_truth_it_has_every_metric_and_three_rows(self) -> None:
        torch.manual_seed(0)
        mask = torch.zeros(5, 1, 24, 24, dtype=torch.bool)
        mask[..., 6:18, 6:18] = True
        a = torch.randint(0, 256, (5, 3, 24, 24), dtype=torch.uint8)
        b = torch.where(mask, 255 - a, a)
        nets = nets_of(self.params, built(self.params))
        result = latent_translation.evaluate(nets, UnpairedTest(pixels_a=a, pixels_b=b, mask=mask), self.params)
        kept = {"translation_psnr", "untouched_psnr", "background_psnr", "background_ssim"}
        assert result.metrics.keys() == kept | {"reconstruction_psnr", "target_kept_psnr"}
        # The translator is the identity at the start, so B through it is B reconstructed.
        assert result.grid is not None
        images = result.grid.permute(2, 0, 1)[..., 2 - 5 * 98 :: 4]  # 24 pixels are shown as 96, with a gap of 2
        assert (images[:, ::4][:, :24, :24] == a[0]).all()
        last = images[:, 2 * 98 :: 4]
        assert (last[:, :, :24] == b[0]).all()

    def test_without_the_truth_it_has_what_can_be_known(self) -> None:
        a, b = (torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8) for count in (3, 2))
        nets = nets_of(self.params, built(self.params))
        result = latent_translation.evaluate(nets, UnpairedTest(pixels_a=a, pixels_b=b), self.params)
        assert result.metrics.keys() == {"reconstruction_psnr", "target_kept_psnr"}
        assert result.grid is not None
        assert result.grid.shape[0] == 2 * 96 + 2

    def test_without_test_images_it_says_what_to_add(self) -> None:
        with pytest.raises(InputError, match="add testA and testB"):
            latent_translation.evaluate(nets_of(self.params, built(self.params)), None, self.params)


def test_without_a_folder_the_data_are_apples_and_oranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    params = replace(params_of(SMALL), load_size=24, crop_size=24)
    data = recipe.data(None, params)
    shown = next(iter(data.train.epoch(0, seed=0)))
    assert {name: tuple(images.shape) for name, images in shown.items()} == {"a": (8, 3, 24, 24), "b": (8, 3, 24, 24)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"translator": {"opponents": 0}}, "translator.opponents\n  Input should be greater than or equal to 1"),
        ({"translator": {"conv": "depthwise"}}, "translator.conv\n  Input should be 'dense' or 'separable'"),
        ({"discriminator": {"gan_mode": "wgan"}}, "Input should be 'lsgan', 'vanilla' or 'hinge'"),
        ({"discriminator": {"lr": 0}}, "discriminator.lr\n  Input should be greater than 0"),
        ({"translator": {"block": 9}}, "translator.block\n  Unexpected keyword argument"),
        ({"crop_size": 50}, "crop_size\n  Input should be a multiple of 4"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_name_and_what_is_allowed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Params).validate_python(wrong)
    assert message in str(error.value)


def test_every_parameter_says_what_it_means_and_cannot_be_changed_afterwards() -> None:
    schema = TypeAdapter(Params).json_schema()
    for fields in (schema, *schema["$defs"].values()):
        for name, field in fields["properties"].items():
            assert "$ref" in field or field.get("description"), name
    with pytest.raises(AttributeError):
        Params().translator.lr = 1.0  # type: ignore[misc]
