"""What each command says about a run whose files hold something else than modtrain wrote: one sentence, soon."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.sweep import Sweep, SweepSpec, new_sweep
from tests.support.command import Terminal
from tests.support.runs import finish, make_run

COMMANDS = ("status", "worker", "stop", "history", "log", "cancel", "evaluate")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    run = make_run(tmp_path_factory.mktemp("finished") / "run", tiny_recipe, [["generator", "discriminator"]], epochs=1)
    finish(run)
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(finished.path, tmp_path / "run"))


def change(run: Run, **values: Any) -> None:
    path = run.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"placement": []}, "placement"),
        ({"placement": [["generator"], ["generator"]]}, "placement"),
        ({"placement": [["g" * 300]]}, "placement.0.0"),
        ({"seed": 10**400}, "seed"),
        ({"seed": -1}, "seed"),
        ({"device": "cuda:x"}, "device"),
        ({"device": "cuda:" + "9" * 400}, "device"),
        ({"epochs": 10**400}, "epochs"),
        ({"exchange_every": 10**30}, "exchange_every"),
        ({"peer_timeout_s": float("inf")}, "peer_timeout_s"),
        ({"created_at": 1e300}, "created_at"),
        ({"recipe": "/x\0y.py"}, "recipe"),
        ({"dataroot": "/x\0y"}, "dataroot"),
        ({"changes": [{"name": "epochs", "before": 1, "after": 2, "at": 1e300}]}, "changes.0.at"),
        ({"init": {"generator": {"reference": "x", "path": "\0", "sha256": "x"}}}, "init.generator.path"),
        ({"params": eval("[" * 60 + "]" * 60)}, "params"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence_of_every_command(
    type_: Terminal, run: Run, values: dict[str, Any], where: str
) -> None:
    change(run, **values)
    for command in COMMANDS:
        result = type_(command, str(run.path))
        assert result.code == 2, command
        assert result.err.startswith(f"modtrain: {run.path}/run.json is damaged or of another version: {where}: ")
        assert result.err.count("\n") == 1
        assert len(result.err) < 1000


@pytest.mark.parametrize(
    "values",
    [
        {"placement": [["nothing"]]},
        {"params": {"lr": "high"}},
        {"params": {"lr": [[[]]]}},
        {"trial": {"number": "x", "values": []}},
        {"usual": {"epochs": "many"}, "defaults": {"lr": {}}},
        {"track": ["nothing"]},
        {"metric": "nothing"},
        {"changes": [{"name": "epochs", "before": {}, "after": [], "at": 0}]},
    ],
)
def test_a_value_of_another_recipe_is_no_traceback(type_: Terminal, run: Run, values: dict[str, Any]) -> None:
    change(run, **values)
    for command in COMMANDS:
        result = type_(command, str(run.path))
        assert "Traceback" not in result.err, command
        assert result.code in (0, 2), (command, result.err)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"files":' * 50_000, b"\0" * 100, b"9" * 5000])
def test_a_foreign_meta_is_a_damaged_version(type_: Terminal, run: Run, content: bytes) -> None:
    version = run.store("generator").versions()[-1]
    (run.store("generator").folder(version) / "meta.json").write_bytes(content)
    assert json.loads(type_("status", str(run.path), "--json").out)["modules"]["generator"]["damaged"] == [version]
    for command in COMMANDS:
        result = type_(command, str(run.path))
        assert result.code == 0, (command, result.err)


def test_files_of_a_terabyte_of_nothing_delay_no_command(type_: Terminal, run: Run) -> None:
    for file in ("published.jsonl", "metrics.jsonl", "workers.jsonl", "worker.log", "heartbeat.json"):
        os.truncate(run.module_path("generator") / file, 1 << 40)
    began_at = time.monotonic()
    for command in ("status", "stop", "history", "log", "cancel"):
        assert type_(command, str(run.path)).code == 0, command
    finish(run)
    assert time.monotonic() - began_at < 60


@pytest.fixture(scope="module")
def spec(tiny_recipe: Path) -> SweepSpec:
    return new_sweep(Config(recipe=str(tiny_recipe), epochs=1, nodes=1), {"lr": [0.01, 0.02]}, metric="mean")


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"trials": 10**7}, "trials: Input should be less than or equal to 1000000"),
        ({"trials": 10**400}, "trials: "),
        ({"seed": 10**400}, "seed: "),
        ({"evaluate_every": 10**30}, "evaluate_every: "),
        ({"created_at": 1e300}, "created_at: "),
        ({"placement": []}, "placement: "),
        ({"config": {"recipe": 5}}, "config: its recipe is 5, which is not a name"),
        ({"config": []}, "config: "),
        ({"space": [5]}, "space.0: "),
        (b'{"space":' * 50_000, "damaged"),
        (b"", "damaged"),
        (1 << 40, "cannot be read: more than 4194304 bytes"),
    ],
)
def test_a_sweep_file_that_cannot_be_is_one_sentence_of_every_command(
    type_: Terminal, tmp_path: Path, spec: SweepSpec, values: dict[str, Any] | bytes | int, where: str
) -> None:
    path = Sweep.create(tmp_path / "rates", spec).path / "sweep.json"
    if isinstance(values, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    elif isinstance(values, bytes):
        path.write_bytes(values)
    else:
        os.truncate(path, values)
    for command in ("sweep-status", "status", "cancel", "sweep"):
        result = type_(command, path.parent)
        assert result.code == 2, command
        assert result.err.startswith(f"modtrain: {path} "), command
        assert where in result.err
        assert result.err.count("\n") == 1
        assert len(result.err) < 1000
    (row,) = json.loads(type_("watch", tmp_path, "--json").out)["runs"]
    assert row["problem"] in result.err
