"""How many versions stay on disk with `keep`, and whether a run takes the bytes that `modtrain doctor` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.recipes.loading import recipe_of
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_plan import RunPlan, find_target, plan_run
from modtrain.storage import doctor
from modtrain.storage.checkpoint import META
from modtrain.storage.publisher import Publisher
from modtrain.training.disk_use import disk_use
from tests.conftest import TINY
from tests.support.command import Terminal
from tests.support.losses import SMALL
from tests.support.runs import make_run, train_apart

APART = [["generator"], ["discriminator"]]
TOGETHER = [["generator", "discriminator"]]


def bytes_below(folder: Path) -> int:
    """Of the files of all versions but their meta.json, also of one that is being published."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != META)


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """By module's folder the most bytes of its versions, which is when one was published and none is pruned yet."""
    found, prune = dict[Path, int](), Publisher.prune

    def measure(publisher: Publisher) -> None:
        path = publisher.store.checkpoints
        found[path] = max(found.get(path, 0), bytes_below(path))
        prune(publisher)

    monkeypatch.setattr(Publisher, "prune", measure)
    return found


@pytest.mark.parametrize(
    ("recipe", "placement", "settings"),
    [
        (str(TINY), APART, {"keep": 5, "exchange_every": 2, "epochs": 6, "evaluate_every": 1, "max_staleness": 0}),
        ("srgan", TOGETHER, {"keep": 3, "epochs": 12, "params": SMALL["srgan"] | {"crops": 8}}),
    ],
)
def test_a_run_takes_the_bytes_that_were_said_and_at_most_a_third_less(
    tmp_path: Path, peaks: dict[Path, int], recipe: str, placement: list[list[str]], settings: Mapping[str, Any]
) -> None:
    run = make_run(tmp_path / "run", recipe, placement, **settings)
    said = disk_use(run.spec, recipe_of(run))
    train_apart(run)
    # A state has some bytes more when its numbers have more digits.
    assert 2 / 3 * said.most_bytes <= sum(peaks.values()) <= 1.01 * said.most_bytes


def test_what_the_memory_of_a_loss_will_hold_is_said_to_come_on_top(tmp_path: Path, type_: Terminal) -> None:
    small = ("--generator.width", 2, "--generator.blocks", 1, "--discriminator.width", 2)
    shown = type_("doctor", tmp_path, "--size-mb", 0.01, "--recipe", "cyclegan", *small).out
    assert "memory of discriminator_b and discriminator_a holds comes on top" in " ".join(shown.split())


def test_with_keep_versions_go_as_soon_as_there_are_newer_ones_and_without_they_stay_for_a_minute(
    tmp_path: Path,
) -> None:
    runs = [
        make_run(tmp_path / name, TINY, APART, exchange_every=1, epochs=2, max_staleness="exchange", **more)
        for name, more in (("few", {"keep": 4}), ("all", {}))
    ]
    for run in runs:
        train_apart(run)
    few, every = (run.store("generator").newest() for run in runs)
    assert [each.step for each in few] == [20, 19, 18, 17, 10]
    assert len(every) == 21


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"keep": 2}, "generator reads the newest version of discriminator, and two more give it time to read; give"),
        ({"keep": 4, "params": {"opponents": 3}}, "reads the newest 3 versions of discriminator, .*; give at least 5."),
        ({"keep": 5, "max_staleness": 4}, "max_staleness lets discriminator be 4 epochs behind generator, .* least 6."),
    ],
)
def test_fewer_versions_than_peers_need_are_refused_and_the_reader_is_named(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=f"keep = {settings['keep']} is not allowed: .*{sentence}"):
        plan(tmp_path, **settings)
    plan(tmp_path, **settings | {"keep": settings["keep"] + 1})


def test_modules_of_one_worker_need_no_versions_of_each_other(tmp_path: Path) -> None:
    assert plan(tmp_path, keep=1, nodes=1, params={"opponents": 3}).run.spec.keep == 1


def test_a_run_that_exists_keeps_fewer_versions_from_its_next_start_on(tmp_path: Path) -> None:
    train_apart(plan(tmp_path, epochs=1, max_staleness=0).write())
    changed = plan(tmp_path, keep=3)
    assert changed.notes == ["Keeps the newest 3 versions of each module."]
    assert changed.write().spec.keep == 3
    with pytest.raises(InputError, match="keep = 2 is not allowed"):
        plan(tmp_path, keep=2)


def plan(root: Path, **settings: Any) -> RunPlan:
    return plan_run(find_target(Config(recipe=str(TINY), root=str(root), name="run", **settings)))


def test_doctor_says_which_versions_of_a_recipe_stay_and_warns_where_they_do_not_fit(
    tmp_path: Path, type_: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["doctor", tmp_path, "--size-mb", 0.01, "--recipe", TINY, "--opponents", 3, "--exchange-every", 2]
    run = json.loads(type_(*words, "--keep", 5, "--json").out)["run"]
    discriminator = run["modules"]["discriminator"]
    assert (discriminator["full"], discriminator["average_bytes"]) == (4, 0)
    files = {name: discriminator[f"{name}_bytes"] for name in ("weights", "state")}
    versions = 4 * sum(files.values()) + discriminator["exchanged"] * files["weights"]
    assert discriminator["most_bytes"] == versions
    fits = type_(*words)
    assert "of the last minute stay as well" in " ".join(fits.out.split())
    assert "does not fit" not in fits.out
    monkeypatch.setattr(doctor, "free_bytes", lambda path: run["most_bytes"] - 1)
    full = type_(*words, "--keep", 5)
    assert "It does not fit: make room" in " ".join(full.out.split())


def test_doctor_refuses_what_is_about_a_run_where_it_does_not_know_its_recipe(tmp_path: Path, type_: Terminal) -> None:
    assert type_("doctor", tmp_path, "--keep", 3).err == (
        "modtrain: --keep is about a run; name what it trains with --recipe, or leave it out.\n"
    )
