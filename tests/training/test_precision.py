"""Mixed precision: losses in bfloat16 or float16, weights in float32, and the scale of the loss that float16 needs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from modtrain.errors import Diverged, InputError, Preempted
from modtrain.nets.adversarial_losses import gradient_penalty
from modtrain.nets.full_precision import full_precision
from modtrain.recipes.latent_translation import Params, recipe
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.nets_view import Nets
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.checkpoint import EMA, STATE, WEIGHTS
from modtrain.storage.history import History
from modtrain.storage.run import Run
from modtrain.training import serialization
from modtrain.training.precision import autocast, check_precision
from modtrain.training.recipe_check.check import check_recipe
from modtrain.training.worker_process import work
from tests.support.runs import finish, make_run, weights_of
from tests.training.test_clipping import TEXT as CLIPPING
from tests.training.test_together import TEXT as PAIR

TINY = [["generator", "discriminator"]]


def content(run: Run, module: str, name: str) -> bytes:
    newest = run.store(module).latest()
    assert newest is not None
    return run.store(module).read(newest, name)


def rows_of(run: Run) -> list[dict[str, Any]]:
    history = History(run)
    history.refresh()
    return list(history.rows())


def finish_with_breaks(run: Run, count: int) -> None:
    """Train with workers that leave after each of the first `count` batches."""
    for _ in range(count):
        with contextlib.suppress(Preempted):
            work(run, run.modules, threads=1, leave_after_s=0.001)
    finish(run)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_a_lower_precision_learns_and_goes_on_bit_identically_with_weights_in_float32(
    tmp_path: Path, tiny_recipe: Path, precision: str
) -> None:
    text = tiny_recipe.read_text().replace(
        '{"loss": loss}', '{"loss": loss, "bits": torch.tensor(float(torch.finfo(fake.dtype).bits))}'
    )
    (tmp_path / "tiny.py").write_text(text)
    values: dict[str, Any] = {"params": {"batches": 4}, "epochs": 2, "precision": precision, "device": "cpu"}
    whole, left = (make_run(tmp_path / name, tmp_path / "tiny.py", TINY, **values) for name in ("whole", "left"))
    assert Run.open(whole.path).spec.precision == precision
    finish(whole)
    finish_with_breaks(left, 1)
    assert weights_of(left) == weights_of(whole)
    assert {value.dtype for value in load(content(whole, "generator", WEIGHTS)).values()} == {torch.float32}
    first, *_, last = [row for row in rows_of(left) if row["module"] == "discriminator" and "loss" in row]
    assert last["loss"] < first["loss"]
    assert {row["bits"] for row in rows_of(left) if "bits" in row} == {16}
    saved = serialization.unpack_state(content(whole, "generator", STATE))
    assert ("scale" in saved) == (precision == "float16")


def test_a_run_without_a_precision_is_in_float32() -> None:
    assert Run.open(Path(__file__).parents[1] / "assets" / "format-1-defaults").spec.precision == "float32"


def scaled_run(tmp_path: Path, option: str, bound: float | None = None, *, name: str = "run", epochs: int = 3) -> Run:
    """The gradient is the batch itself, so the loss cannot be scaled by 2**16, and only by 2**12 where it is 8."""
    path = tmp_path / "scaled.py"
    path.write_text(CLIPPING.replace("OPTION", f"{option}ema=0.5,"))
    run = make_run(tmp_path / name, path, [["net"]], params={"bound": bound}, epochs=epochs, precision="float16")
    finish(run)
    return run


def test_a_step_whose_gradient_overflows_is_skipped_and_the_next_one_has_a_smaller_loss_scale(tmp_path: Path) -> None:
    run = scaled_run(tmp_path, "", epochs=1)
    (weight,) = load(content(run, "net", WEIGHTS)).values()
    assert (-weight).flatten().tolist() == pytest.approx([0.3, 0.4], abs=2e-3), "(3, 4) and (-6, 8) are left out"
    assert [row["skipped"] for row in rows_of(run)] == [0.5]
    saved = serialization.unpack_state(content(run, "net", STATE))
    assert (saved["scale"]["scale"], saved["averaged"]) == (2**14, 2)
    (average,) = load(content(run, "net", EMA)).values()
    decays = [2 / 11, 3 / 12]
    expected = weight * (1 - decays[0]) * decays[1] + weight * (1 - decays[1])
    torch.testing.assert_close(average, expected, atol=1e-3, rtol=0)


def test_the_gradient_is_clipped_after_it_was_unscaled(tmp_path: Path) -> None:
    run = scaled_run(tmp_path, "clip_norm=1,", epochs=1)
    (weight,) = load(content(run, "net", WEIGHTS)).values()
    assert (-weight).flatten().tolist() == pytest.approx([0.3, 0.4], abs=2e-3)
    assert [(row["skipped"], row["clipped"]) for row in rows_of(run)] == [(0.5, 0.0)]


def test_the_scale_of_the_loss_is_that_of_before_when_a_run_resumes(tmp_path: Path) -> None:
    whole = scaled_run(tmp_path, "")
    left = make_run(tmp_path / "left", tmp_path / "scaled.py", [["net"]], epochs=3, precision="float16")
    finish_with_breaks(left, 2)
    assert weights_of(left) == weights_of(whole)


def test_a_gradient_that_is_never_finite_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "never.py"
    path.write_text(CLIPPING.replace("OPTION", "").replace(".sum()}", ".sum() * torch.inf}"))
    run = make_run(tmp_path / "run", path, [["net"]], epochs=20, precision="float16")
    with pytest.raises(Diverged, match=r"The gradient of net is NaN or Inf at step 30, however low the loss is scaled"):
        finish(run)


def test_modules_that_are_trained_together_share_the_scale_of_their_loss(tmp_path: Path) -> None:
    path = tmp_path / "pair.py"
    path.write_text(PAIR.replace("torch.ones(1)}", "torch.ones(1) * 1e37}").replace("max_staleness=0", "epochs=2"))
    run = make_run(tmp_path / "run", path, [["first", "second"]], precision="float16")
    finish(run)
    scales = [serialization.unpack_state(content(run, name, STATE))["scale"]["scale"] for name in run.modules]
    assert scales == [2.0**12] * 2
    assert [load(content(run, name, WEIGHTS))["weight"].item() for name in run.modules] == [2.0, 3.0]


def test_a_precision_that_is_none_or_that_a_device_does_not_have_is_refused_with_a_sentence() -> None:
    with pytest.raises(InputError, match=r"precision = 'half' is not allowed: .*'float32', 'bfloat16' or 'float16'"):
        Config(precision="half")  # type: ignore[arg-type]
    check_precision("bfloat16", "cpu")
    with pytest.raises(InputError, match=r"--precision float16 is not possible on meta here .*use float32 or bfloat16"):
        check_precision("float16", "meta")


def test_a_gradient_penalty_is_computed_in_float32_and_refuses_anything_else() -> None:
    net, samples = torch.nn.Linear(4, 1), torch.randn(8, 4, requires_grad=True)
    exact = gradient_penalty(net(samples), samples)
    with autocast("bfloat16", "cpu"):
        with pytest.raises(InputError, match="gradient_penalty needs logits in float32, not bfloat16"):
            gradient_penalty(net(samples), samples)
        with full_precision():
            assert torch.equal(gradient_penalty(net(samples), samples), exact)


def test_a_recipe_is_checked_in_the_precision_of_its_run(tmp_path: Path, tiny_recipe: Path) -> None:
    text = tiny_recipe.read_text().replace(
        "nets.discriminator(fakes(nets))", "nets.discriminator(fakes(nets)); gradient_penalty(on_real, on_real)"
    )
    path = tmp_path / "penalised.py"
    path.write_text(text.replace("import torch\n", "import torch\nfrom modtrain.nets.adversarial_losses import *\n"))
    sentences = {}
    for precision in ("float32", "bfloat16", "float16"):
        spec = new_spec(Config(recipe=str(path), precision=precision), load_recipe(str(path)), TINY)
        sentences[precision] = check_recipe(spec, lambda findings: None).violations
    assert sentences["float32"] == []
    assert sentences["bfloat16"] == sentences["float16"]
    (sentence,) = sentences["bfloat16"]
    assert sentence.startswith(
        "gradient_penalty needs logits in float32, not bfloat16: compute them, and the penalty, "
    )


def test_the_penalty_of_latent_translation_is_that_of_float32() -> None:
    params = Params()
    live = {name: module.build(params) for name, module in recipe.modules.items()}
    nets = Nets({n: [net] for n, net in live.items()}, {n: recipe.reads([n], params) for n in live})
    batch, loss = {name: torch.rand(2, 3, 24, 24) for name in ("a", "b")}, recipe.modules["discriminator"].loss
    assert loss is not None
    nets.enter("discriminator")
    with autocast("bfloat16", "cpu"):
        losses = loss(nets, batch, params)
    assert {losses[name].dtype for name in ("loss", "penalty")} == {torch.float32}
    assert bool(losses["penalty"] > 0)
