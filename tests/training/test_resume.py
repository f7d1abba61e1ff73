"""A run that is killed, stopped or preempted and started again ends bit-identical to an uninterrupted one."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
from pathlib import Path

import pytest
import safetensors.torch

from modtrain.errors import InputError, Preempted
from modtrain.storage import filesystem
from modtrain.storage.run import Run
from modtrain.training import serialization
from modtrain.training.worker_process import work
from tests.support.runs import finish, make_run, start_worker, weights_of

TOGETHER = [["generator", "discriminator"]]
BOTH = "generator,discriminator"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> dict[str, str]:
    run = make_run(tmp_path_factory.mktemp("whole") / "run", tiny_recipe, TOGETHER, params={"batches": 5}, epochs=6)
    finish(run)
    return weights_of(run)


def slow_run(path: Path, recipe: Path) -> Run:
    return make_run(path, recipe, TOGETHER, params={"batches": 5, "pause_s": 0.1}, epochs=6)


def wait_for_step(run: Run, step: int) -> None:
    def reached() -> bool | None:
        published = run.store("discriminator").latest()
        return True if published and published.step >= step else None

    assert filesystem.wait_until(reached, timeout_s=60), f"no version of step {step} appeared"


def in_the_middle(run: Run, step: int, number: signal.Signals) -> subprocess.Popen[str]:
    """A worker that is sent a signal once it has published this step; returned after its exit."""
    process = start_worker(run, BOTH)
    wait_for_step(run, step)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process


def test_a_joint_run_killed_in_the_middle_ends_bit_identical(
    tmp_path: Path, tiny_recipe: Path, uninterrupted: dict[str, str]
) -> None:
    run = slow_run(tmp_path / "killed", tiny_recipe)
    assert in_the_middle(run, 15, signal.SIGKILL).returncode == -signal.SIGKILL
    before = run.store("generator").versions()[-1]
    resumed = run.store("generator").meta(before).step
    finish(run)
    assert weights_of(run) == uninterrupted
    assert run.store("generator").versions()[-1] > before, "version numbers go on from the newest"
    lines = [json.loads(line) for line in (run.module_path("generator") / "metrics.jsonl").read_text().splitlines()]
    assert [line["goes_on_from"] for line in lines if "goes_on_from" in line] == [resumed]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)])
def test_a_signal_publishes_in_mid_epoch_and_the_run_continues_from_there(
    tmp_path: Path, tiny_recipe: Path, uninterrupted: dict[str, str], number: signal.Signals, code: int
) -> None:
    run = slow_run(tmp_path / "signalled", tiny_recipe)
    assert in_the_middle(run, 5, number).returncode == code
    left = run.store("generator").latest()
    assert left is not None
    assert left.full
    assert 5 <= left.step < 30
    finish(run)
    assert weights_of(run) == uninterrupted


def test_a_stop_request_is_obeyed_with_its_own_exit_code(
    tmp_path: Path, tiny_recipe: Path, uninterrupted: dict[str, str]
) -> None:
    run = slow_run(tmp_path / "stopped", tiny_recipe)
    process = start_worker(run, BOTH)
    wait_for_step(run, 5)
    run.request_stop("the test wants it")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the test wants it" in output
    run.clear_stop()
    finish(run)
    assert weights_of(run) == uninterrupted


@pytest.fixture
def pool_recipe(tmp_path: Path, tiny_recipe: Path) -> Path:
    """The tiny recipe with a discriminator that also sees earlier fakes."""
    text = tiny_recipe.read_text().replace(
        "from torch import Tensor, nn\n",
        "from torch import Tensor, nn\nfrom modtrain.nets.image_pool import ImagePool\n",
    )
    text = text.replace("nets.discriminator(fakes(nets))", "nets.discriminator(nets.memory.query(fakes(nets)))")
    path = tmp_path / "pool.py"
    path.write_text(text.replace('reads=("generator",),', 'reads=("generator",), memory=lambda params: ImagePool(40),'))
    return path


def test_a_joint_run_whose_loss_has_a_memory_ends_bit_identical_after_a_kill_and_after_each_batch(
    tmp_path: Path, pool_recipe: Path
) -> None:
    values = {"batches": 5, "pause_s": 0.02}
    whole, killed, left = (
        make_run(tmp_path / name, pool_recipe, TOGETHER, params=values, epochs=2)
        for name in ("whole", "killed", "left")
    )
    finish(whole)
    assert in_the_middle(killed, 5, signal.SIGKILL).returncode == -signal.SIGKILL
    while not left.is_finished(left.modules):
        with contextlib.suppress(Preempted):
            work(left, left.modules, threads=1, leave_after_s=0.001)
    finish(killed)
    assert weights_of(killed) == weights_of(left) == weights_of(whole)
    newest = whole.store("discriminator").latest()
    assert newest is not None
    published = safetensors.torch.load(whole.store("discriminator").read(newest, "weights.safetensors"))
    assert set(published) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    state = serialization.unpack_state(whole.store("discriminator").read(newest, "state.pt"))
    assert [tuple(image.shape) for image in state["memory"]["images"]] == [(4,)] * 40


def test_a_finished_run_launched_again_trains_nothing(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    finish(run)
    versions = run.store("generator").versions()
    events = (run.module_path("generator") / "workers.jsonl").read_text()
    finish(run)
    assert run.store("generator").versions() == versions
    assert (run.module_path("generator") / "workers.jsonl").read_text() == events
    assert "Finished already" in (run.module_path("generator") / "worker.log").read_text()


def test_modules_of_one_worker_resume_from_the_newest_step_that_all_of_them_have(
    tmp_path: Path, tiny_recipe: Path, uninterrupted: dict[str, str]
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 5}, epochs=6)
    finish(run)
    last = run.store("discriminator").latest()
    assert last is not None
    filesystem.retire_folder(run.store("discriminator").folder(last.version))  # as if killed between the two publishes
    finish(run)
    assert weights_of(run) == uninterrupted
    assert "Resumed at step 25" in (run.module_path("generator") / "worker.log").read_text()


def test_a_damaged_newest_checkpoint_costs_one_epoch_and_is_logged(
    tmp_path: Path, tiny_recipe: Path, uninterrupted: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 5}, epochs=6)
    finish(run)
    newest = run.store("generator").latest()
    assert newest is not None
    state = run.store("generator").folder(newest.version) / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        finish(run)
    assert "state.pt is damaged" in caplog.text
    assert weights_of(run) == uninterrupted


def test_of_two_workers_of_one_module_one_exits(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"pause_s": 0.2, "batches": 1}, epochs=1000)
    both = [start_worker(run, BOTH), start_worker(run, BOTH)]

    def one_left() -> list[int] | None:
        return [process.returncode for process in both if process.poll() is not None] or None

    assert filesystem.wait_until(one_left, timeout_s=60) == [4]
    run.request_stop("seen enough")
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(process.returncode for process in both) == [3, 4], outputs
    history = [checkpoint.version for checkpoint in run.store("generator").history()]
    assert history == list(range(len(history))), "no version is lost or doubled"


def test_a_worker_that_starts_too_late_for_its_time_limit_trains_one_batch_and_the_run_ends_bit_identical(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    """This process is older than the limit, like a worker whose imports took too long."""
    for name in ("whole", "late"):
        make_run(tmp_path / name, tiny_recipe, TOGETHER, params={"batches": 3}, epochs=2)
    finish(Run.open(tmp_path / "whole"))
    late = Run.open(tmp_path / "late")
    steps = []
    while not late.is_finished(late.modules):
        with contextlib.suppress(Preempted):
            work(late, late.modules, threads=1, leave_after_s=0.01)
        steps.append(late.read_report("generator").step)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert weights_of(late) == weights_of(Run.open(tmp_path / "whole"))


def test_a_time_limit_that_leaves_nothing_is_an_error_instead_of_a_job_for_every_batch(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    with pytest.raises(InputError, match="leaves no time to train: raise walltime, or lower publish_before_s"):
        work(run, run.modules, threads=1, leave_after_s=-60)
