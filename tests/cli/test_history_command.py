"""`modtrain history`: curves and evaluations as one table that any tool reads."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from modtrain.scheduling.config import Config
from modtrain.storage.run import Run
from modtrain.sweeps.space import parse_vary
from modtrain.sweeps.sweep import Sweep, new_sweep
from modtrain.training.evaluation import evaluate
from tests.support import runs
from tests.support.command import Terminal

TOGETHER = [["generator", "discriminator"]]
FIRST = ["module", "step", "epoch", "at", "lr"]
LAST = ["seconds_compute", "seconds_data", "seconds_waiting", "seconds_exchange", "seconds_evaluation"]


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Run:
    path = tmp_path_factory.mktemp("measured") / "run"
    run = runs.make_run(path, tiny_recipe, TOGETHER, params={"batches": 50, "pause_s": 0.005}, epochs=4)
    runs.finish(run)
    evaluate(run)
    return run


def test_csv_is_one_wide_table_of_every_number(finished: Run, terminal: Terminal) -> None:
    result = terminal("history", finished.path, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert list(rows[0]) == [*FIRST, "loss", "on_real", "mean", *LAST]
    lines = [
        json.loads(line) for line in (finished.module_path("generator") / "metrics.jsonl").read_text().splitlines()
    ]
    ours = [row for row in rows if row["module"] == "generator"]
    assert [(int(row["step"]), float(row["loss"])) for row in ours] == [(line["step"], line["loss"]) for line in lines]
    assert {row["on_real"] for row in ours} == {""}
    assert (rows[-1]["module"], rows[-1]["step"], rows[-1]["epoch"]) == ("evaluation", "200", "4")
    judged = json.loads((finished.path / "evaluation" / "metrics.jsonl").read_text())
    assert float(rows[-1]["mean"]) == judged["metrics"]["mean"]


def test_the_seconds_of_a_worker_are_all_of_its_time(finished: Run, terminal: Terminal) -> None:
    rows = [row for row in json.loads(terminal("history", finished.path, "--json").out) if row["module"] == "generator"]
    spent = [sum(row[name] for name in LAST) for row in rows]
    assert sum(spent[1:]) == pytest.approx(rows[-1]["at"] - rows[0]["at"], rel=0.1)
    assert sum(row["seconds_data"] for row in rows) >= 200 * 0.005
    assert {row["seconds_waiting"] for row in rows} == {0.0}


def test_json_is_a_list_of_the_same_rows(finished: Run, terminal: Terminal) -> None:
    rows = json.loads(terminal("history", finished.path, "--json").out)
    table = list(csv.DictReader(io.StringIO(terminal("history", finished.path, "--csv").out)))
    as_text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert as_text == [{name: value for name, value in row.items() if name in rows[n]} for n, row in enumerate(table)]


def test_a_terminal_shows_some_rows_of_each_module_and_the_last(finished: Run, terminal: Terminal) -> None:
    out = terminal("history", finished.path).out
    assert "generator" in out
    assert "evaluation" in out
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) < 50
    assert [line.split()[0] for line in out.splitlines() if line.strip()].count("200") == 3


def test_a_run_that_has_measured_nothing_is_no_error(tmp_path: Path, tiny_recipe: Path, terminal: Terminal) -> None:
    run = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    assert terminal("history", run.path).out == "Nothing was measured yet.\n"
    assert terminal("history", run.path, "--json").out == "[]\n"
    assert terminal("history", run.path, "--csv").out == ",".join(FIRST) + "\n"
    assert terminal("history", run.path, "--csv", "--json").code == 2
    assert terminal("history", tmp_path).code == 2


def test_a_sweep_gives_the_rows_of_its_trials(tmp_path: Path, tiny_recipe: Path, terminal: Terminal) -> None:
    config = Config(recipe=str(tiny_recipe), epochs=1, place="generator,discriminator")
    spec = new_sweep(config, parse_vary(["lr=0.01,0.02"]), sampler="grid")
    sweep = Sweep.create(tmp_path / "sweep", spec)
    for number in (0, 1):
        runs.finish(sweep.begin(number))
    rows = list(csv.DictReader(io.StringIO(terminal("history", sweep.path, "--csv").out)))
    assert list(rows[0])[:3] == ["trial", "module", "step"]
    assert {(row["trial"], row["module"]) for row in rows} == {(t, m) for t in "01" for m in TOGETHER[0]}
    assert "discriminator" in terminal("history", sweep.path).out


@pytest.mark.parametrize("columns", ["30", "50", "80"])
def test_no_name_and_no_number_is_cut_in_a_narrow_terminal(
    finished: Run, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = terminal("history", finished.path)
    assert "…" not in result.out
    words = result.out.split()
    assert {"generator", "discriminator", "evaluation", "step", "epoch", "lr", "loss", "on_real", "mean"} <= set(words)
