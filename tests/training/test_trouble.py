"""NaN and storage that fails: nothing bad is published, and the error says what happened."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from modtrain.errors import Diverged, InputError, ModtrainError, StorageError
from modtrain.monitoring.status import build_status
from modtrain.recipes.loading import load_recipe
from modtrain.scheduling import standalone_worker
from modtrain.storage import filesystem
from modtrain.storage.heartbeat import Heartbeat, read_report
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.training.publishing import Publishing
from modtrain.training.stages import RunStages
from tests.support import runs

TOGETHER = [["generator", "discriminator"]]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one megabyte."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Use up all the space that is left."""
    with path.open("wb", buffering=0) as file:
        block = bytes(4096)
        with pytest.raises(OSError, match="No space left"):
            file.writelines(iter(lambda: block, b""))


def test_nan_in_a_loss_stops_the_module_with_loss_and_step_named(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"nan_at": 13}, exchange_every=5)
    with pytest.raises(Diverged, match=r"'loss' of generator became nan at step 13"):
        runs.finish(run)
    assert run.store("generator").history()[-1].step == 10, "nothing was published after the last sound exchange"
    state = build_status(read_snapshot(run))
    assert state["state"] == "failed"
    assert "step 13" in state["workers"][0]["trouble"]


def test_an_infinite_weight_is_never_published(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"lr": 1e30})
    with pytest.raises(Diverged):
        runs.finish(run)
    for checkpoint in run.store("generator").history():
        assert checkpoint.step == 0


def test_training_survives_a_full_disk_and_publishes_when_there_is_room_again(
    small_disk: Path, tiny_recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = runs.make_run(small_disk / "run", tiny_recipe, TOGETHER, params={"pause_s": 0.05}, epochs=12)
    filler = small_disk / "filler"
    thread = threading.Thread(target=runs.finish, args=(run,))
    thread.start()
    assert filesystem.wait_until(lambda: run.store("generator").latest(), timeout_s=30)
    fill(filler)
    assert filesystem.wait_until(lambda: "Publishing failed" in caplog.text or None, timeout_s=30)
    filler.unlink()
    thread.join(timeout=60)
    newest = run.store("generator").latest()
    assert newest is not None
    assert newest.final
    for version in run.store("generator").versions():
        run.store("generator").verify(version)


def test_a_worker_says_that_the_disk_is_full_although_its_heartbeat_needs_space_itself(small_disk: Path) -> None:
    path = small_disk / "heartbeat.json"
    with Heartbeat([path], device="cpu") as heartbeat:
        fill(small_disk / "filler")
        heartbeat.report(now=True, trouble="Publishing failed: No space left on device")
        assert read_report(path).trouble == "Publishing failed: No space left on device"
        heartbeat.report(state="failed", exit_code=6, trouble="full")
    report = read_report(path)
    assert (report.state, report.exit_code, report.trouble) == ("failed", 6, "full")
    assert sorted(other.name for other in small_disk.iterdir()) == ["filler", "heartbeat.json"]


def test_a_disk_that_stays_full_stops_the_worker_with_its_own_error(
    small_disk: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "RETRY_S", 0.01)
    # At the exchange points of a joint run nothing is to be published: they do not count as a success.
    run = runs.make_run(small_disk / "run", tiny_recipe, TOGETHER, exchange_every=1, epochs=50, storage_timeout_s=0.2)
    fill(small_disk / "filler")
    with pytest.raises(StorageError, match=r"has failed for \d+ s: .*No space left on device.*modtrain doctor"):
        runs.finish(run)


class Refused:
    """A learner whose publishes fail until `error` is None; `attempts` holds `full` of each."""

    name, published_step, trains = "generator", -1, True

    def __init__(self) -> None:
        self.error: OSError | None = OSError(errno.ENOSPC, "No space left on device")
        self.attempts: list[bool] = []
        self.publisher = SimpleNamespace(pin=lambda pins: None)

    def publish(self, *, epoch: int, step: int, full: bool, final: bool) -> None:
        self.attempts.append(full)
        if self.error is not None:
            raise self.error


def test_publishes_wait_for_the_retry_and_a_quarter_of_an_hour_of_failures_is_the_end(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("modtrain.storage.filesystem.time", SimpleNamespace(monotonic=lambda: now))
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    learner = Refused()
    stages = RunStages(run.spec, load_recipe(str(tiny_recipe)))
    publishing = Publishing(run, stages, [learner], Heartbeat(map(run.heartbeat_path, run.modules)), set())  # type: ignore[list-item]
    position = stages.timeline.at(10)
    publishing.publish(position, full=True)
    publishing.publish(position, full=True)
    assert learner.attempts == [True], "the second one waits for the retry"
    publishing.publish(position, full=True, last=True)
    assert len(learner.attempts) == 2, "a worker that exits does not wait"
    now += 5
    learner.error = None
    publishing.publish(position, full=False)
    assert learner.attempts[2:] == [True], "an exchange point makes up for the full checkpoint that failed"
    assert publishing.error is None
    learner.error = OSError(errno.EIO, "Input/output error")
    attempted_at = []
    for _ in range(900):
        attempts = len(learner.attempts)
        publishing.publish(position, full=True)
        attempted_at += [now] * (len(learner.attempts) - attempts)
        now += 1
    assert [b - a for a, b in itertools.pairwise(attempted_at)][:7] == [2, 4, 8, 16, 32, 60, 60]
    now += 60
    with pytest.raises(StorageError, match=r"has failed for 9\d\d s: .*Input/output error"):
        publishing.publish(position, full=True)


def test_the_training_curve_is_one_line_an_interval_with_losses_and_rate(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 50}, epochs=2)
    runs.finish(run)
    lines = [json.loads(line) for line in (run.module_path("discriminator") / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 50, 60, 80, 100]
    assert {"loss", "on_real", "lr", "epoch"} <= set(lines[0])
    assert lines[0]["lr"] > lines[-1]["lr"], "the schedule is seen"


ON_REAL = '"on_real": on_real.mean()}'


def changed(path: Path, recipe: Path, old: str, new: str) -> Path:
    """The recipe with one piece of it changed."""
    text = recipe.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def test_a_loss_that_only_some_steps_have_is_averaged_over_those(tmp_path: Path, tiny_recipe: Path) -> None:
    every_third = '**({"penalty": batch["number"] * 1.0} if batch["number"] % 3 == 2 else {})}'
    recipe = changed(tmp_path / "some.py", tiny_recipe, ON_REAL, every_third)
    run = runs.make_run(tmp_path / "run", recipe, TOGETHER, epochs=1)
    runs.finish(run)
    [line] = (run.module_path("discriminator") / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["penalty"] == (2 + 5 + 8) / 3


def test_nan_is_found_in_a_loss_that_only_some_steps_have(tmp_path: Path, tiny_recipe: Path) -> None:
    once = '**({"penalty": on_real.mean() * torch.nan} if batch["number"] == 5 else {})}'
    run = runs.make_run(tmp_path / "run", changed(tmp_path / "some.py", tiny_recipe, ON_REAL, once), TOGETHER)
    with pytest.raises(Diverged, match=r"'penalty' of discriminator became nan at step 5"):
        runs.finish(run)


@pytest.mark.parametrize("name", ["step", "lr", "at", "epoch", "seconds"])
def test_a_loss_may_not_have_the_name_of_another_field_of_the_curve(
    name: str, tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = changed(tmp_path / "named.py", tiny_recipe, ON_REAL, f'"{name}": on_real.mean()}}')
    run = runs.make_run(tmp_path / "run", recipe, TOGETHER)
    with pytest.raises(InputError, match=rf"loss of discriminator \(named.py, line \d+\) returned '{name}'; rename"):
        runs.finish(run)


def test_an_evaluation_during_training_that_storage_refuses_does_not_stop_training(
    tmp_path: Path, tiny_recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, epochs=3, evaluate_every=1)
    (run.path / "evaluation").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="evaluation"):  # of the one at the end
        standalone_worker.train(run, run.modules, threads=1)
    assert run.is_finished(run.modules)
    assert run.stop_request() is None
    assert caplog.text.count("The evaluation failed: ") == 2


def test_a_worker_that_exits_while_the_disk_is_full_says_what_is_lost(small_disk: Path, tiny_recipe: Path) -> None:
    values = {"params": {"batches": 40, "pause_s": 0.05}, "epochs": 50}
    run = runs.make_run(small_disk / "run", tiny_recipe, TOGETHER, **values)
    process = runs.start_worker(run, "generator,discriminator")
    assert process.stdout is not None
    assert filesystem.wait_until(lambda: run.store("discriminator").latest(), timeout_s=60)
    fill(small_disk / "filler")
    assert any("Publishing failed" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "SIGTERM: left, but publishing failed (" in output
    assert "No space left on device); the steps since the last checkpoint are lost; launch run again" in output
    assert "published and left" not in output


def test_the_heartbeat_of_a_worker_whose_storage_failed_has_the_exit_code_of_its_process(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = changed(
        tmp_path / "gone.py",
        tiny_recipe,
        "        for position in",
        """\
        if epoch == 1:
            raise OSError(5, "the disk is gone")
        for position in""",
    )
    run = runs.make_run(tmp_path / "run", recipe, TOGETHER)
    process = runs.start_worker(run, "generator,discriminator")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == run.read_report("generator").exit_code == StorageError.exit_code, output
    assert "the disk is gone" in run.read_report("generator").trouble


@pytest.mark.parametrize(("count", "which"), [("len(self) - 1", "fewer"), ("len(self) + 1", "more")])
def test_an_epoch_with_other_batches_than_its_length_ends_training_in_words(
    count: str, which: str, tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(tiny_recipe.read_text().replace("range(start, len(self))", f"range(start, {count})"))
    run = runs.make_run(tmp_path / "run", recipe, TOGETHER)
    said = rf"mine\.py, line \d+\) yielded {which} batches in epoch 0 than the 10 of its __len__"
    with pytest.raises(ModtrainError, match=said):
        runs.finish(run)
    assert not run.is_finished(run.modules)


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        (
            "    fake = fakes(nets)\n",
            '    fake = fakes(nets).reshape("x")\n',
            "The loss of generator failed in {mine}, line {line}, in generator_loss: TypeError: reshape(): argument ",
        ),
        (  # `backward` fails, outside of the recipe's file
            "def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:\n",
            "def generator_loss(nets: Nets, batch: Batch, params: Params) -> dict[str, Tensor]:\n"
            "    x = fakes(nets).exp(); y = x.sum(); x.mul_(2); return {'loss': y}\n",
            "The loss of generator failed in {mine}, line {line}: RuntimeError: one of the variables needed for ",
        ),
        (
            "    return torch.optim.Adam(parameters, lr=params.lr)",
            "    return torch.optim.Adam(parameters, lr=-params.lr)",
            "The optimizer of generator failed in {mine}, line {line}, in optimizer: ValueError: Invalid ",
        ),
        (
            "build=lambda params: nn.Sequential(nn.Linear(4, 8), nn.Dropout",
            "build=lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout",
            "The network of generator failed in {mine}, line {line}: TypeError: <lambda>() takes 0 positional ",
        ),
    ],
)
def test_a_part_of_the_recipe_that_fails_is_named_with_its_line(
    right: str, wrong: str, says: str, tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe, text = tmp_path / "mine.py", tiny_recipe.read_text()
    recipe.write_text(text.replace(right, wrong, 1))
    run = runs.make_run(tmp_path / "run", recipe, TOGETHER)
    with pytest.raises((TypeError, RuntimeError, ValueError)):
        runs.finish(run)
    (worker,) = build_status(read_snapshot(run))["workers"]
    line = text[: text.index(right)].count("\n") + 1
    assert worker["trouble"].startswith(says.format(mine=recipe, line=line)), worker["trouble"]
