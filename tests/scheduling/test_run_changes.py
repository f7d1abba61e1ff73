"""What a command may change in a run that has begun: more epochs, and where its data or its recipe lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modtrain.errors import InputError
from modtrain.monitoring.catalog import Catalog
from modtrain.monitoring.status import build_status
from modtrain.scheduling.config import Config
from modtrain.scheduling.run_changes import describe
from modtrain.scheduling.run_plan import find_target, plan_run
from modtrain.storage import filesystem
from modtrain.storage.folder_listing import listing_sha256
from modtrain.storage.run import Run
from modtrain.storage.run_snapshot import read_snapshot
from modtrain.sweeps.sweep import new_sweep
from tests.support.command import typed
from tests.support.runs import finish, start_worker

Begin = Callable[..., Run]


@pytest.fixture
def begin(tmp_path: Path, tiny_recipe: Path) -> Begin:
    """Create the run `run`, or plan it again with other settings and write the changes."""

    def begin(**settings: Any) -> Run:
        config = Config(recipe=settings.pop("recipe", str(tiny_recipe)), root=str(tmp_path), name="run", **settings)
        return plan_run(find_target(config)).write()

    return begin


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "a").mkdir(parents=True)
    for number in range(3):
        (folder / f"a/{number}.png").write_bytes(bytes(number))
    return folder


def rates(run: Run) -> list[float]:
    """The discriminator's learning rate at the end of each epoch."""
    by_epoch = {row["epoch"]: row["lr"] for row in run.history() if row["module"] == "discriminator" and row["lr"]}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def test_a_finished_run_is_trained_for_more_epochs(begin: Begin) -> None:
    short = begin(nodes=1, epochs=2)
    finish(short)
    weights = short.store("generator").latest()
    longer = begin(epochs=4)
    assert build_status(read_snapshot(longer))["state"] == "stopped"
    assert not longer.is_finished(longer.modules)
    finish(longer)
    assert build_status(read_snapshot(longer))["state"] == "finished"
    newest = longer.store("generator").latest()
    assert weights
    assert newest
    assert (weights.epoch, newest.epoch, newest.step) == (2, 4, 40)
    assert rates(longer)[2:] == pytest.approx([0.01 * (1 - step / 80) for step in (29, 39)])


def test_schedules_can_be_held_where_they_ended(begin: Begin) -> None:
    finish(begin(nodes=1, epochs=2))
    longer = begin(epochs=3, hold_schedule=True)
    finish(longer)
    end = 0.01 * (1 - 19 / 40)
    assert rates(longer)[1:] == pytest.approx([end, end])
    assert begin(epochs=4, hold_schedule=True).spec.schedule_epochs == 2
    assert begin(epochs=5).spec.schedule_epochs is None


def test_what_is_changed_is_said_and_kept_in_run_json(begin: Begin, tmp_path: Path, tiny_recipe: Path) -> None:
    finish(begin(nodes=1, epochs=2))
    config = Config(recipe=str(tiny_recipe), root=str(tmp_path), name="run", epochs=8)
    (note,) = plan_run(find_target(config)).notes
    assert note.startswith("Trains to epoch 8 instead of 2. Schedules cover all 8 epochs: epoch 2 is at 25% of them.")
    changes = begin(epochs=8).spec.changes
    assert [(change.name, change.before, change.after) for change in changes] == [("epochs", 2, 8)]
    assert begin(epochs=8).spec.changes == changes
    before, held = begin().spec, begin(epochs=9, hold_schedule=True).spec
    assert [(change.name, change.before, change.after) for change in held.changes[1:]] == [
        ("epochs", 8, 9),
        ("schedule_epochs", None, 8),
    ]
    assert len(describe(before, held)) == 1


def test_fewer_epochs_and_a_held_schedule_without_more_are_refused(begin: Begin) -> None:
    with pytest.raises(InputError, match="--hold-schedule is for a run that exists"):
        begin(nodes=1, epochs=2, hold_schedule=True)
    finish(begin(nodes=1, epochs=2))
    with pytest.raises(InputError, match="epochs is 2, not 1"):
        begin(epochs=1)
    with pytest.raises(InputError, match="--hold-schedule is for a run that exists and gets more --epochs"):
        begin(hold_schedule=True)


def test_a_run_with_live_workers_is_not_changed(begin: Begin) -> None:
    run = begin(nodes=1, epochs=200, params={"pause_s": 0.05})
    with start_worker(run, "generator,discriminator") as worker:
        assert filesystem.wait_until(lambda: run.store("generator").latest(), timeout_s=60)
        with pytest.raises(InputError, match=r"run is running or queued \(generator, discriminator\); `modtrain stop"):
            begin(epochs=300)
        worker.kill()
    assert Run.open(run.path).spec.epochs == 200


def with_primary_metric(name: str, recipe: Path, folder: Path) -> Path:
    """A copy of a recipe that names its primary metric."""
    copy = folder / "measured.py"
    copy.write_text(recipe.read_text().replace("evaluate=evaluate,", f'evaluate=evaluate, primary_metric="{name}",'))
    return copy


def test_the_metric_is_the_recipe_s_or_another_one_and_may_change_at_any_time(
    begin: Begin, tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = with_primary_metric("mean", tiny_recipe, tmp_path)
    run = begin(recipe=str(recipe), nodes=1, epochs=1)
    assert (run.spec.metric, run.spec.primary_metric) == (None, "mean")
    finish(run)
    assert begin(recipe=str(recipe)).spec == run.spec
    assert begin(recipe=str(recipe), metric="fid").spec.metric == "fid"
    sweep = new_sweep(Config(recipe=str(recipe)), {"lr": "0.1..0.2"}, sampler="random", trials=1)
    assert (sweep.metric, "metric" in sweep.config) == ("mean", False)


def test_without_a_check_as_well_the_first_metric_counts_where_the_recipe_s_is_not_measured(
    begin: Begin, tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = with_primary_metric("likeness", tiny_recipe, tmp_path)
    run = begin(recipe=str(recipe), nodes=1, epochs=1)
    finish(run)
    first = typed("evaluate", run.path, "--json", "--device", "cpu")
    best = typed("evaluate", run.path, "--best", "--json", "--device", "cpu")
    assert (best.code, best.out) == (0, first.out), best.err
    catalog = Catalog(tmp_path)
    catalog.refresh()
    (row,) = catalog.rows()["runs"]
    assert row["metric"]["name"] == next(iter(json.loads(first.out)["metrics"]))


def test_moved_data_is_recognised_by_its_names_and_sizes(begin: Begin, photographs: Path, tmp_path: Path) -> None:
    finish(begin(nodes=1, epochs=2, dataroot=str(photographs)))
    moved = photographs.rename(tmp_path / "elsewhere")
    dry = typed("launch", tmp_path / "run", "--dataroot", moved, "--dry-run")
    assert f"would be changed\n  Takes its data from {moved}, the same as in {photographs}.\n" in dry.out
    assert (dry.code, dry.err, Run.open(tmp_path / "run").spec.dataroot) == (0, "", str(photographs))
    run = begin(dataroot=str(moved))
    assert run.spec.dataroot == str(moved)
    assert [(change.before, change.after) for change in run.spec.changes] == [(str(photographs), str(moved))]
    shutil.copytree(moved, tmp_path / "others")
    (tmp_path / "others/a/1.png").write_bytes(b"another size")
    with pytest.raises(InputError, match=r"exists with other settings: dataroot is .*elsewhere', not .*others'"):
        begin(dataroot=str(tmp_path / "others"))


def test_a_finished_run_without_its_data_is_not_trained_for_more_epochs(begin: Begin, photographs: Path) -> None:
    finish(begin(nodes=1, epochs=2, dataroot=str(photographs)))
    shutil.rmtree(photographs)
    with pytest.raises(InputError, match=r"no longer in .*photographs; .* with --dataroot"):
        begin(epochs=3)
    assert begin().spec.epochs == 2


def test_a_link_to_a_parent_folder_does_not_make_data_endless(photographs: Path) -> None:
    before = listing_sha256(photographs)
    for name in ("again", "b", "c"):
        (photographs / "a" / name).symlink_to(photographs)
    assert listing_sha256(photographs) == before


def test_a_run_whose_data_or_recipe_is_gone_says_how_to_name_its_new_place(
    begin: Begin, photographs: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_bytes(tiny_recipe.read_bytes())
    run = begin(recipe=str(recipe), nodes=1, epochs=2, dataroot=str(photographs))
    finish(run)
    longer = {"recipe": str(recipe), "epochs": 3}
    begin(**longer)
    photographs.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"no longer in .*photographs; .* with --dataroot"):
        begin(**longer)
    moved = recipe.rename(tmp_path / "ours.py")
    with pytest.raises(InputError, match=r"mine.py of run is gone; .* with --recipe"):
        find_target(Config(root=str(tmp_path), name="run"), named_by_folder=True)
    run = begin(recipe=str(moved), dataroot=str(tmp_path / "elsewhere"))
    assert (run.spec.recipe, run.spec.dataroot) == (str(moved), str(tmp_path / "elsewhere"))
    finish(run)
    moved.write_text(moved.read_text() + "\n# edited\n")
    shutil.copy(moved, recipe)
    with pytest.raises(InputError, match=r"recipe is .*ours.py', not .*mine.py'"):
        begin(recipe=str(recipe))
