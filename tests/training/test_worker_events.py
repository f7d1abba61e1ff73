"""The events of a worker (start, waits for peers, exit) and its seconds by phase."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path

import pytest

from modtrain.errors import Diverged, InputError, ModtrainError
from modtrain.storage import filesystem
from modtrain.storage.history import History
from modtrain.storage.run import Run
from tests.support import runs

APART = [["generator"], ["discriminator"]]
TOGETHER = [["generator", "discriminator"]]


def history_of(run: Run) -> History:
    history = History(run)
    history.refresh()
    return history


def test_a_wait_for_a_peer_is_written_with_its_peer_and_seconds_and_counts_as_waiting(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, APART, max_staleness=0, params={"batches": 3})
    waiting = runs.start_worker(run, "generator")
    assert filesystem.wait_until(lambda: run.read_report("generator").state == "waiting" or None, timeout_s=120)
    awaited = runs.start_worker(run, "discriminator")
    for process in (waiting, awaited):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    history = history_of(run)
    began, *waits, left = history.events("generator")
    assert (began["what"], began["host"], began["pid"], began["step"]) == (
        "began",
        socket.gethostname(),
        run.read_report("generator").process.pid,
        0,
    )
    assert began["writer"] == history.versions("generator")[0].writer
    assert (left["what"], left["state"], left["exit_code"], left["step"]) == ("left", "finished", 0, 9)
    first = waits[0]
    assert (first["what"], first["for"], first["epoch"], first["step"]) == ("waited", "discriminator", 0, 0)
    assert first["seconds"] >= 0.5
    spent = history.curve("generator").seconds
    assert spent["waiting"][0] >= 0.9 * first["seconds"]
    assert sum(spent["exchange"]) > 0


def test_every_start_of_a_worker_has_its_lines_in_each_of_its_modules(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"nan_at": 15})
    for _ in range(2):
        with pytest.raises(Diverged):
            runs.finish(run)
    history = history_of(run)
    for module in run.modules:
        doings = history.events(module)
        assert [(line["what"], line["step"]) for line in doings[:2]] == [("began", 0), ("left", 20)]
        assert [line["what"] for line in doings] == ["began", "left", "began", "left"]
        assert doings[2]["step"] == 10, "it resumed from the newest sound checkpoint"
        assert (doings[1]["state"], doings[1]["exit_code"]) == ("failed", 5)
        assert "became nan at step 15" in doings[1]["trouble"]
        assert len({line["writer"] for line in doings}) == 2


def test_a_worker_that_cannot_start_records_its_exit(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 0})
    with pytest.raises(InputError):
        runs.finish(run)
    [left] = history_of(run).events("generator")
    assert (left["what"], left["state"], left["exit_code"], left["step"]) == ("left", "failed", 2, None)


def test_storage_that_refuses_the_lines_does_not_stop_training(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    for module in run.modules:
        (run.module_path(module) / "workers.jsonl").mkdir(parents=True)
    runs.finish(run)
    assert run.is_finished(run.modules)
    assert history_of(run).events("generator") == []


def test_every_line_of_the_curve_has_the_seconds_since_the_line_before(tmp_path: Path, tiny_recipe: Path) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER, params={"batches": 30, "pause_s": 0.01})
    runs.finish(run)
    paths = [run.module_path(module) / "metrics.jsonl" for module in run.modules]
    ours, others = ([json.loads(line) for line in path.read_text().splitlines()] for path in paths)
    assert [line["seconds"] for line in ours] == [line["seconds"] for line in others]
    for before, line in itertools.pairwise(ours):
        steps = line["step"] - before["step"]
        assert list(line["seconds"]) == ["compute", "data", "waiting", "exchange", "evaluation"]
        assert line["seconds"]["data"] >= 0.01 * (steps - 1)
        assert sum(line["seconds"].values()) == pytest.approx(line["at"] - before["at"], rel=0.3, abs=0.1)
    assert paths[0].stat().st_size < 400 * len(ours)


def test_wrong_input_that_a_recipe_meets_after_training_has_begun_has_not_the_exit_code_of_a_wrong_command(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    late = tmp_path / "late.py"
    uses = "on_real, on_fake = nets.discriminator"
    late.write_text(tiny_recipe.read_text().replace(uses, f'int(batch["number"]) == 12 and nets.judge\n    {uses}'))
    run = runs.make_run(tmp_path / "run", late, TOGETHER)
    with pytest.raises(ModtrainError, match="'judge'") as raised:
        runs.finish(run)
    assert raised.value.exit_code == 1
    left = history_of(run).events("generator")[-1]
    assert (left["state"], left["exit_code"]) == ("failed", 1)
