"""Joint CycleGAN is the published algorithm: the calls and the weights of a plain loop, and the same after a kill."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from modtrain.bench.plain_cyclegan import PlainCycleGan
from modtrain.errors import Preempted
from modtrain.recipes.cyclegan import recipe
from modtrain.storage.heartbeat import Heartbeat
from modtrain.storage.run import Run
from modtrain.training.records import WorkerEvents
from modtrain.training.shutdown import Shutdown
from modtrain.training.worker import Worker
from modtrain.training.worker_process import work
from tests.support.losses import SMALL as SIZES
from tests.support.losses import TINY_IMAGES, merged
from tests.support.noise import numbered, save_noise
from tests.support.runs import finish, make_run, weights_of

SMALL = merged(
    SIZES["cyclegan"] | TINY_IMAGES, generator={"lambda_cycle_a": 7.0}, discriminator={"pool_size": 3}, load_size=28
)
JOINT = (tuple(recipe.modules),)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small images of each kind, as a user's folder has them."""
    return save_noise(tmp_path_factory.mktemp("photographs"), *numbered(6, "trainA", "trainB"), size=(28, 28))


@pytest.fixture
def joint(tmp_path: Path, photographs: Path) -> Worker:
    run = make_run(tmp_path / "run", "cyclegan", JOINT, params=SMALL, epochs=2, dataroot=photographs, device="cpu")
    heartbeat = Heartbeat(map(run.heartbeat_path, run.modules))
    return Worker(run, run.modules, heartbeat, Shutdown(run), WorkerEvents(run, run.modules), device="cpu")


def test_a_joint_step_calls_each_network_as_often_as_the_plain_loop_and_ends_with_the_same_weights(
    joint: Worker,
) -> None:
    nets = {learner.name: learner.net for learner in joint.learners}
    plain_nets = {name: copy.deepcopy(net).requires_grad_(True) for name, net in nets.items()}
    plain, drawn = PlainCycleGan(plain_nets, joint.learners[0].params), torch.get_rng_state()
    positions, batches = [], [batch for epoch in range(2) for batch in joint.stage.batches.epoch(epoch, seed=0)]
    calls = counted(nets)
    for batch in batches:
        positions.append(joint.position)
        joint.train_on(batch)
    torch.set_rng_state(drawn)
    plain_calls = counted(plain_nets)
    for batch, position in zip(batches, positions, strict=True):
        plain.step([batch], position.schedule_progress)
    steps = len(batches)
    assert steps == 6
    assert calls == plain_calls == dict.fromkeys(nets, 3 * steps)
    for name, net in nets.items():
        for own, other in zip(net.state_dict().values(), plain_nets[name].state_dict().values(), strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=0)


def counted(nets: dict[str, nn.Module]) -> Counter[str]:
    """Counts the calls of each network from now on."""
    calls = Counter[str]()
    for name, net in nets.items():
        net.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_joint_run_that_is_left_after_batches_ends_bit_identical(
    tmp_path: Path, photographs: Path, precision: str
) -> None:
    runs = [
        make_run(tmp_path / name, "cyclegan", JOINT, params=SMALL, epochs=2, dataroot=photographs, precision=precision)
        for name in ("whole", "left")
    ]
    whole, left = runs
    finish(whole)
    for _ in range(2):
        with contextlib.suppress(Preempted):
            work(left, left.modules, threads=1, leave_after_s=0.001)
    finish(left)
    assert weights_of(left) == weights_of(whole)


def curve(run: Run, module: str) -> dict[str, float]:
    newest = run.store(module).latest()
    assert newest is not None
    return newest.metrics


def test_the_loss_in_the_curve_of_a_generator_is_the_sum_of_its_own_terms(tmp_path: Path, photographs: Path) -> None:
    run = make_run(tmp_path / "run", "cyclegan", JOINT, params=SMALL, epochs=1, dataroot=photographs)
    finish(run)
    ab, ba = curve(run, "generator_ab"), curve(run, "generator_ba")
    assert ab["cycle_a"] == ba["cycle_a"]
    for losses, identity in ((ab, 5.0), (ba, 3.5)):
        total = losses["adversarial"] + 7 * losses["cycle_a"] + 10 * losses["cycle_b"] + identity * losses["identity"]
        assert losses["loss"] == pytest.approx(total, rel=1e-5)
