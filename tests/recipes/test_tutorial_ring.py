"""The tutorial of the README, verbatim: copied to a file, launched with real workers, and it learns the ring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modtrain.storage.run import Run
from tests.support.command import typed
from tests.support.markdown import ROOT, blocks, commands

PAGE = ROOT / "modtrain" / "recipes" / "README.md"


def launch(folder: Path, *more: str) -> Run:
    """Run the tutorial's `modtrain launch` in `folder`, on the local backend."""
    (folder / "my_gan.py").write_text(blocks(PAGE, "python")[0])
    command = next(words for words in commands(PAGE) if words[:3] == ["launch", "--recipe", "./my_gan.py"])
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    started = [sys.executable, "-m", "modtrain", *command, "--backend", "local", *more]
    done = subprocess.run(started, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "modes_covered" in done.stdout
    return Run.open(folder / "runs" / command[command.index("--name") + 1])


def evaluation(run: Run) -> dict[str, Any]:
    """The metrics of the evaluation at the end of the launch."""
    line = json.loads((run.path / "evaluation" / "metrics.jsonl").read_text().splitlines()[-1])
    assert Path(line["grid"]).stat().st_size > 1000
    return dict(line["metrics"])


def alarms_of(run: Run) -> list[dict[str, Any]]:
    """The alarms of `modtrain status`."""
    alarms: list[dict[str, Any]] = json.loads(typed("status", run.path, "--json").out)["alarms"]
    return alarms


def test_the_ring_is_learned_by_two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = launch(tmp_path)
    assert run.spec.placement == [["generator"], ["discriminator"]]
    metrics = evaluation(run)
    assert metrics["modes_covered"] == 8
    assert metrics["on_ring"] > 0.5
    newest = run.store("generator").latest()
    assert newest is not None
    assert newest.final
    assert len(newest.peers["discriminator"]["versions"]) == 3
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(PAGE, "python")[1], str(PAGE), "exec"), {})


@pytest.mark.slow
def test_the_ring_is_learned_jointly(tmp_path: Path) -> None:
    run = launch(tmp_path, "--nodes", "1")
    assert run.spec.placement == [["generator", "discriminator"]]
    metrics = evaluation(run)
    assert metrics["modes_covered"] == 8
    assert metrics["on_ring"] > 0.5
    assert alarms_of(run) == []


@pytest.mark.slow
def test_a_discriminator_that_wins_is_an_alarm(tmp_path: Path) -> None:
    spoilt = ("--set", "penalty=0", "--set", "generator_lr=1e-6", "--set", "discriminator_lr=2e-4", "--epochs", "40")
    run = launch(tmp_path, "--nodes", "1", *spoilt)
    (alarm,) = alarms_of(run)
    assert alarm["module"] == "discriminator"
    assert alarm["says"].startswith("discriminator has won: ")
