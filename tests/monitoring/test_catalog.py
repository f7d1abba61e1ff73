"""The catalog: every run and sweep below a folder has its row, whatever is beside it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from modtrain.bench.sample_runs import make, publish, version
from modtrain.errors import InputError
from modtrain.monitoring.catalog import Catalog
from modtrain.monitoring.status import build_status
from modtrain.monitoring.summary import RunSummary
from modtrain.scheduling.config import Config
from modtrain.scheduling.job_record import JobId, Record
from modtrain.scheduling.launcher_lock import claim
from modtrain.storage import filesystem, history
from modtrain.storage.checkpoint import WEIGHTS
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.liveness import launcher_path
from modtrain.storage.process_identity import process_started
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.sweeps.sweep import Sweep, new_sweep
from modtrain.sweeps.trials import rank, read_trials
from modtrain.training.evaluation import evaluate
from tests.support.runs import finish, make_run

HOSTILE = [
    "a\nb",
    '"><script>alert(1)<script>',
    'it\'s "quoted" & more',
    "a..b",
    "\x1b[2Jx",
    "na\u00efve \u6f22",
    os.fsdecode(b"bytes-\xff\xfe"),
]


def rows(catalog: Catalog) -> dict[str, dict[str, Any]]:
    catalog.refresh()
    return {row["path"]: row for row in catalog.rows()["runs"]}


def beat(run: Run, module: str, **fields: Any) -> None:
    """The heartbeat of a worker on another machine."""
    report = {"host": "elsewhere", "pid": 1, "started": 1, "state": "running", "counter": 1, "at": 1e9 + 200}
    run.heartbeat_path(module).write_text(json.dumps({**report, **fields}))


def test_a_run_has_a_row_from_its_creation_to_its_end(tmp_path: Path, tiny_recipe: Path) -> None:
    catalog = Catalog(tmp_path)
    assert rows(catalog) == {}
    run = make_run(tmp_path / "fruits" / "apples", tiny_recipe, [["generator", "discriminator"]], epochs=2)
    row = rows(catalog)["fruits/apples"]
    assert (row["state"], row["progress"], row["epoch"], row["epochs"], row["metric"]) == ("created", 0.0, 0, 2, None)
    assert [m["state"] for m in row["modules"]] == ["created"] * 2
    before = catalog.revision
    finish(run)
    row = rows(catalog)["fruits/apples"]
    assert catalog.revision > before
    assert (row["state"], row["progress"], row["epoch"]) == ("finished", 1.0, 2)
    assert [m["version"] for m in row["modules"]] == [2, 2]
    assert all(0 <= m["age_s"] < 600 for m in row["modules"])
    assert row["recipe"] == str(tiny_recipe)
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_refresh_reads_nothing_where_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [make(tmp_path / f"run-{number}", live=False) for number in range(3)]
    catalog = Catalog(tmp_path)
    catalog.refresh(thorough=True)
    first, revision = rows(catalog), catalog.revision
    opened: list[Any] = []
    monkeypatch.setattr(filesystem, "open_regular", lambda path, **_: opened.append(path))
    assert rows(catalog).keys() == first.keys()
    assert (opened, catalog.revision) == ([], revision)
    monkeypatch.undo()
    with (made[1].path / "evaluation" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"versions": {}, "epochs": {}, "metrics": {"ssim": 0.95}}) + "\n")
    assert rows(catalog)["run-1"]["metric"] == {"name": "ssim", "value": 0.95}
    assert catalog.revision > revision


def test_the_metric_of_a_run_is_the_best_value_of_its_own_or_of_the_first_one(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=False)
    lines = [{"versions": {}, "epochs": {}, "metrics": {"ssim": v, "psnr": 1.0}} for v in (0.2, 0.7, 0.5, None)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"metrics": {"ssim"'
    (run.path / "evaluation" / "metrics.jsonl").write_text("[]\nnot json\n" + text)
    assert rows(Catalog(tmp_path))["run"]["metric"] == {"name": "ssim", "value": 0.7}
    change_manifest(run, metric="psnr")
    assert rows(Catalog(tmp_path))["run"]["metric"] == {"name": "psnr", "value": 1.0}
    change_manifest(run, metric=None, primary_metric="psnr")
    assert rows(Catalog(tmp_path))["run"]["metric"] == {"name": "psnr", "value": 1.0}
    change_manifest(run, primary_metric="fid")
    assert rows(Catalog(tmp_path))["run"]["metric"] == {"name": "ssim", "value": 0.7}, "the recipe's was not measured"
    change_manifest(run, metric="fid")
    assert rows(Catalog(tmp_path))["run"]["metric"] is None, "it was not measured"


def test_where_lower_is_better_the_best_value_is_the_lowest(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=False)
    change_manifest(run, lower_is_better=["fid"])
    lines = [{"versions": {}, "epochs": {}, "metrics": {"fid": value}} for value in (310.0, 22.0, 80.0)]
    (run.path / "evaluation" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert rows(Catalog(tmp_path))["run"]["metric"] == {"name": "fid", "value": 22.0}


def test_the_age_of_a_live_worker_s_version_is_by_its_own_clock(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    catalog = Catalog(tmp_path)
    for module in run.modules:
        beat(run, module, at=1e9 + 99 + 42)  # its clock stands in 2001
    ages = [m["age_s"] for m in rows(catalog)["run"]["modules"]]
    assert all(42 <= age < 120 for age in ages)
    for module in run.modules:
        beat(run, module, at=1e9, counter=2)  # and may be put back
    assert all(0 <= m["age_s"] < 60 for m in rows(catalog)["run"]["modules"])
    for module in run.modules:
        beat(run, module, state="finished", counter=3)
    assert all(m["age_s"] > 1e8 for m in rows(catalog)["run"]["modules"])


def test_a_worker_elsewhere_that_falls_silent_is_lost_and_an_alarm(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    publish(run, 100)  # its newest version is not the last one
    for module in run.modules:
        beat(run, module)
    catalog = Catalog(tmp_path, patience_s=0.5)
    assert rows(catalog)["run"]["state"] == "running"
    catalog.settle()
    row = rows(catalog)["run"]
    assert row["state"] == "lost"
    assert {alarm["level"] for alarm in row["alarms"]} == {"bad"}
    assert "modtrain launch" in row["alarms"][0]["do"]


def test_the_curves_of_a_live_run_raise_alarms_too(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    lines = [{"step": s, "epoch": 0, "lr": 1e-3, "at": 1e9 + s, "loss": 0.5 if s < 100 else 0.0} for s in range(200)]
    (run.module_path("translator") / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    alarms = rows(Catalog(tmp_path))["run"]["alarms"]
    assert any("The loss of translator has not changed" in alarm["says"] for alarm in alarms)


def test_the_curves_of_a_live_run_are_read_at_intervals_however_often_it_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path / "run", live=True)
    read, began, passed_s = list[str](), time.monotonic(), list[float]()
    real = history.opened
    monkeypatch.setattr(history, "opened", lambda path: (read.append(path.parent.name), real(path))[1])
    monkeypatch.setattr(time, "monotonic", lambda: began + sum(passed_s))
    catalog = Catalog(tmp_path)
    for number in range(100, 112):
        publish(run, number)
        assert [module["version"] for module in rows(catalog)["run"]["modules"]] == [number] * 3
        passed_s.append(1.0)
    assert sorted(read) == sorted(2 * run.modules), "at once, and after 10 s"


def test_a_stop_request_is_an_alarm_until_it_is_withdrawn(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=True)
    catalog = Catalog(tmp_path)
    quiet = rows(catalog)["run"]["alarms"]
    run.request_stop("lunch")
    assert any("lunch" in alarm["says"] for alarm in rows(catalog)["run"]["alarms"])
    run.clear_stop()
    assert rows(catalog)["run"]["alarms"] == quiet


@pytest.mark.parametrize("name", HOSTILE)
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    good = make(tmp_path / "good", live=False)
    (folder / "run.json").write_bytes((good.path / "run.json").read_bytes())
    catalog = Catalog(tmp_path)
    assert set(rows(catalog)) == {"good", name}
    assert catalog.run(name).path == folder
    json.dumps(catalog.rows(), allow_nan=False).encode()


def change_manifest(run: Run, **values: Any) -> None:
    """Change fields of `run.json`."""
    spec = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**spec, **values}))


def broken_runs(root: Path) -> dict[str, Path]:
    """Folders of broken runs, by what is wrong with them."""
    made = {name: root / name for name in ("empty", "torn", "folder", "pipe", "huge", "link", "foreign", "deep")}
    for path in made.values():
        path.mkdir()
    (made["empty"] / "run.json").touch()
    (made["torn"] / "run.json").write_text('{"recipe": "x", "placem')
    (made["folder"] / "run.json").mkdir()
    os.mkfifo(made["pipe"] / "run.json")
    with (made["huge"] / "run.json").open("wb") as file:
        file.truncate(2 << 30)
    (made["link"] / "run.json").symlink_to(root / "good" / "run.json")
    (made["foreign"] / "run.json").write_bytes(b"\xff\xfe[1, 2]")
    (made["deep"] / "run.json").write_text("[" * 100_000)
    return made


def test_a_broken_run_has_a_row_with_its_problem_and_hides_no_other(tmp_path: Path) -> None:
    make(tmp_path / "good", live=False)
    made = broken_runs(tmp_path)
    catalog = Catalog(tmp_path)
    by_path = rows(catalog)
    assert by_path["good"]["problem"] is None
    assert by_path.keys() == {"good", *made}
    for name in made:
        assert by_path[name]["problem"]
        assert (by_path[name]["state"], by_path[name]["modules"]) == (None, [])
        with pytest.raises(InputError):
            catalog.run(name)
    revision = catalog.revision
    rows(catalog)
    assert catalog.revision == revision
    (made["torn"] / "run.json").write_bytes((tmp_path / "good" / "run.json").read_bytes())
    assert rows(catalog)["torn"]["problem"] is None


def test_a_row_that_cannot_be_built_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "good", live=False)
    odd = make(tmp_path / "odd", live=False)
    for module in odd.modules:
        undated = dataclasses.replace(version(odd, module, 100), published_at=None)  # type: ignore[arg-type]
        with (odd.module_path(module) / "published.jsonl").open("ab") as file:
            file.write(undated.seal() + b"\n")
        (odd.module_path(module) / "heartbeat.json").unlink()
    catalog = Catalog(tmp_path)
    assert rows(catalog).keys() == {"good", "odd"}
    with_ages = RunSummary.with_ages

    def foreign(summary: RunSummary) -> dict[str, Any]:
        return with_ages(summary) if summary.path == "good" else {}["?"]

    monkeypatch.setattr(RunSummary, "with_ages", foreign)
    by_path = rows(catalog)
    assert by_path["good"]["problem"] is None
    assert by_path["odd"]["problem"] == catalog.row("odd")["problem"] == "It cannot be read (KeyError: '?')."


def test_a_foreign_trial_or_sweep_costs_no_other_row(sweep: Sweep) -> None:
    root = sweep.path.parent
    good, odd = (sweep.begin(number) for number in (0, 1))
    make(root / "beside", live=False)
    for trial in ({"number": "x", "values": {}}, {"number": 1, "values": 5}, {"values": {}}):
        change_manifest(odd, trial=trial)
        row = rows(Catalog(root))["rates"]
        assert (row["problem"], row["counts"]) == (None, {"created": 2, "failed": 1})
        with pytest.raises(InputError, match="trial"):
            sweep.run(1)
    (good.path / "run.json").rename(good.path / "run.jsn")
    spec = json.loads((sweep.path / "sweep.json").read_text())
    for recipe in (5, None):
        spec["config"]["recipe"] = recipe
        (sweep.path / "sweep.json").write_text(json.dumps(spec))
        by_path = rows(Catalog(root))
        assert set(by_path) == {"beside", "rates", "rates/trial-0001"}
        assert f"its recipe is {recipe}" in by_path["rates"]["problem"]
        assert by_path["rates"]["recipe"] is None


def test_a_folder_in_a_sweep_that_is_not_one_of_its_trials_is_a_run_of_its_own(sweep: Sweep) -> None:
    trial = sweep.begin(0)
    for name in ("trial-0000-kept", "trial-0009", "trial-1", "old"):
        shutil.copytree(trial.path, sweep.path / name)
    by_path = rows(Catalog(sweep.path.parent))
    assert set(by_path) == {"rates", *(f"rates/{name}" for name in ("trial-0000-kept", "trial-0009", "trial-1", "old"))}
    assert by_path["rates"]["counts"] == {"created": 3}


def test_a_data_set_beside_the_runs_hides_none_and_unsearched_folders_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtrain.monitoring.catalog.MOST_FOLDERS", 30)
    make(tmp_path / "a-run", live=False)
    make(tmp_path / "group" / "run", live=False)
    catalog = Catalog(tmp_path)
    assert set(rows(catalog)) == {"a-run", "group/run"}
    assert catalog.rows()["unsearched"] is False
    revision = catalog.revision
    for number in range(50):
        (tmp_path / "z-data" / "train" / f"class-{number}").mkdir(parents=True)
    assert set(rows(catalog)) == {"a-run", "group/run"}
    assert (catalog.rows()["unsearched"], catalog.revision > revision) == (True, True)


def test_foreign_files_in_a_run_cost_only_their_own_facts(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"state": "secret", "metrics": {"secret": 1}}\n')
    root = tmp_path / "root"
    linked, piped, wrong = (make(root / name, live=False) for name in ("linked", "piped", "wrong"))
    for run, put in ((linked, lambda path: path.symlink_to(secret)), (piped, os.mkfifo)):
        for file in (
            "evaluation/metrics.jsonl",
            "modules/translator/heartbeat.json",
            "modules/translator/published.jsonl",
        ):
            (run.path / file).unlink()
            put(run.path / file)
        put(run.path / "stop")
    values: dict[str, Any] = {
        "state": ["?"],
        "step": "many",
        "steps": {},
        "epoch": None,
        "left_s": "soon",
        "at": "now",
        "pid": "x",
    }
    beat(wrong, "translator", **values)
    catalog = Catalog(root)
    by_path = rows(catalog)
    assert "secret" not in json.dumps(by_path)
    assert by_path.keys() == {"linked", "piped", "wrong"}
    assert by_path["linked"]["metric"] is None
    assert by_path["linked"]["modules"][1]["version"] == 99, "the newest intact one"
    assert by_path["piped"]["modules"][0]["version"] == 99


def test_links_and_loops_are_not_followed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside" / "run", live=False)
    root = tmp_path / "root"
    make(root / "good", live=False)
    (root / "away").symlink_to(outside.path)
    (root / "up").symlink_to(root)
    catalog = Catalog(root)
    assert set(rows(catalog)) == {"good"}
    for path in (
        "away",
        "up/good",
        "../outside/run",
        "good/../good",
        "./good",
        "good/",
        "/good",
        "",
        "a\0b",
        "good/modules",
    ):
        with pytest.raises(InputError):
            catalog.run(path)
    through = tmp_path / "through"
    through.symlink_to(root)
    assert set(rows(Catalog(through))) == {"good"}


def test_a_run_that_becomes_a_link_is_shown_no_more(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", make(tmp_path / "secret", live=False)
    run = make(root / "run", live=False)
    catalog = Catalog(root)
    catalog.refresh()
    assert catalog.run("run").path == run.path
    run.path.rename(tmp_path / "moved")
    run.path.symlink_to(secret.path)
    assert rows(catalog) == {}
    with pytest.raises(InputError):
        catalog.run("run")


def test_a_folder_that_cannot_be_listed_has_a_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "good", live=False)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refused(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    by_path = rows(Catalog(tmp_path))
    assert by_path["good"]["problem"] is None
    assert "Permission denied" in by_path["closed"]["problem"]


def test_the_root_may_be_a_run_itself(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=False)
    catalog = Catalog(run.path)
    assert [row["name"] for row in rows(catalog).values()] == ["run"]
    assert catalog.run("").path == run.path
    with pytest.raises(InputError, match="no folder"):
        Catalog(tmp_path / "missing")


@pytest.fixture
def sweep(tmp_path: Path, tiny_recipe: Path) -> Sweep:
    spec = new_sweep(Config(recipe=str(tiny_recipe), epochs=1, nodes=1), {"lr": [0.001, 0.01, 0.02]}, metric="mean")
    return Sweep.create(tmp_path / "root" / "rates", spec)


def test_a_sweep_is_one_row_with_its_best_trial(sweep: Sweep) -> None:
    catalog = Catalog(sweep.path.parent)
    assert rows(catalog)["rates"]["counts"] == {"created": 3}
    for number in (0, 1):
        run = sweep.begin(number)
        finish(run)
        evaluate(run)
    sweep.begin(2).request_stop("it was among the worst", kind="pruned")
    by_path = rows(catalog)
    assert set(by_path) == {"rates"}
    row = by_path["rates"]
    assert (row["trials"], row["counts"]) == (3, {"finished": 2, "pruned": 1})
    assert (row["state"], row["progress"]) == ("finished", 1.0)
    results = {number: sweep.trial(number).result or 0.0 for number in (0, 1)}
    best = max(results, key=lambda number: results[number])
    assert row["metric"] == {"name": "mean", "value": results[best], "trial": best}
    assert catalog.row("rates/trial-0001")["metric"] == {"name": "mean", "value": results[1]}
    assert catalog.sweep("rates").spec == sweep.spec
    assert catalog.run("rates/trial-0002").name == "trial-0002"
    assert set(rows(Catalog(sweep.path))) == {""}
    sweep.with_spec(sweep.spec.model_copy(update={"maximize": False}))
    worst = min(results, key=lambda number: results[number])
    assert rows(catalog)["rates"]["metric"]["trial"] == worst


def test_a_broken_sweep_has_a_row_with_its_problem_and_its_trials_have_their_own(sweep: Sweep) -> None:
    sweep.begin(0)
    (sweep.path / "sweep.json").write_text("{")
    by_path = rows(Catalog(sweep.path.parent))
    assert "damaged" in by_path["rates"]["problem"]
    assert by_path["rates/trial-0000"]["problem"] is None


def test_a_trial_that_was_not_evaluated_at_its_end_has_no_result_in_any_view(sweep: Sweep) -> None:
    run = make(sweep.path / "trial-0000", live=False)  # of 100 epochs
    evaluations = run.path / "evaluation" / "metrics.jsonl"
    for epoch, result in ((50, None), (100, 0.9)):
        line = {"versions": {}, "epochs": dict.fromkeys(run.modules, epoch), "metrics": {"mean": 0.9}, "at": 1.0}
        evaluations.write_text(json.dumps(line) + "\n")
        assert sweep.trial(0).result == result
        best = rows(Catalog(sweep.path.parent))["rates"]["metric"]
        assert (best["value"] if best else None) == result


def test_many_threads_may_refresh_at_once(tmp_path: Path) -> None:
    for number in range(5):
        make(tmp_path / f"run-{number}", live=number == 0)
    catalog, counts = Catalog(tmp_path), list[int]()

    def refresh() -> None:
        for _ in range(5):
            catalog.refresh()
            counts.append(len(catalog.rows()["runs"]))

    threads = [threading.Thread(target=refresh) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [5] * 40


def test_a_run_whose_modules_would_be_outside_of_its_folder_is_broken(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "at": 1, "loss": 42}')
    run = make(tmp_path / "runs" / "elsewhere", live=False).path
    spec = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**spec, "placement": [["../../../secret"]]}))
    catalog = Catalog(tmp_path / "runs")
    assert "placement" in rows(catalog)[run.name]["problem"]
    with pytest.raises(InputError, match="placement"):
        Run.open(run)


@pytest.mark.parametrize("line", ["5", '{"metrics": {"mean": "abc"}, "epochs": {}}', "[" * 5000])
def test_a_foreign_line_among_a_trial_s_evaluations_breaks_no_sweep(sweep: Sweep, line: str) -> None:
    judged = sweep.begin(0).path / "evaluation" / "metrics.jsonl"
    judged.parent.mkdir(exist_ok=True)
    judged.write_text(line + "\n")
    assert [trial.result for trial in rank(sweep, read_trials(sweep))] == [None] * sweep.spec.trials
    assert rows(Catalog(sweep.path.parent))[sweep.name]["metric"] is None


def test_a_number_that_fits_no_float_counts_as_missing(sweep: Sweep) -> None:
    huge = "9" * 400
    evaluations = sweep.begin(0).path / "evaluation" / "metrics.jsonl"
    evaluations.parent.mkdir(exist_ok=True)
    evaluations.write_text(f'{{"at": 1, "versions": {{}}, "epochs": {{}}, "metrics": {{"mean": {huge}}}}}\n')
    assert rows(Catalog(sweep.path.parent))[sweep.name]["metric"] is None
    spec = (sweep.path / "sweep.json").read_text()
    (sweep.path / "sweep.json").write_text(spec.replace(f'"trials": {sweep.spec.trials}', f'"trials": {huge}'))
    assert "trials" in rows(Catalog(sweep.path.parent))[sweep.name]["problem"]


def test_storage_that_answers_again_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "run", live=False)
    os.truncate(run.store("translator").folder(99) / "weights.safetensors", 0)
    fails = True
    real_file, real_check = filesystem.read_file, CheckpointStore.newest_intact

    def read(path: Path, **options: Any) -> bytes:
        if fails and path.name == "run.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real_file(path, **options)

    def check(store: CheckpointStore) -> Any:
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_check(store)

    monkeypatch.setattr(filesystem, "read_file", read)
    catalog = Catalog(tmp_path)
    assert "cannot be read: Input/output error" in rows(catalog)["run"]["problem"]
    monkeypatch.setattr(filesystem, "read_file", real_file)
    monkeypatch.setattr(CheckpointStore, "newest_intact", check)
    assert rows(catalog)["run"]["problem"] is None
    assert rows(catalog)["run"]["alarms"] == []
    fails = False
    assert "Version 99 of translator is damaged" in rows(catalog)["run"]["alarms"][0]["says"]


def test_every_run_has_its_turn_to_be_checked_closely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [make(tmp_path / f"run-{number:02d}", live=True) for number in range(12)]
    for run in made:
        os.truncate(run.store("translator").folder(99) / "weights.safetensors", 0)
    real, times = CheckpointStore.newest_intact, list[float]()

    def slow(store: CheckpointStore) -> Any:
        times.append(0.04)
        return real(store)

    monkeypatch.setattr(CheckpointStore, "newest_intact", slow)
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + sum(times))
    catalog = Catalog(tmp_path)
    for number in range(15):
        for run in made[:4]:
            publish(run, 100 + number)
        catalog.refresh()
    assert all(row["alarms"] for path, row in rows(catalog).items() if path >= "run-04")


AGREEING = ("state", "progress", "epoch", "epochs", "left_s", "recipe")


def assert_row_agrees_with_status(catalog: Catalog, run: Run, path: str) -> str:
    """The row of a run has the words and numbers of `modtrain status`; the state."""
    row, status = rows(catalog)[path], build_status(read_snapshot(run))
    assert {name: row[name] for name in AGREEING} == {name: status[name] for name in AGREEING}
    for module in row["modules"]:
        expected = status["modules"][module["name"]]
        assert {name: module[name] for name in ("state", "version", "epoch", "step")} == {
            name: expected[name] for name in ("state", "version", "epoch", "step")
        }
    return str(row["state"])


def test_the_row_of_a_run_agrees_with_its_status_in_every_state(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=False)
    for module in run.modules:
        shutil.rmtree(run.module_path(module))
        run.module_path(module).mkdir()
    catalog, seen = Catalog(tmp_path), list[str]()

    def check() -> None:
        seen.append(assert_row_agrees_with_status(catalog, run, "run"))

    def report(state: str, *, alive: bool = True, **fields: Any) -> None:
        process = {"host": socket.gethostname(), "pid": os.getpid()}
        started = process_started(os.getpid()) if alive else 1
        for module in run.modules:
            beat(run, module, **process, started=started, state=state, steps=10_000, **fields)

    check()
    run.jobs_path.mkdir()
    Record(backend="slurm").write(run)  # a dry run
    check()
    Record(backend="slurm", jobs={0: JobId("slurm", "7")}).write(run)
    check()
    report("starting")
    check()
    for module in run.modules:
        Publisher(run.store(module), "w").publish({WEIGHTS: b"w"}, epoch=3, step=300)
    report("running", step=350, epoch=3, left_s=60.0)
    check()
    report("running", alive=False, step=350, epoch=3)
    check()
    claim(run)
    check()
    launcher_path(run.path).unlink()
    report("preempted", alive=False, step=350, epoch=3)
    check()
    run.request_stop("lunch")
    report("stopped", alive=False, step=350, epoch=3)
    check()
    run.request_stop("cancelled", kind="cancelled")
    check()
    run.request_stop("no memory", kind="worker_failed", sender="translator")
    report("running", alive=False, step=350, epoch=3)
    check()
    run.request_stop("it was among the worst", kind="pruned")
    check()
    run.clear_stop()
    for module in run.modules:
        Publisher(run.store(module), "w").publish({WEIGHTS: b"w"}, epoch=100, step=10_000, final=True)
    report("finished", alive=False, step=10_000, epoch=100)
    check()
    assert seen == [
        *("created", "created", "queued", "starting", "running", "lost", "running", "preempted", "stopped"),
        *("cancelled", "failed", "pruned", "finished"),
    ]


def test_the_row_of_a_sweep_agrees_with_its_trials_at_every_moment(sweep: Sweep) -> None:
    catalog = Catalog(sweep.path.parent)

    def check(**counts: int) -> str:
        row, states = rows(catalog)["rates"], [trial.state for trial in read_trials(sweep)]
        assert row["counts"] == {state: states.count(state) for state in states} == counts
        results = [trial.result for trial in read_trials(sweep) if trial.result is not None]
        assert (row["metric"]["value"] if row["metric"] else None) == max(results, default=None)
        return str(row["state"])

    assert check(created=3) == "created"
    first, second, third = (sweep.begin(number) for number in range(3))
    assert check(created=3) == "created"
    process = {"host": socket.gethostname(), "pid": os.getpid(), "started": process_started(os.getpid())}
    for module in first.modules:
        first.module_path(module).mkdir(parents=True)
        beat(first, module, **process)
    assert check(running=1, created=2) == "running"
    finish(second)
    evaluate(second)
    assert check(running=1, finished=1, created=1) == "running"
    third.request_stop("it was among the worst", kind="pruned")
    for module in first.modules:
        beat(first, module, **{**process, "started": 1})
    assert check(lost=1, finished=1, pruned=1) == "stopped"
    for module in first.modules:
        beat(first, module, **{**process, "started": 1, "state": "failed", "exit_code": 1})
    assert check(failed=1, finished=1, pruned=1) == "finished"


def test_a_trial_s_launcher_and_jobs_are_followed_without_a_heartbeat(tmp_path: Path) -> None:
    run = make(tmp_path / "run", live=False)
    for module in run.modules:
        shutil.rmtree(run.module_path(module))
    catalog = Catalog(tmp_path)
    assert rows(catalog)["run"]["state"] == "created"
    run.jobs_path.mkdir()
    claim(run)
    revision = catalog.revision
    assert rows(catalog)["run"]["state"] == "queued"
    assert catalog.revision > revision
    launcher_path(run.path).unlink()
    assert rows(catalog)["run"]["state"] == "created"
