"""`heartbeat.json`: what a worker writes, and what a foreign or damaged file costs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from modtrain.storage.heartbeat import NO_REPORT, Heartbeat, parse_report, read_report
from modtrain.storage.process_identity import ProcessIdentity
from modtrain.storage.run import Run
from tests.support.runs import make_run


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    run = make_run(tmp_path / "run", tiny_recipe, [["generator", "discriminator"]])
    for module in run.modules:
        run.module_path(module).mkdir(parents=True)
    return run


def test_what_a_worker_reports_is_read_back_for_each_of_its_modules(run: Run) -> None:
    with Heartbeat(map(run.heartbeat_path, run.modules), device="cpu") as heartbeat:
        first = run.read_report("generator")
        assert (first.state, first.device, first.step) == ("starting", "cpu", None)
        assert first.process == ProcessIdentity.current()
        losses = {"generator": {"loss": 0.5, "odd": float("nan")}}
        heartbeat.report(now=True, state="waiting", step=20, epoch=1, waiting_for="discriminator", losses=losses)
        report = run.read_report("discriminator")
        assert (report.state, report.step, report.epoch, report.waiting_for) == ("waiting", 20, 1, "discriminator")
        assert report.losses == {"generator": {"loss": 0.5}}
        assert (report.counter or 0) > (first.counter or 0)
        assert report.is_live
        heartbeat.report(state="stopped", exit_code=3)
    last = run.read_report("generator")
    assert (last.state, last.exit_code, last.is_live) == ("stopped", 3, False)


def test_a_worker_that_was_overtaken_writes_no_more_reports(run: Run) -> None:
    with Heartbeat([run.heartbeat_path("generator")]) as heartbeat:
        before = run.read_report("generator")
        heartbeat.silence()
        heartbeat.report(now=True, state="failed")
    assert run.read_report("generator") == before


@pytest.mark.parametrize(
    "content",
    ["", "5", "[[1]]", '"x"', "{", "[" * 9999, "null", '{"pid": {}, "state": []}', '{"state": "training"}', "\udcff"],
)
def test_a_foreign_heartbeat_is_no_report(tmp_path: Path, content: str) -> None:
    (tmp_path / "heartbeat.json").write_bytes(content.encode(errors="surrogateescape"))
    assert read_report(tmp_path / "heartbeat.json") == NO_REPORT
    assert not NO_REPORT


@pytest.mark.parametrize("kind", ["pipe", "folder", "huge", "link"])
def test_a_heartbeat_that_is_not_a_small_regular_file_is_no_report_and_blocks_nothing(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "heartbeat.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2 << 30)
    else:
        (tmp_path / "other").write_text('{"state": "running"}')
        path.symlink_to(tmp_path / "other")
    assert read_report(path) == NO_REPORT


def test_fields_of_a_wrong_type_are_left_out() -> None:
    values = {"state": "running", "step": "many", "steps": {}, "epoch": 1.5, "left_s": "soon", "at": True, "pid": "x"}
    report = parse_report({**values, "losses": {"generator": {"loss": "x"}, "discriminator": 7}, "trouble": 3})
    assert report == parse_report({"state": "running", "losses": {"generator": {}}})


def test_a_heartbeat_that_storage_does_not_give_is_an_error_and_not_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "heartbeat.json"
    assert read_report(path) == NO_REPORT
    path.write_text(json.dumps({"state": "running"}))

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        with pytest.raises(OSError, match="Input/output error"):
            read_report(path)
