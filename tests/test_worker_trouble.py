"""NaN, a full disk, and a damaged peer: nothing bad is published, and the user is told."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modtrain import fs
from modtrain.errors import Diverged, StorageError
from modtrain.status import status
from tests import runs

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
    """Take all the space that is left."""
    with path.open("wb", buffering=0) as file:
        block = bytes(4096)
        with pytest.raises(OSError, match="No space left"):
            file.writelines(iter(lambda: block, b""))


def test_nan_in_a_loss_stops_the_module_with_loss_and_step_named(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"nan_at": 13}, exchange_every=5)
    with pytest.raises(Diverged, match=r"'loss' of generator became nan at step 13"):
        runs.finish(run)
    assert run.store("generator").history()[-1].step == 10, "nothing was published after the last sound exchange"
    found = status(run)
    assert found["state"] == "failed"
    assert "step 13" in found["workers"][0]["trouble"]


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
    assert fs.wait_until(lambda: run.store("generator").latest(), timeout_s=30)
    fill(filler)
    assert fs.wait_until(lambda: "Publishing failed" in caplog.text or None, timeout_s=30)
    filler.unlink()
    thread.join(timeout=60)
    newest = run.store("generator").latest()
    assert newest is not None
    assert newest.final
    for version in run.store("generator").versions():
        run.store("generator").verify(version)


def test_a_disk_that_stays_full_stops_the_worker_with_its_own_error(
    small_disk: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.worker.RETRY_S", 0.01)
    run = runs.make_run(small_disk / "run", tiny_recipe, TOGETHER, epochs=50)
    fill(small_disk / "filler")
    with pytest.raises(StorageError, match=r"No space left on device.*modtrain doctor"):
        runs.finish(run)


def test_the_training_curve_is_one_line_an_interval_with_losses_and_rate(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 50}, epochs=2)
    runs.finish(run)
    lines = [json.loads(line) for line in (run.module_path("discriminator") / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 50, 60, 80, 100]
    assert {"loss", "on_real", "lr", "epoch"} <= set(lines[0])
    assert lines[0]["lr"] > lines[-1]["lr"], "the schedule is seen"
