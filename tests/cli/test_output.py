"""What reaches a terminal: no control character of a file, and no text that is taken for markup or a formula."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modtrain.cli import terminal
from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.storage.stop_request import StopRequest, write_stop_request
from modtrain.sweeps.sweep import Sweep, new_sweep
from tests.support.command import Terminal
from tests.support.serving import trained

EVIL = "e\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e[green]"
"""Sets the title, clears the screen, returns to the start of the line, turns the text; and looks like markup."""
FORBIDDEN = "\x1b\x07\x9b\r\u202e"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    return trained(tmp_path_factory.mktemp("output"), "sound", tiny_recipe, epochs=1)


@pytest.fixture
def hostile(sound: Run, tmp_path: Path) -> Path:
    """A run whose name, modules, peers, scalars, metrics, heartbeat, stop request and logs hold escape sequences."""
    path = tmp_path / "runs" / f"run {EVIL}"
    shutil.copytree(sound.path, path)
    (path / "modules" / "discriminator").rename(path / "modules" / EVIL)
    replace(path, "discriminator", EVIL)
    replace(path, "on_real", f"scalar {EVIL}")
    replace(path, "mean", f"metric {EVIL}")
    for heartbeat in path.glob("modules/*/heartbeat.json"):
        values = json.loads(heartbeat.read_text()) | {"state": "failed", "trouble": EVIL, "waiting_for": EVIL}
        heartbeat.write_text(json.dumps(values))
    for log in path.glob("modules/*/worker.log"):
        log.write_text(log.read_text() + f"{EVIL}\n")
    for meta in path.glob("modules/*/checkpoints/*/meta.json"):
        meta.write_text(
            meta.read_text().replace('"final":true', '"final":false').replace('"final": true', '"final": false')
        )
    write_stop_request(path, StopRequest(reason=EVIL, sender=EVIL))
    return path


def replace(folder: Path, before: str, after: str) -> None:
    """A text in every JSON file of a run."""
    for path in folder.rglob("*.json*"):
        path.write_text(path.read_text().replace(json.dumps(before), json.dumps(after)))


COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "status": lambda run: [run],
    "status --json": lambda run: ["status", run, "--json"],
    "watch": lambda run: [run.parent, "--json"],
    "history": lambda run: [run],
    "history --csv": lambda run: ["history", run, "--csv"],
    "log": lambda run: [run],
    "stop": lambda run: [run],
    "cancel": lambda run: [run],
    "evaluate": lambda run: [run],
    "launch": lambda run: [run, "--backend", "local", "--dry-run"],
    "worker": lambda run: [run, "--modules", EVIL],
    "doctor": lambda run: [run, "--size-mb", 0.01],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_escape_sequence_of_a_run_reaches_the_terminal(command: str, hostile: Path, type_: Terminal) -> None:
    words = COMMANDS[command](hostile)
    result = type_(*words) if words[0] == command.split()[0] else type_(command, *words)
    assert "owned" in result.out + result.err, result
    assert "Traceback" not in result.err
    assert not set(FORBIDDEN) & set(result.out + result.err)


def test_no_escape_sequence_of_a_missing_folder_or_an_option_reaches_the_terminal(type_: Terminal) -> None:
    for words in (["status", f"runs/{EVIL}"], ["launch", f"--{EVIL}", "1"], ["recipes", EVIL], ["watch", EVIL]):
        result = type_(*words)
        assert "owned" in result.err
        assert not set(FORBIDDEN) & set(result.err)


def test_a_table_of_a_console_has_no_control_characters_and_its_text_is_no_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.console().print(terminal.facts({EVIL: "[red]value[/] :smile:"}), f"[bold]{EVIL}[/]")
    out = capsys.readouterr().out
    assert "[red]value[/] :smile:" in out
    assert "[bold]e\\x1b]0;owned" in out
    assert not set(FORBIDDEN) & set(out)


def test_a_csv_file_holds_no_formula_and_every_number(tmp_path: Path, sound: Run, type_: Terminal) -> None:
    path = tmp_path / "run"
    shutil.copytree(sound.path, path)
    replace(path, "on_real", "=1+1")
    replace(path, "loss", "-loss")
    replace(path, "discriminator", "@SUM(A1)")
    (path / "modules" / "discriminator").rename(path / "modules" / "@SUM(A1)")
    rows = list(csv.DictReader(io.StringIO(type_("history", path, "--csv").out)))
    assert {"'=1+1", "'-loss"} <= rows[0].keys()
    assert {row["module"] for row in rows} == {"generator", "'@SUM(A1)", "evaluation"}
    assert any(float(row["'=1+1"]) for row in rows if row["'=1+1"])


def test_negative_values_of_a_sweep_stay_numbers_in_csv(tmp_path: Path, tiny_recipe: Path, type_: Terminal) -> None:
    config = Config(recipe=str(tiny_recipe))
    Sweep.create(tmp_path / "sweep", new_sweep(config, {"nan_at": [-2, -1]}))
    rows = list(csv.DictReader(io.StringIO(type_("sweep-status", tmp_path / "sweep", "--csv").out)))
    assert [row["nan_at"] for row in rows] == ["-2", "-1"]
