"""What a run has told over time is read once, as it comes, whatever else stands in its files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from modtrain.storage.recent import Recent

from modtrain.dashboard.trial_curves import ByEpoch
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.curves import Columns, scalars
from modtrain.storage.history import FIRST, LAST, History
from modtrain.storage.json_lines import Growing, objects, start_of_last
from modtrain.storage.publisher import Publisher
from modtrain.storage.run import Run
from modtrain.sweeps.trial import reports
from tests.support import runs

TOGETHER = [["generator", "discriminator"]]


def append(path: Path, *lines: object) -> None:
    with path.open("ab") as file:
        for line in lines:
            file.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


def new(growing: Growing) -> list[dict[str, Any]]:
    """The objects of all lines that are new, where the file has changed."""
    return rest(growing) if growing.look()[0] else []


def rest(growing: Growing) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while (lines := growing.more()) is not None:
        found += objects(lines)
    return found


def test_new_lines_are_read_as_they_come_and_a_torn_one_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    growing = Growing(path)
    assert new(growing) == []
    append(path, {"step": 1}, b'{"step": ')
    assert new(growing) == [{"step": 1}]
    assert growing.look() == (False, False)
    append(path, b"2}\n")
    assert new(growing) == [{"step": 2}]


def test_what_is_no_json_object_is_left_out_and_costs_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    odd = [b"\xff\xfe\n", b"[1]\n", b"null\n", b'{"a":1},{"b":2}\n', b"[" * 100_000 + b"\n", b"\n", b'{"step": \n']
    append(path, {"step": 1}, *odd, b"1" * 3_000_000 + b"\n", b'{"step": 2, "loss": NaN}\n')
    assert new(Growing(path)) == [{"step": 1}, {"step": 2, "loss": None}]


@pytest.mark.parametrize("how", ["shrank", "replaced", "rewritten longer", "removed"])
def test_a_file_that_is_another_one_now_is_begun_anew(tmp_path: Path, how: str) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1}, {"step": 2})
    growing = Growing(path)
    new(growing)
    if how == "shrank":
        path.write_text('{"step": 7}\n')
    elif how == "replaced":
        (tmp_path / "other").write_text('{"step": 7}\n')
        (tmp_path / "other").rename(path)
    elif how == "rewritten longer":
        path.write_text('{"step": 7}\n' + " " * 100 + "\n")
    else:
        path.unlink()
    assert growing.look() == (True, True)
    assert rest(growing) == ([] if how == "removed" else [{"step": 7}])


def test_a_line_is_never_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, *({"step": step} for step in range(50_000)))
    growing, sizes = Growing(path), list[int]()
    assert len(new(growing)) == 50_000
    real = os.pread
    monkeypatch.setattr(
        os, "pread", lambda fd, size, offset: sizes.append(len(found := real(fd, size, offset))) or found
    )
    assert new(growing) == []
    assert sizes == []
    append(path, {"step": 50_000})
    assert new(growing) == [{"step": 50_000}]
    assert sum(sizes) < 200


def test_what_storage_did_not_give_is_read_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1})
    growing = Growing(path)
    assert new(growing) == [{"step": 1}]
    append(path, {"step": 2})
    failed: list[int] = []

    def fails(descriptor: int, size: int, offset: int) -> bytes:
        failed.append(offset)
        raise OSError(errno.EIO, "storage fails")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fails)
        assert new(growing) == []
    assert failed
    assert new(growing) == [{"step": 2}]


def test_the_last_lines_of_a_file_of_two_gigabytes_are_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    with path.open("wb") as file:
        file.truncate(2 << 30)  # a hole: it takes no space
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(20_000)))
    growing = Growing(path, last=10_000)
    growing.look()
    lines = []
    while (new := growing.more()) is not None:
        lines += new
    assert lines == [b"line %d" % number for number in range(10_000, 20_000)]
    assert start_of_last(path, 10**9) > 2 << 29, "nobody reads two gigabytes to look for a line"


def test_the_last_lines_count_one_that_has_no_end_yet(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_bytes(b"one\ntwo\nthree")
    assert [start_of_last(path, count) for count in (0, 1, 2, 3, 4)] == [13, 8, 4, 0, 0]
    path.write_bytes(b"one\ntwo\n")
    assert [start_of_last(path, count) for count in (0, 1, 2, 3)] == [8, 4, 0, 0]


def point(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "epoch": step / 10, "lr": 0.1, "at": 1.0 + step, "loss": float(step), **more}


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Run:
    made = runs.make_run(tmp_path / "run", tiny_recipe, TOGETHER)
    for module in made.modules:
        made.module_path(module).mkdir(parents=True)
    return made


def test_what_a_restart_trained_again_replaces_what_was_there(run: Run) -> None:
    path = run.module_path("generator") / "metrics.jsonl"
    append(path, point(20), point(40), point(60))
    history = History(run)
    assert history.look()
    append(path, point(40, loss=7.0), {"step": "60"}, {"nothing": 1}, {**point(50), "at": None})
    assert history.look()
    assert points(history) == [(20, 20.0), (40, 7.0)]
    assert len(history.curve("discriminator")) == 0
    assert not history.look()


def points(history: History) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in history.curve("generator").rows()]


def test_who_goes_on_from_a_step_takes_back_what_an_earlier_life_had_done_behind_it(run: Run) -> None:
    path = run.module_path("generator") / "metrics.jsonl"
    append(path, point(20), point(40), point(60))
    history = History(run)
    history.look()
    append(path, {"goes_on_from": 20, "at": 0.0})
    assert history.look()
    assert points(history) == [(20, 20.0)]
    append(path, point(50))
    history.look()
    again = History(run)
    again.look()
    assert points(history) == points(again) == [(20, 20.0), (50, 50.0)]


def test_a_curve_is_numbers_and_says_what_each_line_had() -> None:
    columns = Columns()
    columns.add({"step": 1, "epoch": 0.5, "at": 1.5, "loss": 2.0, "seconds": {"compute": 1.0, "data": None}})
    columns.add({"step": 2, "epoch": 1, "at": 2.5, "lr": 0.1, "penalty": 3.0})
    first, second = columns.rows()
    assert first == {"step": 1, "epoch": 0.5, "at": 1.5, "lr": None, "loss": 2.0, "seconds_compute": 1.0}
    assert second == {"step": 2, "epoch": 1.0, "at": 2.5, "lr": 0.1, "penalty": 3.0}
    columns.add({"step": 2, "epoch": 1, "at": 9.0, "lr": 0.0, "loss": 7.0})
    assert [row["step"] for row in columns.rows()] == [1, 2]
    assert columns.losses(0, 2) == [2.0], "a learning rate of 0 trains nothing"


def test_the_list_of_runs_judges_the_same_losses_as_the_page_of_one(run: Run) -> None:
    path = run.module_path("generator") / "metrics.jsonl"
    history, recent = History(run), Recent(run)
    for begin, end in ((0, 25), (25, 200), (200, 350), (350, 2_000)):
        append(path, *(point(step) for step in range(begin, end)))
        for late in (Recent(run), recent):
            late.look()
            history.look()
            assert late.losses("generator") == history.losses("generator"), (begin, end)
    assert len(history.losses("generator")) == FIRST + LAST
    for back, beyond in ((1_900, 1_950), (900, 1_300), (10, 12)):
        append(path, {"goes_on_from": back}, *(point(step, loss=7.0) for step in range(back + 1, beyond)))
        for late in (Recent(run), recent):
            late.look()
            history.look()
            assert late.losses("generator") == history.losses("generator"), (back, beyond)


def test_only_finite_numbers_are_scalars() -> None:
    line = {**point(1), "seconds": {"data": 1}, "name": "x", "yes": True, "huge": 10**400, "no": None, "inf": 1e999}
    assert scalars(line) == {"loss": 1.0}


def test_versions_are_those_that_were_published_in_their_order(run: Run) -> None:
    store = CheckpointStore(run.module_path("generator"))
    publisher = Publisher(store, "worker")
    peers = {"discriminator": {"versions": [3], "epoch": 1}}
    for version in range(3):
        publisher.publish({"weights.safetensors": b"x"}, epoch=version, step=version, peers=peers)
    path = run.module_path("generator") / "published.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    foreign = [b'{"version": 7}\n', json.dumps({**json.loads(lines[0]), "peers": {"x": 1}}).encode() + b"\n"]
    path.write_bytes(lines[0] + lines[2] + lines[1] + lines[2] + b"".join(foreign))
    history = History(run)
    assert history.look()
    found = history.versions("generator")
    assert [(line["version"], line["epoch"], line["peers"]) for line in found] == [(v, v, peers) for v in range(3)]


def test_of_two_evaluations_of_an_epoch_the_first_counts_and_of_the_same_versions_the_last(run: Run) -> None:
    (run.path / "evaluation").mkdir()

    def judged(version: int, other: int, mean: float) -> dict[str, Any]:
        epochs = {"generator": version, "discriminator": other}
        return {"at": 1.0, "versions": epochs, "epochs": epochs, "metrics": {"mean": mean}}

    lines = judged(4, 4, 0.8), judged(5, 4, 0.5), judged(5, 5, 0.6), judged(5, 5, 0.7)
    append(run.path / "evaluation" / "metrics.jsonl", *lines)
    assert reports(run, "mean") == ByEpoch(run, "mean").look()["mean"] == {4: 0.8, 5: 0.6}
    history = History(run)
    history.look()
    assert [line["metrics"]["mean"] for line in history.evaluations()] == [0.8, 0.5, 0.7]


def test_evaluations_and_what_workers_did_are_told(run: Run) -> None:
    (run.path / "evaluation").mkdir()
    judged = {"at": 1.0, "versions": {"generator": 1}, "epochs": {"generator": 1}, "metrics": {"mean": None}}
    foreign = {**judged, "versions": {"generator": [1]}}
    append(run.path / "evaluation" / "metrics.jsonl", judged, {"at": 2.0}, foreign)
    append(run.module_path("generator") / "workers.jsonl", {"what": "began", "at": 1.0}, {"what": 1, "at": 1.0})
    history = History(run)
    assert history.look()
    assert history.evaluations() == [judged]
    assert history.doings("generator") == [{"what": "began", "at": 1.0}]
