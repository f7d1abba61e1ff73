"""What a worker writes can be read back: plain numbers, random generators, and the average of weights."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from modtrain.errors import InputError, Preempted
from modtrain.recipes.loading import params_of, recipe_of
from modtrain.training.learner import Learner
from modtrain.training.random_state import kept_random_state, seed_all
from modtrain.training.worker_process import work
from tests.support.runs import finish, make_run, weights_of

TOGETHER = [["generator", "discriminator"]]
SCHEDULE = "schedule=lambda progress, params: 1 - progress / 2,"
STEP = "return torch.optim.Adam(parameters, lr=params.lr)"


def changed(path: Path, recipe: Path, *pieces: tuple[str, str]) -> Path:
    text = recipe.read_text().replace("import time\n", "import random\nimport time\n\nimport numpy as np\n", 1)
    for old, new in pieces:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_a_schedule_and_an_optimizer_with_numpy_numbers_and_draws_of_every_generator_resume_bit_identical(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = changed(
        tmp_path / "numpy.py",
        tiny_recipe,
        (SCHEDULE, "schedule=lambda progress, params: 0.5 * (1 + np.cos(np.pi * progress)),"),
        (STEP, "return torch.optim.Adam(parameters, lr=np.float32(params.lr))"),
        ("torch.randn(16, 4))", "torch.randn(16, 4) + float(np.random.rand()) + random.random() / 2)"),
    )
    both = [make_run(tmp_path / name, recipe, TOGETHER, epochs=4) for name in ("whole", "stopped")]
    finish(both[0])
    stopped = both[1]
    for _ in range(3):
        with pytest.raises(Preempted):
            work(stopped, stopped.modules, threads=1, leave_after_s=0.001)
        np.random.rand()
    finish(stopped)
    assert weights_of(both[0]) == weights_of(stopped)


def test_a_state_that_cannot_be_resumed_is_refused_at_the_start_with_the_name_of_its_entry(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    own = """
    made = torch.optim.Adam(parameters, lr=params.lr)
    made.param_groups[0]["path"] = __import__("pathlib").Path("x")
    return made"""
    recipe = changed(tmp_path / "own.py", tiny_recipe, (STEP, own))
    run = make_run(tmp_path / "run", recipe, TOGETHER)
    entry = r"entry \['param_groups'\]\[0\]\['path'\] \(PosixPath\) is neither a tensor nor a plain value"
    with pytest.raises(InputError, match=rf"The state of the optimizer of generator cannot be resumed: its {entry}"):
        finish(run)
    assert run.store("generator").versions() == []


@pytest.mark.parametrize("value", ["None", "'high'", "float('nan')", "-0.1"])
def test_a_schedule_that_returns_no_factor_is_refused(tmp_path: Path, tiny_recipe: Path, value: str) -> None:
    recipe = changed(tmp_path / "none.py", tiny_recipe, (SCHEDULE, f"schedule=lambda progress, params: {value},"))
    run = make_run(tmp_path / "run", recipe, TOGETHER)
    with pytest.raises(
        InputError, match=r"The schedule of discriminator \(.*, line \d+\) returned .* at progress 0; it must return a"
    ):
        finish(run)


def test_the_average_of_a_layer_with_spectral_normalisation_has_a_spectral_norm_of_one(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    normal = "torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4)))"
    recipe = changed(tmp_path / "normal.py", tiny_recipe, ("nn.Linear(8, 4))", normal))
    run = make_run(tmp_path / "run", recipe, TOGETHER)
    spec = recipe_of(run)
    learner = Learner(run, spec, params_of(run.spec, spec), "generator", device="cpu", writer="w")
    assert learner.average is not None
    layer, average = learner.net[3], learner.average[3]
    for number in range(20):
        torch.manual_seed(number)
        with torch.no_grad():
            layer.parametrizations.weight.original.copy_(torch.randn(4, 8))
        learner.net.train()
        for _ in range(5):
            learner.net(torch.randn(2, 4))
        learner.update_average()
    for own, copied in zip(layer.buffers(), average.buffers(), strict=True):
        assert torch.equal(own, copied)
    learner.average.train()
    for _ in range(50):
        learner.average(torch.randn(2, 4))
    learner.average.eval()
    assert isinstance(average, nn.Module)
    assert float(torch.linalg.matrix_norm(average.weight, 2)) == pytest.approx(1, abs=0.05)


def test_an_average_that_begins_at_a_step_is_the_weights_before_and_has_the_whole_decay_after(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = changed(tmp_path / "late.py", tiny_recipe, ("ema=", "ema_from=lambda params: 2, ema="))
    run = make_run(tmp_path / "run", recipe, TOGETHER)
    spec = recipe_of(run)
    learner = Learner(run, spec, params_of(run.spec, spec), "generator", device="cpu", writer="w")
    assert learner.average is not None
    own, averaged = (next(net.parameters()) for net in (learner.net, learner.average))
    before = []
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(own, value)
        before.append(float(averaged.flatten()[0]))
        learner.update_average()
    assert before[1:] == [1.0, 2.0]
    assert float(averaged.flatten()[0]) == pytest.approx(2 * learner.decay + 3 * (1 - learner.decay))


def test_generators_are_left_as_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), float(np.random.rand()), random.random()

    seed_all(2**55 + 3)
    first = draw()
    seed_all(2**55 + 3)
    with kept_random_state():
        seed_all(5)
        assert draw() != first
    assert draw() == first
