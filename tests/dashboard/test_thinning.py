"""Lanes of more versions than a page can hold: which are shown, what is said, and what is loaded for a range."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from modtrain.dashboard import thinning, timeline
from modtrain.dashboard.page_data import Source
from modtrain.dashboard.thinning import Published, thinned
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.heartbeat import WorkerReport
from modtrain.storage.run import Run, RunSpec
from tests.support.serving import served

COUNT, EPOCH = 12_000, 100
"""Versions of each module, and how many of them make an epoch."""


def published(module: str, peer: str, count: int = COUNT) -> list[Checkpoint]:
    """One version a second; each was trained against the one of its peer three before."""
    return [
        Checkpoint(
            module=module,
            version=number,
            epoch=number // EPOCH,
            step=10 * number,
            full=number % EPOCH == 0,
            final=number == 5_000,  # the run was prolonged then
            files={},
            metrics={"loss": 1.0},
            peers={peer: {"versions": [max(0, number - 3)], "epoch": 0}},
            writer="w",
            published_at=float(number),
        )
        for number in range(count)
    ]


MODULES = {"a": published("a", "b"), "b": published("b", "a")}
DEATH = 7_777.5


def numbers(versions: Sequence[Checkpoint]) -> set[int]:
    return {checkpoint.version for checkpoint in versions}


def test_what_matters_of_a_long_lane_is_kept() -> None:
    shown = thinned({name: Published(versions=versions, deaths=[DEATH]) for name, versions in MODULES.items()})
    for name, peer in (("a", "b"), ("b", "a")):
        kept = numbers(shown[name])
        assert len(kept) <= thinning.MOST
        assert kept >= set(range(0, COUNT, EPOCH)), "ends of epochs"
        assert kept >= set(range(COUNT - thinning.NEWEST, COUNT)), "the newest"
        assert kept >= {5_000, 7_777, 7_778}, "the last of a run that was prolonged, those around a death"
        used = {checkpoint.peers[name]["versions"][0] for checkpoint in shown[peer]}
        assert len(used & kept) > 0.5 * len(used), "what the others used"
        assert max(b - a for a, b in itertools.pairwise(sorted(kept))) <= 64, "no hole between"


def test_more_ends_of_epochs_than_fit_are_thinned_evenly() -> None:
    versions = [Checkpoint(**{**vars(each), "full": True}) for each in MODULES["a"]]
    kept = sorted(numbers(thinned({"a": Published(versions=versions)})["a"]))
    assert len(kept) <= thinning.MOST
    assert kept[0] == 0
    assert max(b - a for a, b in itertools.pairwise(kept)) <= 16


def test_a_lane_that_fits_is_all_there() -> None:
    short = {name: Published(versions=versions[: thinning.MOST]) for name, versions in MODULES.items()}
    assert thinned(short) == {name: list(module.versions) for name, module in short.items()}


def test_what_is_shown_stays_as_a_lane_grows() -> None:
    before, after = (
        numbers(thinned({n: Published(versions=v[:count]) for n, v in MODULES.items()})["a"]) for count in (8000, 8060)
    )
    assert len(before - after) <= thinning.NEWEST, "only the newest of before may go"


def lane(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    one = timeline.Lane(versions=[], present=[], stages=[], events=events, state="running", report=WorkerReport())
    return timeline.build_lanes({"a": one})[0]


def test_of_many_waits_the_longest_are_shown_and_of_many_workers_the_newest() -> None:
    most = timeline.MOST_SPANS
    events = [{"what": "waited", "at": float(n), "seconds": 99.0 if n == 7 else 1.0} for n in range(20 * most)]
    shown = lane(events)
    assert shown["count"]["waits"] == 20 * most
    assert [wait["to"] for wait in shown["waits"]] == [7.0, *(event["at"] for event in events[1 - most :])]
    events = [{"what": "began", "at": float(second), "host": "here"} for second in range(20 * most)]
    shown = lane(events)
    assert shown["count"]["workers"] == 20 * most
    assert [worker["from"] for worker in shown["workers"]] == [event["at"] for event in events[-most:]]
    assert {worker["end"] for worker in shown["workers"][:-1]} == {"lost"}
    assert shown["workers"][-1]["to"] is None


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two modules with more versions than a page can hold."""
    path = tmp_path_factory.mktemp("runs") / "long"
    run = Run.create(path, RunSpec(recipe="demo", placement=[["a"], ["b"]], epochs=COUNT // EPOCH))
    for module, versions in MODULES.items():
        run.module_path(module).mkdir(parents=True)
        run.published_path(module).write_bytes(b"".join(each.seal() + b"\n" for each in versions[:4_000]))
    return run


def test_a_page_has_the_whole_time_and_says_how_many_versions_there_are(long_run: Run) -> None:
    page = Source(long_run.path.parent).run("long")
    for shown in page["lanes"]:
        assert shown["count"]["versions"] == 4_000
        assert thinning.MOST / 2 < len(shown["versions"]) <= thinning.MOST
        assert [shown["versions"][at]["version"] for at in (0, -1)] == [0, 3_999]


def test_a_range_of_time_has_all_of_its_versions(long_run: Run) -> None:
    with served(long_run.path.parent) as one:
        lanes = one.data("lanes/long?from=1000&to=1500.5")["lanes"]
        for shown in lanes:
            assert [version["version"] for version in shown["versions"]] == list(range(1000, 1501))
            assert shown["count"]["versions"] == 501
        for query in ("", "?from=1", "?from=x&to=2"):
            assert one.get(f"/data/lanes/long{query}").status_code == 400
        assert one.get("/data/lanes/none?from=1&to=2").status_code == 404
