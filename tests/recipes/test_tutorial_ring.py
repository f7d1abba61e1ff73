"""The tutorial of the README, verbatim: copied to a file, launched with real workers, and it learns the ring."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modtrain.cli import app
from modtrain.storage.run import Run
from tests.support.command import typed

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of a language in the README."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in fenced if name == language]


def commands() -> list[list[str]]:
    """The words of every `modtrain ...` line of the README, without the program's name."""
    lines = [line for block in blocks("") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("modtrain ")]


def launch(folder: Path, *more: str) -> Run:
    """The README's `modtrain launch` for the ring, in `folder`; only the backend is chosen for the test."""
    (recipe,) = [block for block in blocks("python") if "recipe = Recipe(" in block]
    (folder / "my_gan.py").write_text(recipe)
    command = next(words for words in commands() if words[:3] == ["launch", "--recipe", "./my_gan.py"])
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    started = [sys.executable, "-m", "modtrain", *command, "--backend", "local", *more]
    # Beside other tests a thread that waits must not spin: a joint worker has a thread for each core.
    environment = os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(started, cwd=folder, capture_output=True, text=True, env=environment)
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
    (script,) = [block for block in blocks("python") if "Run.open" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "README.md", "exec"), {})


def test_the_ring_is_learned_jointly(tmp_path: Path) -> None:
    run = launch(tmp_path, "--nodes", "1")
    assert run.spec.placement == [["generator", "discriminator"]]
    metrics = evaluation(run)
    assert metrics["modes_covered"] == 8
    assert metrics["on_ring"] > 0.5
    assert alarms_of(run) == []


def test_a_discriminator_that_wins_is_an_alarm(tmp_path: Path) -> None:
    spoilt = ("--set", "penalty=0", "--set", "generator_lr=1e-6", "--epochs", "70")
    run = launch(tmp_path, "--nodes", "1", *spoilt)
    (alarm,) = alarms_of(run)
    assert alarm["module"] == "discriminator"
    assert alarm["says"].startswith("discriminator has won: ")


def test_the_readme_shows_only_commands_and_options_that_exist() -> None:
    shown = commands()
    assert {words[0] for words in shown} >= {"launch", "status", "evaluate", "apply", "recipes"}
    of_recipes = {"--load-size", "--crop-size"}
    for command, *words in shown:
        help = CliRunner().invoke(app, [command, "--help"])
        assert help.exit_code == 0, help.output
        options = {word.partition("=")[0] for word in words if word.startswith("--")} - of_recipes
        for option in options:
            assert f"{option} " in help.output, f"`modtrain {command}` has no {option}"


def test_the_readme_lists_every_command_that_there_is() -> None:
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        assert f"`modtrain {name} " in README
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
